import pytest

from agent.engine.model import ExecConfig
from agent.errors import EngineError, Kind, invalid
from agent.wire.streams import STDOUT


def refusal(function, *arguments, **named):
    with pytest.raises(EngineError) as caught:
        function(*arguments, **named)
    return caught.value.kind, caught.value.message


def test_a_life(world):
    identity = world.run("true")
    execs = world.engine.execs
    exec_id = execs.create(identity, ExecConfig(cmd=("ls", "-l"), tty=True))
    assert execs.of(identity) == [exec_id]
    assert refusal(execs.resize, exec_id, 1, 2) == (Kind.CONFLICT, f"exec {exec_id} is not running")
    stream = execs.start(exec_id, detach=False, tty=True)
    info = execs.get(exec_id)
    assert (info.running, info.exit_code, info.pid) == (True, None, 4242)
    assert refusal(execs.start, exec_id, detach=False, tty=True)[1] == (
        f"Error: Exec command {exec_id} is already running"
    )
    execs.resize(exec_id, 24, 80)
    assert world.runtime.execs[exec_id].size == (24, 80)
    world.runtime.finish_exec(exec_id, 3)
    info = execs.get(exec_id)
    assert (info.running, info.exit_code, execs.of(identity)) == (False, 3, [])
    assert stream.read() == []
    stream.close()
    assert refusal(execs.start, exec_id, detach=True, tty=False)[1].endswith("has already run")
    names = [one.action for one in world.engine._core.bus._past]
    assert names[-3:] == ["exec_create: ls -l", "exec_start: ls -l", "exec_die"]
    world.advance(301)
    world.wait_until(lambda: exec_id not in execs._entries)
    assert refusal(execs.get, exec_id) == (Kind.NOT_FOUND, f"No such exec instance: {exec_id}")


def test_refusals(world):
    identity = world.make("true")
    execs = world.engine.execs
    config = ExecConfig(cmd=("x",))
    assert refusal(execs.create, identity, config) == (
        Kind.CONFLICT,
        f"Container {identity} is not running",
    )
    world.engine.containers.start(identity)
    assert refusal(execs.create, identity, ExecConfig(cmd=()))[1] == "No exec command specified"
    exec_id = execs.create(identity, config)
    world.end(identity)
    assert refusal(execs.start, exec_id, detach=True, tty=False)[0] is Kind.CONFLICT
    assert execs.get(exec_id).running is False
    world.engine.containers.remove(identity, force=False, volumes=False)
    assert refusal(execs.get, exec_id)[0] is Kind.NOT_FOUND


def test_a_command_that_cannot_run(world):
    identity = world.run("true")
    execs = world.engine.execs
    text = 'exec: "x": executable file not found in $PATH'
    world.runtime.fail["exec"] = invalid(text)
    exec_id = execs.create(identity, ExecConfig(cmd=("x",)))
    stream = execs.start(exec_id, detach=False, tty=False)
    assert stream.read() == [(STDOUT, f"{text}\r\n".encode())]
    assert stream.read() == []
    stream.close()
    assert execs.get(exec_id).exit_code == 127
    detached = execs.create(identity, ExecConfig(cmd=("x",)))
    assert refusal(execs.start, detached, detach=True, tty=False) == (Kind.INVALID, text)


def test_detached(world):
    exec_id = world.engine.execs.create(world.run("true"), ExecConfig(cmd=("x",)))
    assert world.engine.execs.start(exec_id, detach=True, tty=False) is None
