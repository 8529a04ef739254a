"""Restart policies in the running engine."""

import pytest

from agent.engine.model import HostConfig, Phase, RestartPolicy

ALWAYS = HostConfig(restart_policy=RestartPolicy("always"))


def phase(world, identity):
    return world.engine.containers.get(identity).state.phase


def respawned(world, identity):
    world.wait_until(lambda: phase(world, identity) is Phase.RUNNING)


def test_always_with_back_off(world):
    identity = world.run("true", host=ALWAYS)
    for count, delay in enumerate((0.1, 0.2, 0.4), start=1):
        world.end(identity, 0)
        state = world.engine.containers.get(identity).state
        assert (state.phase, state.restart_count) == (Phase.RESTARTING, count)
        assert world.engine.containers.start(identity) is False
        world.advance(delay * 0.9)
        assert phase(world, identity) is Phase.RESTARTING
        world.advance(delay * 0.11)
        respawned(world, identity)
    waiter = world.engine.containers.wait(identity, "not-running")
    assert waiter.result() is None
    waiter.close()


def test_a_healthy_run_resets_the_back_off(world):
    identity = world.run("true", host=ALWAYS)
    world.end(identity, 1)
    world.advance(0.11)
    respawned(world, identity)
    world.advance(10)
    world.end(identity, 1)
    world.advance(0.11)
    respawned(world, identity)


def test_on_failure_gives_up(world):
    host = HostConfig(restart_policy=RestartPolicy("on-failure", 2))
    identity = world.run("true", host=host)
    for _ in range(2):
        world.end(identity, 1)
        world.advance(60)
        respawned(world, identity)
        world.advance(-0.0)
    world.end(identity, 1)
    state = world.engine.containers.get(identity).state
    assert (state.phase, state.restart_count) == (Phase.EXITED, 2)
    world.engine.containers.start(identity)
    assert world.engine.containers.get(identity).state.restart_count == 0
    world.end(identity, 0)
    assert phase(world, identity) is Phase.EXITED


@pytest.mark.parametrize("how", ["stop", "kill", "term"])
def test_a_manual_stop_wins(world, how):
    identity = world.run("true", host=ALWAYS)
    if how == "stop":
        world.engine.containers.stop(identity, timeout=1, signal="")
    else:
        world.engine.containers.kill(identity, {"kill": "KILL", "term": "TERM"}[how])
        world.wait_until(lambda: phase(world, identity) is Phase.EXITED)
    world.advance(120)
    assert phase(world, identity) is Phase.EXITED
    assert world.records.saved[identity].state.manually_stopped


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_stop_between_two_runs(world, how):
    identity = world.run("true", host=ALWAYS)
    world.end(identity, 1)
    assert phase(world, identity) is Phase.RESTARTING
    if how == "stop":
        assert world.engine.containers.stop(identity, timeout=1, signal="") is True
    else:
        world.engine.containers.kill(identity, "TERM")
    world.advance(120)
    assert phase(world, identity) is Phase.EXITED
    assert world.records.saved[identity].state.phase is Phase.EXITED
    assert world.engine.containers.start(identity) is True


def test_remove_between_two_runs(world):
    identity = world.run("true", host=ALWAYS)
    world.end(identity, 1)
    world.engine.containers.remove(identity, force=True, volumes=False)
    world.advance(120)
    assert world.engine.containers.all() == []
    assert world.runtime.inits == {}


def test_a_notice_does_not_switch_the_policy_off(world):
    identity = world.run("true", host=ALWAYS)
    world.engine.containers.kill(identity, "HUP")
    world.end(identity, 1)
    world.advance(0.11)
    respawned(world, identity)


def test_a_respawn_that_fails_stays_down(world):
    identity = world.run("true", host=ALWAYS)
    world.end(identity, 1)
    from agent.errors import internal

    world.runtime.fail["create"] = internal("broken")
    world.advance(0.11)
    world.wait_until(lambda: phase(world, identity) is Phase.EXITED)
    assert world.engine.containers.get(identity).state.error == "broken"
