"""What health checks make of results, by tables."""

import pytest

from agent.engine import healthcheck
from agent.engine.healthcheck import HEALTHY, STARTING, UNHEALTHY, Check
from agent.engine.model import ContainerConfig, Health, HealthResult
from agent.errors import EngineError

SECOND = 1_000_000_000


def check(**changes) -> Check:
    values = {
        "command": ("true",), "interval": 30.0, "timeout": 30.0, "start_period": 0.0,
        "start_interval": 5.0, "retries": 3,
    }  # fmt: skip
    return Check(**{**values, **changes})


def result(code: int, end: int = 100 * SECOND) -> HealthResult:
    return HealthResult(end - SECOND, end, code, "")


@pytest.mark.parametrize(
    ("before", "codes", "after"),
    [
        (STARTING, [0], (HEALTHY, 0)),
        (STARTING, [1, 1], (STARTING, 2)),
        (STARTING, [1, 1, 1], (UNHEALTHY, 3)),
        (HEALTHY, [1, 1], (HEALTHY, 2)),
        (HEALTHY, [1, 0, 1, 1], (HEALTHY, 2)),
        (HEALTHY, [-1, 2, 1, 1], (UNHEALTHY, 4)),
        (UNHEALTHY, [0], (HEALTHY, 0)),
    ],
)
def test_streaks(before, codes, after):
    health = Health(before)
    for code in codes:
        health = healthcheck.after(health, check(), result(code), 0)
    assert (health.status, health.failing_streak) == after
    assert len(health.log) == min(len(codes), 5)


def test_failures_in_the_start_period_do_not_count():
    slow = check(start_period=60.0, retries=1)
    health = healthcheck.after(Health(), slow, result(1, 50 * SECOND), 0)
    assert (health.status, health.failing_streak) == (STARTING, 0)
    assert healthcheck.after(health, slow, result(1, 61 * SECOND), 0).status == UNHEALTHY
    well = healthcheck.after(health, slow, result(0, 51 * SECOND), 0)
    assert healthcheck.after(well, slow, result(1, 52 * SECOND), 0).status == UNHEALTHY


def test_pauses():
    slow = check(start_period=60.0)
    assert healthcheck.pause_before(Health(), slow, started_ago=1) == 5.0
    assert healthcheck.pause_before(Health(HEALTHY), slow, started_ago=1) == 30.0
    assert healthcheck.pause_before(Health(), slow, started_ago=61) == 30.0


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (["CMD", "a", "b"], ("a", "b")),
        (["CMD-SHELL", "a b"], ("/bin/sh", "-c", "a b")),
        (["NONE"], None),
        ([], None),
        (["CMD"], None),
        (["ODD", "x"], None),
    ],
)
def test_commands(test, command):
    found = healthcheck.check_of(ContainerConfig(healthcheck={"Test": test}))
    assert (found.command if found else None) == command


def test_defaults_and_merging():
    image = {"Test": ["CMD", "x"], "Interval": 7 * SECOND, "Retries": 9}
    merged = healthcheck.merge({"Test": [], "Interval": SECOND}, image)
    found = healthcheck.check_of(ContainerConfig(healthcheck=merged))
    assert found == check(command=("x",), interval=1.0, retries=9)
    assert healthcheck.merge(None, image) is image
    assert healthcheck.initial(ContainerConfig()) is None


def test_mistakes():
    with pytest.raises(EngineError, match="Timeout in Healthcheck cannot be less than 1ms"):
        healthcheck.validate({"Timeout": 5})
    with pytest.raises(EngineError, match="Retries in Healthcheck cannot be negative"):
        healthcheck.validate({"Retries": -1})
