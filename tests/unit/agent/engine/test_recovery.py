"""The next agent on the same host: the recovery matrix (cases 122, 123, 139)."""

import pytest

from agent.engine.model import Container, ContainerConfig, HostConfig, Phase, RestartPolicy, State
from agent.engine.ports import Exit, Survivor
from agent.engine.recovery import Verdict, decide
from agent.errors import internal

ID = "i" * 64
ALIVE, ENDED = Survivor(ID, 7, None), Survivor(ID, 0, Exit(ID, 3, 5))


@pytest.mark.parametrize(
    ("phase", "survivor", "same_boot", "wanted"),
    [
        (Phase.RUNNING, ALIVE, True, Verdict.ADOPT),
        (Phase.PAUSED, ALIVE, True, Verdict.ADOPT),
        (Phase.RUNNING, ALIVE, False, Verdict.LOST),
        (Phase.RUNNING, ENDED, True, Verdict.ENDED),
        (Phase.RUNNING, None, True, Verdict.LOST),
        (Phase.CREATED, None, True, Verdict.DOWN),
        (Phase.EXITED, None, False, Verdict.DOWN),
        (Phase.CREATED, ALIVE, True, Verdict.UNACKNOWLEDGED),
        (Phase.EXITED, ALIVE, True, Verdict.UNACKNOWLEDGED),
        (Phase.EXITED, ENDED, True, Verdict.UNACKNOWLEDGED),
        (Phase.RESTARTING, ALIVE, True, Verdict.UNACKNOWLEDGED),
    ],
)
def test_decide(phase, survivor, same_boot, wanted):
    container = Container(
        ID, "web", 1, ContainerConfig(), HostConfig(), "", "", "sh", (), state=State(phase=phase)
    )
    assert decide(container, survivor, same_boot=same_boot) is wanted


def policy(name, count=0, **more):
    return HostConfig(restart_policy=RestartPolicy(name, count), **more)


def test_what_runs_is_adopted(world):
    identity = world.run("true", name="web", host=HostConfig(binds=("named:/n",)))
    before = world.engine.containers.get(identity)
    world.journal.clear()
    engine = world.restarted()
    assert engine.containers.get("web") == before
    assert set(world.network.endpoints) == {identity}
    assert not {"runtime.signal", "runtime.delete", "records.save"} & {
        one for one, _ in world.journal
    }
    with pytest.raises(Exception, match="volume is in use"):
        engine.volumes.remove("named", force=True)
    world.end(identity, 4)
    assert engine.containers.get("web").state.exit_code == 4


@pytest.mark.parametrize("code", [0, 3, 137])
@pytest.mark.parametrize(
    ("host", "again"),
    [
        (policy("no"), {0: False, 3: False, 137: False}),
        (policy("always"), {0: True, 3: True, 137: True}),
        (policy("unless-stopped"), {0: True, 3: True, 137: True}),
        (policy("on-failure", 2), {0: False, 3: True, 137: True}),
    ],
)
def test_case_122_exit_while_the_agent_is_down(world, code, host, again):
    identity = world.run("true", host=host)
    at = world.clock.now() + 5
    engine = world.restarted(
        before=lambda: world.runtime.end(identity, code, finished_at=at, oom=code == 137)
    )
    state = engine.containers.get(identity).state
    assert (state.exit_code, state.finished_at, state.oom_killed) == (code, at, code == 137)
    assert world.records.saved[identity].state == state
    assert state.phase is (Phase.RESTARTING if again[code] else Phase.EXITED)
    world.advance(0.11)
    if again[code]:
        world.wait_until(lambda: engine.containers.get(identity).state.phase is Phase.RUNNING)


def test_case_122_rm_is_removed_once(world):
    identity = world.run("true", host=HostConfig(auto_remove=True, binds=("/anon",)))
    engine = world.restarted(before=lambda: world.runtime.end(identity, 0))
    assert engine.containers.all() == []
    assert (world.records.saved, world.volumes.volumes, world.runtime.inits) == ({}, {}, {})
    assert [one for one, _ in world.journal].count("records.retire") == 1


