"""Linux capabilities of a container: Docker's defaults, --cap-add, --cap-drop, --privileged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from agent.errors import invalid

# In the order of their numbers (linux/capability.h), without CAP_.
_NAMES: Final = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
ALL: Final = tuple(f"CAP_{name}" for name in _NAMES.split(" "))
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
    added, dropped = _normalise(add), _normalise(drop)
    if privileged:
        wanted = mine
    elif "ALL" in added:
        wanted = mine - dropped
    elif "ALL" in dropped:
        wanted = added
    else:
        wanted = (set(DEFAULT) | added) - dropped
    return [name for name in ALL if name in wanted]


def _normalise(names: Sequence[str]) -> set[str]:
    found = set()
    for given in names:
        name = given.upper()
        if name != "ALL" and not name.startswith("CAP_"):
            name = f"CAP_{name}"
        if name == "CAP_ALL":
            name = "ALL"
        if name != "ALL" and name not in ALL:
            raise invalid(f'invalid capability: unknown capability: "{name}"')
        found.add(name)
    return found
