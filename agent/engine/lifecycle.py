"""A container's states as a table: (phase, event) -> phase, and what is said where there is none.

`REFUSALS` texts are Docker Engine's; {id} and {name} are filled in.  A pair that is in neither
table can only be a bug of the caller or an observation that came too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from agent.engine.model import Phase
from agent.errors import EngineError, conflict, not_modified

C, R, P, S, D, E, X = (
    Phase.CREATED,
    Phase.RUNNING,
    Phase.PAUSED,
    Phase.RESTARTING,
    Phase.REMOVING,
    Phase.EXITED,
    Phase.DEAD,
)


class Happening(Enum):
    """What a user asks for, or what was observed."""

    START = "start"
    RESPAWN = "respawn"  # the restart policy's timer
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SIGNAL = "signal"  # kill
    STOP = "stop"
    EXEC = "exec"
    ATTACH = "attach"
    RESIZE = "resize"
    REMOVE = "remove"
    EXIT = "exit"  # observed: init ended, and stays down
    EXIT_RESPAWN = "exit, to be restarted"


H = Happening

TABLE: Final[Mapping[tuple[Phase, Happening], Phase]] = MappingProxyType(
    {
        (C, H.START): R,
        (E, H.START): R,
        (S, H.RESPAWN): R,
        (R, H.PAUSE): P,
        (P, H.UNPAUSE): R,
        (R, H.SIGNAL): R,
        (P, H.SIGNAL): P,
        (S, H.SIGNAL): E,
        # STOP names the wish; the phase changes with the EXIT that follows.
        (R, H.STOP): R,
        (P, H.STOP): P,
        (S, H.STOP): E,
        (R, H.EXEC): R,
        (C, H.ATTACH): C,
        (R, H.ATTACH): R,
        (E, H.ATTACH): E,
        (R, H.RESIZE): R,
        (P, H.RESIZE): P,
        (C, H.REMOVE): D,
        (E, H.REMOVE): D,
        (X, H.REMOVE): D,
        (D, H.REMOVE): D,
        (R, H.EXIT): E,
        (P, H.EXIT): E,
        (R, H.EXIT_RESPAWN): S,
        (P, H.EXIT_RESPAWN): S,
    }
)

# Start of what runs and stop of what does not: the wish is fulfilled (304).
FULFILLED: Final = frozenset(
    {(R, H.START), (S, H.START), (C, H.STOP), (E, H.STOP), (D, H.STOP), (X, H.STOP)}
)

_MARKED = "container is marked for removal and cannot be started"
_NOT_RUNNING = "Container {id} is not running"
_RESTARTING = "Container {id} is restarting, wait until the container is running"
_CANNOT_REMOVE = 'cannot remove container "/{name}": container is '
REFUSALS: Final[Mapping[tuple[Phase, Happening], str]] = MappingProxyType(
    {
        (P, H.START): "cannot start a paused container, try unpause instead",
        (D, H.START): _MARKED,
        (X, H.START): _MARKED,
        (P, H.PAUSE): "Container {id} is already paused",
        (S, H.PAUSE): _RESTARTING,
        (P, H.EXEC): "Container {id} is paused, unpause the container before exec",
        (S, H.EXEC): _RESTARTING,
        (P, H.ATTACH): "Container {id} is paused, unpause the container before attach",
        (S, H.ATTACH): _RESTARTING,
        (R, H.REMOVE): (
            _CANNOT_REMOVE + "running: stop the container before removing or force remove"
        ),
        (P, H.REMOVE): _CANNOT_REMOVE + "paused and must be unpaused first",
        (S, H.REMOVE): (
            _CANNOT_REMOVE + "restarting: stop the container before removing or force remove"
        ),
    }
)
_BY_HAPPENING: Final[Mapping[Happening, str]] = MappingProxyType(
    {
        H.START: "container {id} cannot be started",
        H.RESPAWN: "container {id} is not waiting for a restart",
        H.PAUSE: _NOT_RUNNING,
        H.UNPAUSE: "Container {id} is not paused",
        H.SIGNAL: "Cannot kill container: {id}: container {id} is not running",
        H.STOP: _NOT_RUNNING,
        H.EXEC: _NOT_RUNNING,
        H.ATTACH: _NOT_RUNNING,
        H.RESIZE: _NOT_RUNNING,
        H.REMOVE: "container {id} cannot be removed",
        H.EXIT: "container {id} had not been running",
        H.EXIT_RESPAWN: "container {id} had not been running",
    }
)


def live(phase: Phase) -> bool:
    """Whether a process belongs to it."""
    return phase in {R, P}


def step(phase: Phase, happening: Happening, *, identity: str, name: str) -> Phase:
    """The next phase.  Raises NOT_MODIFIED when already so, CONFLICT with docker's text else."""
    following = TABLE.get((phase, happening))
    if following is not None:
        return following
    if (phase, happening) in FULFILLED:
        raise not_modified()
    raise refusal(phase, happening, identity=identity, name=name)


def refusal(phase: Phase, happening: Happening, *, identity: str, name: str) -> EngineError:
    """The error for a pair that the table does not have."""
    text = REFUSALS.get((phase, happening)) or _BY_HAPPENING[happening]
    return conflict(text.format(id=identity, name=name))
