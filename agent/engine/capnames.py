"""Names of Linux capabilities, as --cap-add and --cap-drop take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.errors import EngineError, invalid

# In the order of their numbers (linux/capability.h), without CAP_.
_NAMES: Final = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
ALL: Final = tuple(f"CAP_{name}" for name in _NAMES.split(" "))


def normalised(names: Sequence[str]) -> set[str]:
    """ "net_admin" -> "CAP_NET_ADMIN"; "ALL" stays.  INVALID with moby's text for unknown names."""
    found = set()
    for given in names:
        name = given.upper()
        if name not in {"ALL", "CAP_ALL"} and not name.startswith("CAP_"):
            name = f"CAP_{name}"
        if name == "CAP_ALL":
            name = "ALL"
        if name != "ALL" and name not in ALL:
            raise invalid(f'unknown capability: "{name:.100}"')
        found.add(name)
    return found


def validate(add: Sequence[str], drop: Sequence[str]) -> None:
    """Raises INVALID that says which list has the unknown name."""
    for field, names in (("CapAdd", add), ("CapDrop", drop)):
        try:
            normalised(names)
        except EngineError as error:
            raise invalid(f"invalid {field}: {error.message}") from error