def test_case_123_reboot(world):
    hosts = {name: policy(name) for name in ("no", "always", "unless-stopped", "on-failure")}
    ids = {name: world.run("true", host=host) for name, host in hosts.items()}
    ids["stopped"] = world.run("true", host=policy("always"))
    ids["unless"] = world.run("true", host=policy("unless-stopped"))
    for name in ("stopped", "unless"):
        world.engine.containers.stop(ids[name], timeout=1, signal="")
    ids["rm"] = world.run("true", host=HostConfig(auto_remove=True))
    ids["never"] = world.make("true", host=policy("always"))
    engine = world.restarted(reboot=True)
    assert world.network.endpoints == {}
    assert ids["rm"] not in {one.id for one in engine.containers.all()}
    state = engine.containers.get(ids["no"]).state
    assert (state.phase, state.exit_code, state.finished_at) == (
        Phase.EXITED,
        255,
        world.clock.now(),
    )
    world.advance(0.11)
    for name in ("always", "unless-stopped", "on-failure", "stopped"):
        world.wait_until(
            lambda name=name: engine.containers.get(ids[name]).state.phase is Phase.RUNNING
        )
    assert engine.containers.get(ids["unless"]).state.phase is Phase.EXITED
    assert engine.containers.get(ids["never"]).state.phase is Phase.CREATED
    assert not [one for one, _ in world.journal if one == "runtime.signal"][2:]


def test_case_123_a_foreign_process_with_the_recorded_pid(world):
    """Another boot: even if something answers to the pid, it is not ours."""
    identity = world.run("true")
    world.boot_id = "boot-2"
    engine = world.restarted()
    assert engine.containers.get(identity).state.exit_code == 255
    assert "runtime.signal" not in {one for one, _ in world.journal}


def test_case_139_a_stop_stays_over_an_agent_restart(world):
    identity = world.run("true", host=policy("always"))
    world.engine.containers.stop(identity, timeout=1, signal="")
    engine = world.restarted()
    world.advance(120)
    assert engine.containers.get(identity).state.phase is Phase.EXITED


def test_a_pending_restart_goes_on(world):
    identity = world.run("true", host=policy("always"))
    world.end(identity, 1)
    engine = world.restarted()
    world.advance(0.11)
    world.wait_until(lambda: engine.containers.get(identity).state.phase is Phase.RUNNING)


def test_a_start_that_was_cut_off(world):
    identity = world.make("true")
    container = world.engine.containers.get(identity)
    from agent.engine.ports import Launch, Rootfs

    def half_started():
        launch = Launch(container, Rootfs((), "", ""), "h", "", "", "")
        world.runtime.create(launch)

    engine = world.restarted(before=half_started)
    assert world.runtime.inits == {}
    assert engine.containers.get(identity).state.phase is Phase.CREATED
    assert engine.containers.start(identity) is True


def test_a_create_that_was_cut_off(world):
    def half_created():
        world.volumes.create("v" * 64, anonymous=True)
        world.snapshots.prepare("c" * 64, "sha256:x")
        world.records.begin("c" * 64, "create", {"volumes": "v" * 64})

    world.restarted(before=half_created)
    assert (world.volumes.volumes, world.snapshots.layers, world.records.intents) == ({}, {}, {})


def test_a_removal_that_was_cut_off(world):
    identity = world.make("true", host=HostConfig(binds=("/anon",)))
    names = ",".join(world.volumes.volumes)
    engine = world.restarted(before=lambda: world.records.retire(identity, {"volumes": names}))
    assert engine.containers.all() == []
    assert (world.volumes.volumes, world.snapshots.layers, world.records.intents) == ({}, {}, {})


def test_a_process_without_record(world):
    identity = world.run("true")
    engine = world.restarted(before=lambda: world.records.delete(identity))
    assert engine.containers.all() == []
    assert world.runtime.inits == {}


def test_one_that_cannot_be_settled_does_not_keep_the_agent_down(world):
    identity = world.run("true", host=HostConfig(auto_remove=True))
    other = world.run("true")
    world.records.fail["retire"] = internal("disk full")
    engine = world.restarted(before=lambda: world.runtime.end(identity, 0))
    assert engine.containers.get(other).state.phase is Phase.RUNNING


def test_case_138_a_thousand_containers(world):
    ids = [world.run("true", host=HostConfig(network_mode="none")) for _ in range(1000)]
    import time

    started = time.monotonic()
    engine = world.restarted()
    assert time.monotonic() - started < 5
    assert {one.id for one in engine.containers.all()} == set(ids)
