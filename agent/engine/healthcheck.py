"""Health checks: what a configuration means, and what a result makes of a container's health.  Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from agent.engine.model import ContainerConfig, Health, HealthResult
from agent.errors import invalid
from agent.values import frozen

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
RESULTS: Final = 5  # kept
OUTPUT: Final = 4096  # bytes kept of one result
_SECOND: Final = 1_000_000_000
_SMALLEST: Final = 1_000_000  # ns
_SHELL: Final = ("/bin/sh", "-c")
_DURATIONS: Final = ("Interval", "Timeout", "StartPeriod", "StartInterval")


@frozen
class Check:
    """A health check with docker's defaults filled in.  Times in seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int


def merge(
    given: Mapping[str, object] | None, image: Mapping[str, object] | None
) -> Mapping[str, object] | None:
    """The request's part by part over the image's (moby daemon/commit.go merge)."""
    if given is None or image is None:
        return image if given is None else given
    return {**image, **{name: value for name, value in given.items() if value}}


def validate(given: Mapping[str, object] | None) -> None:
    """Raises INVALID with docker's texts."""
    if given is None:
        return
    for name in _DURATIONS:
        value = _number(given, name)
        if value and value < _SMALLEST:
            raise invalid(f"{name} in Healthcheck cannot be less than 1ms")
    if _number(given, "Retries") < 0:
        raise invalid("Retries in Healthcheck cannot be negative")


def _number(given: Mapping[str, object], name: str) -> int:
    value = given.get(name)
    return value if isinstance(value, int) else 0


def check_of(config: ContainerConfig) -> Check | None:
    """None: there is none, it is switched off, or of a kind that is not known (as in docker)."""
    given = config.healthcheck or {}
    words = given.get("Test")
    if not isinstance(words, list | tuple) or not words:
        return None
    kind, rest = str(words[0]), tuple(str(word) for word in words[1:])
    if kind == "CMD" and rest:
        command = rest
    elif kind == "CMD-SHELL":
        command = (*(config.shell or _SHELL), " ".join(rest))
    else:
        return None

    def seconds(name: str, default: float) -> float:
        return _number(given, name) / _SECOND or default

    return Check(
        command=command,
        interval=seconds("Interval", 30.0),
        timeout=seconds("Timeout", 30.0),
        start_period=seconds("StartPeriod", 0.0),
        start_interval=seconds("StartInterval", 5.0),
        retries=_number(given, "Retries") or 3,
    )


def initial(config: ContainerConfig) -> Health | None:
    """A container that starts now."""
    return Health() if check_of(config) is not None else None


def ended(health: Health | None) -> Health | None:
    """Of a container that has ended: docker shows it as unhealthy."""
    return None if health is None else dataclasses.replace(health, status=UNHEALTHY)


def after(health: Health, check: Check, result: HealthResult, started_at: int) -> Health:
    """The health after one more result; `started_at`: of the container, ns."""
    log = (*health.log, result)[-RESULTS:]
    if result.exit_code == 0:
        return Health(HEALTHY, 0, log)
    in_start_period = result.end - started_at < check.start_period * _SECOND
    if health.status == STARTING and in_start_period:
        return dataclasses.replace(health, log=log)
    streak = health.failing_streak + 1
    status = UNHEALTHY if streak >= check.retries else health.status
    return Health(status, streak, log)


def pause_before(health: Health, check: Check, *, started_ago: float) -> float:
    """Seconds from one check's end (or the start) to the next check."""
    if started_ago < check.start_period and health.status == STARTING:
        return check.start_interval
    return check.interval
