import select

import pytest

from agent.api.backend import AttachRequest
from agent.engine.model import ContainerConfig, HostConfig
from agent.errors import EngineError, invalid
from agent.wire.streams import STDERR, STDOUT
from tests.support.fakes import World

ALL = AttachRequest(stdin=True, stdout=True, stderr=True, stream=True)


def ready(stream) -> bool:
    return bool(select.select([stream], [], [], 0)[0])


def test_attached_before_the_start_nothing_is_lost(world):
    world.runtime.on_start = lambda identity: world.runtime.output(identity, b"first")
    identity = world.make("true")
    stream = world.engine.containers.attach(identity, ALL)
    fd = stream.fileno()
    assert (ready(stream), stream.read(), ready(stream)) == (False, None, False)
    world.engine.containers.start(identity)
    assert ready(stream)
    assert stream.read() == [(STDOUT, b"first")]
    assert stream.read() is None
    assert not ready(stream)
    world.runtime.output(identity, b"second", STDERR)
    assert stream.read() == [(STDERR, b"second")]
    world.end(identity)
    assert ready(stream)
    assert stream.read() == []
    assert stream.fileno() == fd
    stream.close()


def test_output_between_start_and_exit_is_all_there(world):
    def quick(identity):
        world.runtime.output(identity, b"bye")
        world.runtime.end(identity, 0)

    world.runtime.on_start = quick
    identity = world.make("true", host=HostConfig(auto_remove=True))
    stream = world.engine.containers.attach(identity, ALL)
    waiter = world.engine.containers.wait(identity, "removed")
    world.engine.containers.start(identity)
    world.wait_until(lambda: waiter.result() is not None)
    assert stream.read() == [(STDOUT, b"bye")]
    assert stream.read() == []
    stream.close()
    waiter.close()


def test_a_failed_start_and_a_removal_end_it(world):
    identity = world.make("true")
    stream = world.engine.containers.attach(identity, ALL)
    world.runtime.fail["create"] = invalid("broken")
    with pytest.raises(EngineError, match="broken"):
        world.engine.containers.start(identity)
    assert stream.read() == []
    stream.close()
    other = world.engine.containers.attach(identity, ALL)
    world.engine.containers.remove(identity, force=False, volumes=False)
    assert other.read() == []
    other.close()


def interactive(world: World, *, once: bool = True, tty: bool = False) -> str:
    return world.make("cat", config=ContainerConfig(open_stdin=True, stdin_once=once, tty=tty))


def test_input_waits_for_the_start_and_is_closed_once(world):
    identity = interactive(world)
    stream = world.engine.containers.attach(identity, ALL)
    assert (stream.write(b"early"), stream.write_fileno()) == (0, None)
    world.engine.containers.start(identity)
    assert stream.write(b"now") == 3
    stream.close_write()
    stream.close()
    inner = world.runtime.inits[identity].attached[0]
    assert (inner.written, inner.write_closed, inner.closed) == (b"now", True, True)


def test_input_closed_before_the_start(world):
    identity = interactive(world)
    stream = world.engine.containers.attach(identity, ALL)
    stream.close_write()
    world.engine.containers.start(identity)
    assert world.runtime.inits[identity].attached[0].write_closed
    stream.close()


def test_without_stdin_once_the_container_keeps_its_input(world):
    identity = interactive(world, once=False)
    world.engine.containers.start(identity)
    stream = world.engine.containers.attach(identity, ALL)
    stream.close_write()
    stream.close()
    assert not world.runtime.inits[identity].attached[0].write_closed


def test_no_stdin_takes_and_drops(world):
    identity = world.run("true")
    stream = world.engine.containers.attach(identity, ALL)
    assert stream.write(b"abc") == 3
    assert world.runtime.inits[identity].attached[0].written == b""
    stream.close()


def test_selected_streams(world):
    identity = world.run("true")
    stream = world.engine.containers.attach(identity, AttachRequest(stderr=True, stream=True))
    world.runtime.output(identity, b"out")
    assert stream.read() is None
    world.runtime.output(identity, b"err", STDERR)
    assert stream.read() == [(STDERR, b"err")]
    stream.close()


def test_logs_come_first(world):
    identity = world.run("true")
    world.runtime.output(identity, b"old")
    stream = world.engine.containers.attach(
        identity, AttachRequest(stdout=True, stream=True, logs=True)
    )
    world.runtime.output(identity, b"new")
    got: list[tuple[int, bytes]] = []
    while b"".join(data for _, data in got) != b"oldnew":
        assert ready(stream)
        got += stream.read() or []
    assert stream.read() is None
    assert not ready(stream)
    stream.close()
    stream = world.engine.containers.attach(identity, AttachRequest(stdout=True, logs=True))
    found = [stream.read() for _ in range(3)]
    assert found == [[(STDOUT, b"old")], [(STDOUT, b"new")], None]
    assert ready(stream)
    assert stream.read() == []
    stream.close()


def test_a_closed_attachment_is_forgotten(world):
    identity = world.make("true")
    world.engine.containers.attach(identity, ALL).close()
    world.engine.containers.start(identity)
    assert world.runtime.inits[identity].attached == []
