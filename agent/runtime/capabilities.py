"""Linux capabilities of a container: Docker's defaults, --cap-add, --cap-drop, --privileged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from agent.engine.capnames import ALL, normalised

_DEFAULT_NAMES: Final = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
    "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
)
DEFAULT: Final = tuple(f"CAP_{name}" for name in _DEFAULT_NAMES.split(" "))


def from_mask(mask: int) -> tuple[str, ...]:
    """The names of a /proc/<pid>/status Cap* mask."""
    return tuple(name for number, name in enumerate(ALL) if mask >> number & 1)


def resolve(
    add: Sequence[str], drop: Sequence[str], *, privileged: bool, available: Iterable[str]
) -> list[str]:
    """What the container's process is bounded to, in kernel order.

    `available`: what this agent itself has; --privileged and ALL mean no more than that (nobody can
    give what he has not, and the runtime would fail).  Raises INVALID for unknown names.
    """
    mine = set(available)
    added, dropped = normalised(add), normalised(drop)
    if privileged:
        wanted = mine
    elif "ALL" in added:
        wanted = mine - dropped
    elif "ALL" in dropped:
        wanted = added
    else:
        wanted = (set(DEFAULT) | added) - dropped
    return [name for name in ALL if name in wanted]
