"""The host goes down: everything ends in order, and comes back as its policy says."""

import pytest

from agent.engine.model import HostConfig, Phase, RestartPolicy

POLICIES = ("no", "always", "unless-stopped", "on-failure")


@pytest.mark.parametrize("policy", POLICIES)
def test_ends_all_and_the_next_boot_starts_what_is_to_run(world, policy):
    identity = world.run("serve", host=HostConfig(restart_policy=RestartPolicy(policy)))
    world.engine.power_down(5)
    state = world.engine.containers.get(identity).state
    assert state.phase is (Phase.EXITED if policy == "no" else Phase.RESTARTING)
    assert (state.exit_code, state.manually_stopped) == (128 + 15, False)
    world.advance(100)
    assert world.engine.containers.get(identity).state.phase is not Phase.RUNNING
    engine = world.restarted(reboot=True)
    if policy == "no":
        assert engine.containers.get(identity).state.phase is Phase.EXITED
        return
    world.advance(0.11)
    world.wait_until(lambda: engine.containers.get(identity).state.phase is Phase.RUNNING)


def test_what_a_user_stopped_stays_down(world):
    identity = world.run("serve", host=HostConfig(restart_policy=RestartPolicy("unless-stopped")))
    world.engine.containers.stop(identity, timeout=1, signal="")
    world.engine.power_down(5)
    engine = world.restarted(reboot=True)
    world.advance(1)
    assert engine.containers.get(identity).state.phase is Phase.EXITED


def test_a_deaf_container_is_killed_in_the_time_left(world):
    identity = world.run("deaf", host=HostConfig())
    world.runtime.ignored.add(15)
    world.engine.power_down(0.02)
    state = world.engine.containers.get(identity).state
    assert (state.phase, state.exit_code) == (Phase.EXITED, 128 + 9)


def test_a_paused_container_hears_its_signal(world):
    identity = world.run("serve", host=HostConfig())
    world.engine.containers.pause(identity)
    world.engine.power_down(5)
    assert world.engine.containers.get(identity).state.exit_code == 128 + 15


def test_a_pending_restart_waits_for_the_next_boot(world):
    identity = world.run("serve", host=HostConfig(restart_policy=RestartPolicy("always")))
    world.end(identity, 1)
    world.engine.power_down(5)
    world.advance(100)
    assert world.engine.containers.get(identity).state.phase is Phase.RESTARTING
    engine = world.restarted(reboot=True)
    world.advance(0.11)
    world.wait_until(lambda: engine.containers.get(identity).state.phase is Phase.RUNNING)


def test_nothing_to_end(world):
    identity = world.run("over", host=HostConfig())
    world.end(identity, 0)
    world.engine.power_down(5)
    assert world.engine.containers.get(identity).state.exit_code == 0
