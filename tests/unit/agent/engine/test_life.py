"""A container's life through the engine, on fakes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.api.backend import CreateRequest
from agent.engine.model import (
    ContainerConfig,
    HostConfig,
    MountRequest,
    Phase,
    PortBinding,
    RestartPolicy,
)
from agent.errors import EngineError, Kind, internal, invalid
from tests.support.fakes import World

PORT_80 = HostConfig(port_bindings=(PortBinding(80, "tcp", host_port="8080"),))


def refusal(function, *arguments, **named) -> tuple[Kind, str]:
    with pytest.raises(EngineError) as caught:
        function(*arguments, **named)
    return caught.value.kind, caught.value.message


def actions(world: World, kind: str = "container") -> list[str]:
    return [one.action for one in world.engine._core.bus._past if one.type == kind]


def test_create_merges_and_is_durable(world):
    identity = world.make(
        "echo", "hi", name="web", config=ContainerConfig(env=("A=1",), labels={"l": "v"})
    )
    found = world.engine.containers.get("web")
    assert found == world.records.saved[identity]
    assert (found.path, found.args) == ("echo", ("hi",))
    assert found.config.env == ("A=1", "PATH=/bin", "LANG=C")
    assert found.config.hostname == identity[:12]
    assert found.state.phase is Phase.CREATED
    assert world.engine.containers.get(identity[:6]) is found
    assert world.engine.containers.get("/web") is found
    assert world.records.intents == {}


def test_one_commit_for_each_call(world):
    """The fsync budget: create, start, exit and remove are one commit each."""
    identity = world.run("true")
    world.end(identity)
    world.engine.containers.remove(identity, force=False, volumes=True)
    commits = [name for name, _ in world.journal if name.startswith("records.")]
    assert commits == ["records.save", "records.save", "records.save", "records.retire"]
    world.journal.clear()
    identity = world.run("true", host=HostConfig(auto_remove=True))
    world.runtime.end(identity)
    world.wait_until(lambda: not world.engine.containers.all())
    commits = [name for name, _ in world.journal if name.startswith("records.")]
    assert commits == ["records.save", "records.save", "records.retire"]


def test_not_found_and_ambiguous(world):
    assert refusal(world.engine.containers.get, "nope") == (
        Kind.NOT_FOUND,
        "No such container: nope",
    )
    assert refusal(world.engine.containers.get, "")[0] is Kind.NOT_FOUND
    ids = [world.make() for _ in range(20)]
    twice = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    assert refusal(world.engine.containers.get, twice)[0] is Kind.INVALID


@pytest.mark.parametrize(
    ("config", "host", "kind"),
    [
        (ContainerConfig(stop_signal="NOPE"), HostConfig(), Kind.INVALID),
        (ContainerConfig(hostname="a b"), HostConfig(), Kind.INVALID),
        (ContainerConfig(), HostConfig(network_mode="host", links=("a",)), Kind.INVALID),
        (ContainerConfig(), HostConfig(binds=("/a:/",)), Kind.INVALID),
        (
            ContainerConfig(),
            HostConfig(mounts=(MountRequest("bind", "/x", "/no/where"),)),
            Kind.INVALID,
        ),
        (
            ContainerConfig(),
            HostConfig(auto_remove=True, restart_policy=RestartPolicy("always")),
            Kind.INVALID,
        ),
    ],
)
def test_a_refused_create_leaves_nothing(world, config, host, kind):
    assert refusal(world.make, "true", name="web", config=config, host=host)[0] is kind
    assert (world.records.saved, world.snapshots.layers, world.volumes.volumes) == ({}, {}, {})
    world.make("true", name="web")


def test_a_failed_create_is_undone(world):
    host = HostConfig(binds=("/anon", "named:/n"))
    for fake, method in [
        (world.snapshots, "prepare"),
        (world.records, "save"),
        (world.volumes, "create"),
    ]:
        fake.fail[method] = internal("broken")
        assert refusal(world.make, "true", name="web", host=host) == (Kind.INTERNAL, "broken")
        fake.fail.clear()
        assert world.snapshots.layers == {}
        assert set(world.volumes.volumes) <= {"named"}
        assert world.records.intents == {}
    world.engine.volumes.remove("named", force=False)
    world.make("true", name="web", host=host)


def test_missing_image_and_platform(world):
    request = CreateRequest("", ContainerConfig(image="nope", cmd=("x",)), HostConfig(), "", {}, {})
    assert refusal(world.engine.containers.create, request)[0] is Kind.NOT_FOUND
    request = CreateRequest(
        "", ContainerConfig(image="busybox"), HostConfig(), "linux/arm64", {}, {}
    )
    assert refusal(world.engine.containers.create, request)[0] is Kind.NOT_FOUND


def test_case_131_one_name_one_winner(world):
    gate = threading.Barrier(100)

    def attempt(_number):
        gate.wait()
        try:
            return world.make("true", name="web")
        except EngineError as error:
            return error

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(attempt, range(100)))
    winners = [one for one in answers if isinstance(one, str)]
    assert len(winners) == 1
    losers = [one for one in answers if isinstance(one, EngineError)]
    text = (
        f'Conflict. The container name "/web" is already in use by container "{winners[0]}". You'
        " have to remove (or rename) that container to be able to reuse that name."
    )
    assert {(one.kind, one.message) for one in losers} == {(Kind.CONFLICT, text)}
    assert set(world.snapshots.layers) == set(winners) == set(world.records.saved)


def test_start_runs_in_order(world):
    identity = world.make("true", host=PORT_80)
    world.journal.clear()
    assert world.engine.containers.start(identity) is True
    assert [name for name, _ in world.journal] == [
        "snapshots.prepare",
        "network.reserve",
        "runtime.create",
        "network.connect",
        "runtime.start",
        "records.save",
    ]
    state = world.engine.containers.get(identity).state
    assert state.phase is Phase.RUNNING
    assert state.pid == world.network.connected[identity]
    assert state.endpoints[0].ports[0].host_port == 8080
    assert world.engine.containers.start(identity) is False
    launch = world.runtime.inits[identity].launch
    with open(launch.etc_hosts) as file:
        assert file.read().endswith(f"172.17.0.2\t{identity[:12]}\n")
    with open(launch.etc_hostname) as file:
        assert file.read() == f"{identity[:12]}\n"


@pytest.mark.parametrize(
    ("port", "method"),
    [
        ("snapshots", "prepare"),
        ("network", "reserve"),
        ("runtime", "create"),
        ("network", "connect"),
        ("runtime", "start"),
        ("records", "save"),
    ],
)
def test_a_failed_start_is_undone(world, port, method):
    identity = world.make("true", host=PORT_80)
    fake = getattr(world, port)
    fake.fail[method] = invalid('exec: "x": executable file not found in $PATH')
    assert refusal(world.engine.containers.start, identity)[0] is Kind.INVALID
    state = world.engine.containers.get(identity).state
    assert (state.phase, state.exit_code, state.pid) == (Phase.CREATED, 127, 0)
    assert "executable file not found" in state.error
    assert (world.runtime.inits, world.network.endpoints, world.network.host_ports) == (
        {},
        {},
        {},
    )
    fake.fail.clear()
    assert world.engine.containers.start(identity) is True
    assert world.engine.containers.get(identity).state.error == ""


def test_a_failed_start_with_rm_removes(world):
    identity = world.make("true", host=HostConfig(auto_remove=True))
    waiter = world.engine.containers.wait(identity, "removed")
    world.runtime.fail["start"] = invalid("permission denied")
    assert refusal(world.engine.containers.start, identity)[1] == "permission denied"
    assert waiter.result().status_code == 126
    assert world.engine.containers.all() == []
    waiter.close()


def test_case_110_port_conflict(world):
    world.run("true", host=PORT_80)
    identity = world.make("true", host=PORT_80)
    assert "port is already allocated" in refusal(world.engine.containers.start, identity)[1]
    assert world.engine.containers.get(identity).state.phase is Phase.CREATED


def test_exit(world):
    identity = world.run("true", name="web", host=PORT_80)
    world.clock.advance(3)
    world.end(identity, 7)
    state = world.engine.containers.get("web").state
    assert (state.phase, state.exit_code, state.pid, state.endpoints) == (Phase.EXITED, 7, 0, ())
    assert state.finished_at - state.started_at == 3_000_000_000
    assert (world.runtime.inits, world.network.endpoints) == ({}, {})
    assert actions(world) == ["create", "start", "die"]
    assert actions(world, "network") == ["connect", "disconnect"]
    died = world.engine._core.bus._past[-2]
    assert died.attributes == {
        "maker": "test",
        "image": "busybox",
        "name": "web",
        "exitCode": "7",
        "execDuration": "3",
    }
    world.run("true", host=PORT_80)


def test_exit_while_the_start_is_not_finished(world):
    world.runtime.on_start = lambda identity: world.runtime.end(identity, 5)
    identity = world.make("true")
    waiter = world.engine.containers.wait(identity, "next-exit")
    assert world.engine.containers.start(identity) is True
    world.wait_until(lambda: waiter.result() is not None)
    assert waiter.result().status_code == 5
    waiter.close()


def test_a_late_exit_of_an_earlier_run_is_ignored(world):
    identity = world.run("true")
    old = world.engine._core.book.run_of(identity)
    world.end(identity, 1)
    world.engine.containers.start(identity)
    from agent.engine.ports import Exit

    world.engine.containers._exits.handle(Exit(identity, 9, 1), old)
    assert world.engine.containers.get(identity).state.phase is Phase.RUNNING


def test_waits(world):
    identity = world.make("true")
    idle = world.engine.containers.wait(identity, "")
    assert idle.result().status_code == 0
    world.engine.containers.start(identity)
    waiting = [
        world.engine.containers.wait(identity, one)
        for one in ("not-running", "next-exit", "removed")
    ]
    world.end(identity, 3)
    assert [one.result() and one.result().status_code for one in waiting] == [3, 3, None]
    world.engine.containers.remove(identity, force=False, volumes=False)
    assert waiting[2].result().status_code == 3
    for one in (idle, *waiting):
        one.close()
        one.close()
    assert refusal(world.engine.containers.wait, identity, "")[0] is Kind.NOT_FOUND
    assert refusal(world.engine.containers.wait, world.make(), "x")[0] is Kind.INVALID


def test_auto_remove_with_next_exit(world):
    identity = world.run("true", host=HostConfig(auto_remove=True, binds=("/anon", "named:/n")))
    waiting = [world.engine.containers.wait(identity, one) for one in ("next-exit", "removed")]
    world.runtime.end(identity, 4)
    world.wait_until(lambda: waiting[1].result() is not None)
    assert [one.result().status_code for one in waiting] == [4, 4]
    assert world.engine.containers.all() == []
    assert set(world.volumes.volumes) == {"named"}
    assert (world.snapshots.layers, world.runtime.inits, world.records.intents) == ({}, {}, {})
    assert actions(world) == ["create", "start", "die", "destroy"]
    for one in waiting:
        one.close()


def test_stop(world):
    identity = world.run("true")
    assert world.engine.containers.stop(identity, timeout=5, signal="") is True
    state = world.engine.containers.get(identity).state
    assert (state.phase, state.exit_code, state.manually_stopped) == (Phase.EXITED, 143, True)
    assert world.engine.containers.stop(identity, timeout=5, signal="") is False
    assert actions(world)[-3:] == ["kill", "die", "stop"]
    assert world.engine.containers.stop(world.make(), timeout=None, signal="") is False


def test_stop_that_needs_sigkill(world):
    identity = world.make("true", config=ContainerConfig(stop_signal="SIGINT"))
    world.engine.containers.start(identity)
    world.runtime.ignored = {2}
    process = world.runtime.inits[identity]
    world.engine.containers.stop(identity, timeout=0, signal="")
    assert process.signals == [2, 9]
    assert world.engine.containers.get(identity).state.exit_code == 137


def test_stop_of_a_paused_one(world):
    identity = world.run("true")
    world.engine.containers.pause(identity)
    assert refusal(world.engine.containers.start, identity)[1].startswith("cannot start a paused")
    assert refusal(world.engine.execs.create, identity, _exec("x"))[1].endswith("before exec")
    world.engine.containers.stop(identity, timeout=1, signal="")
    assert world.engine.containers.get(identity).state.exit_code == 143


def _exec(*cmd):
    from agent.engine.model import ExecConfig

    return ExecConfig(cmd=cmd)


def test_kill(world):
    identity = world.run("true")
    world.engine.containers.kill(identity, "SIGUSR1")
    assert world.runtime.inits[identity].signals == [10]
    assert world.engine.containers.get(identity).state.manually_stopped is False
    world.engine.containers.kill(identity, "")
    assert world.engine.containers.get(identity).state.exit_code == 137
    assert refusal(world.engine.containers.kill, identity, "") == (
        Kind.CONFLICT,
        f"Cannot kill container: {identity}: container {identity} is not running",
    )
    assert refusal(world.engine.containers.kill, identity, "NOPE")[0] is Kind.INVALID


def test_an_exit_that_never_comes_is_an_error(world):
    identity = world.run("true")
    world.runtime.ignored = {9, 15}
    kind, text = refusal(world.engine.containers.kill, identity, "KILL")
    assert kind is Kind.INTERNAL
    assert "did not receive an exit event" in text


def test_restart_keeps_rm_containers(world):
    identity = world.run("true", host=HostConfig(auto_remove=True))
    world.engine.containers.restart(identity, timeout=1, signal="")
    state = world.engine.containers.get(identity).state
    assert (state.phase, state.manually_stopped) == (Phase.RUNNING, False)
    assert actions(world)[-1] == "restart"
    world.runtime.end(identity)
    world.wait_until(lambda: not world.engine.containers.all())


def test_remove(world):
    identity = world.run("true", name="web", host=HostConfig(binds=("/anon",)))
    kind, text = refusal(world.engine.containers.remove, "web", force=False, volumes=False)
    assert kind is Kind.CONFLICT
    assert text.startswith('cannot remove container "/web": container is running')
    world.engine.containers.remove("web", force=True, volumes=False)
    assert world.engine.containers.all() == []
    assert len(world.volumes.volumes) == 1
    again = world.make("true", name="web", host=HostConfig(binds=("/anon",)))
    world.engine.containers.remove("web", force=False, volumes=True)
    assert len(world.volumes.volumes) == 1
    assert (world.snapshots.layers, identity == again) == ({}, False)


def test_a_removal_that_fails_half_way_is_swept_later(world):
    identity = world.make("true")
    world.snapshots.fail["remove"] = internal("busy")
    world.engine.containers.remove(identity, force=False, volumes=False)
    assert world.engine.containers.all() == []
    assert len(world.records.intents) == 1
    world.snapshots.fail.clear()
    world.engine._sweep()
    assert (world.records.intents, world.snapshots.layers) == ({}, {})


def test_rename(world):
    identity = world.make(name="one")
    world.make(name="two")
    assert refusal(world.engine.containers.rename, "one", "two")[0] is Kind.CONFLICT
    assert refusal(world.engine.containers.rename, "one", "one")[0] is Kind.INVALID
    assert refusal(world.engine.containers.rename, "one", "a b")[0] is Kind.INVALID
    world.engine.containers.rename("one", "three")
    assert world.engine.containers.get("three").id == identity
    assert world.records.saved[identity].name == "three"
    world.make(name="one")


def test_pause_and_unpause(world):
    identity = world.run("true")
    world.engine.containers.pause(identity)
    assert (
        refusal(world.engine.containers.pause, identity)[1]
        == f"Container {identity} is already paused"
    )
    assert world.records.saved[identity].state.phase is Phase.PAUSED
    world.engine.containers.unpause(identity)
    assert (
        refusal(world.engine.containers.unpause, identity)[1]
        == f"Container {identity} is not paused"
    )
    world.engine.containers.resize(identity, 24, 80)
    assert world.runtime.sizes[identity] == (24, 80)
    world.end(identity)
    assert refusal(world.engine.containers.resize, identity, 1, 1)[0] is Kind.CONFLICT


def test_network_modes(world):
    host = world.run("true", name="onhost", host=HostConfig(network_mode="host"))
    none = world.run("true", host=HostConfig(network_mode="none"))
    main = world.run("true", name="main")
    beside = world.run("true", host=HostConfig(network_mode="container:main"))
    launches = {one: world.runtime.inits[one].launch for one in (host, none, main, beside)}
    assert [one.network_namespace for one in launches.values()] == [
        "host",
        "private",
        "private",
        f"/proc/{world.runtime.inits[main].pid}/ns/net",
    ]
    assert launches[host].hostname == "host1"
    assert launches[beside].etc_hosts == launches[main].etc_hosts
    assert launches[beside].hostname == main[:12]
    assert set(world.network.endpoints) == {main}
    world.end(main)
    world.end(beside)
    assert refusal(world.engine.containers.start, beside) == (
        Kind.CONFLICT,
        f"cannot join network of a non running container: {main}",
    )


def test_missing_bind_sources_are_made(world):
    source = world.root / "made" / "deep"
    world.run("true", host=HostConfig(binds=(f"{source}:/x",)))
    assert source.is_dir()


def test_sizes(world):
    identity = world.make("true")
    upper = world.root / identity / "upper"
    upper.mkdir(parents=True)
    (upper / "file").write_bytes(b"x" * 100)
    (upper / "same").hardlink_to(upper / "file")
    assert world.engine.containers.sizes(identity) == (100, 1100)
