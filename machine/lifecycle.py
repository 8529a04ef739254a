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
    SUSPEND = "suspend"
    RESUME = "resume"


class Action(enum.Enum):
    """What follows."""

    START = "start"
    STOP = "stop"
    KILL = "kill"
    RESTART = "restart"
    SUSPEND = "suspend"
    RESUME = "resume"
    UNFIT = "unfit"  # only a running host is suspended, only a suspended one resumed
    ALREADY = "already"  # the wanted state holds: docker-machine says so and exits 1
    MISSING = "missing"  # the provider does not know the host


_ON = (HostState.RUNNING, HostState.STARTING)
_OFF = (HostState.STOPPED, HostState.SAVED, HostState.NONE)
_ASLEEP = (HostState.SAVED, HostState.PAUSED)
_DOWN = (HostState.STOPPED, HostState.NONE)
_UNSURE = (HostState.STOPPING, HostState.ERROR, HostState.TIMEOUT)
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
    **{(s, Event.SUSPEND): Action.SUSPEND for s in (*_ON, *_UNSURE)},
    **{(s, Event.SUSPEND): Action.ALREADY for s in _ASLEEP},
    **{(s, Event.SUSPEND): Action.UNFIT for s in _DOWN},
    **{(s, Event.RESUME): Action.RESUME for s in (*_ASLEEP, *_UNSURE)},
    **{(s, Event.RESUME): Action.ALREADY for s in _ON},
    **{(s, Event.RESUME): Action.UNFIT for s in _DOWN},
    **{(HostState.NOT_FOUND, e): Action.MISSING for e in Event},
}

ALREADY = {
    Event.START: "running",
    Event.STOP: "stopped",
    Event.KILL: "stopped",
    Event.SUSPEND: "suspended",
    Event.RESUME: "running",
}


def decide(state: HostState, event: Event) -> Action:
    """What an event means in a state. Total."""
    return TABLE[state, event]
