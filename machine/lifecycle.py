"""Power events as a table: (state, event) -> what to do. Pure; a test walks every pair."""

from __future__ import annotations

import enum

from drivers.api import HostState


class Event(enum.Enum):
    """What a user asks for; the value is the verb in the driver's refusal."""

    START = "start"
    STOP = "stop"
    KILL = "kill"
    RESTART = "restart"


class Action(enum.Enum):
    """What follows."""

    START = "start"
    STOP = "stop"
    KILL = "kill"
    RESTART = "restart"
    ALREADY = "already"  # the wanted state holds: docker-machine says so and exits 1
    MISSING = "missing"  # the provider does not know the host


_ON = (HostState.RUNNING, HostState.STARTING)
_OFF = (HostState.STOPPED, HostState.SAVED, HostState.NONE)
_BETWEEN = (HostState.PAUSED, HostState.STOPPING, HostState.ERROR, HostState.TIMEOUT)

TABLE: dict[tuple[HostState, Event], Action] = {
    **{(s, Event.START): Action.ALREADY for s in _ON},
    **{(s, Event.START): Action.START for s in (*_OFF, *_BETWEEN)},
    **{(s, Event.STOP): Action.STOP for s in (*_ON, *_BETWEEN)},
    **{(s, Event.STOP): Action.ALREADY for s in _OFF},
    **{(s, Event.KILL): Action.KILL for s in (*_ON, *_BETWEEN)},
    **{(s, Event.KILL): Action.ALREADY for s in _OFF},
    **{(s, Event.RESTART): Action.RESTART for s in (*_ON, *_BETWEEN)},
    **{(s, Event.RESTART): Action.START for s in _OFF},
    **{(HostState.NOT_FOUND, e): Action.MISSING for e in Event},
}

ALREADY = {Event.START: "running", Event.STOP: "stopped", Event.KILL: "stopped"}


def decide(state: HostState, event: Event) -> Action:
    """What an event means in a state. Total."""
    return TABLE[state, event]
