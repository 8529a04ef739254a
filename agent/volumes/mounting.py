"""What the local driver's options say (`type`, `o`, `device`), and mounting a volume by them.

The names of mount options are mount(8)'s; what is not among them goes to the file system as data.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from typing import Final

from agent.errors import EngineError, internal, invalid
from agent.host import syscalls
from agent.values import frozen

_VALID: Final = ("type", "o", "device", "size")
_REQUIRED: Final = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
# option -> (flag, whether it sets or clears it); the numbers are mount(2)'s.
_FLAGS: Final[Mapping[str, tuple[int, bool]]] = {
    "defaults": (0, True),
    "ro": (0x1, True),
    "rw": (0x1, False),
    "nosuid": (0x2, True),
    "suid": (0x2, False),
    "nodev": (0x4, True),
    "dev": (0x4, False),
    "noexec": (0x8, True),
    "exec": (0x8, False),
    "sync": (0x10, True),
    "async": (0x10, False),
    "mand": (0x40, True),
    "nomand": (0x40, False),
    "dirsync": (0x80, True),
    "noatime": (0x400, True),
    "atime": (0x400, False),
    "nodiratime": (0x800, True),
    "diratime": (0x800, False),
    "bind": (0x1000, True),
    "rbind": (0x5000, True),
    "relatime": (0x200000, True),
    "norelatime": (0x200000, False),
    "strictatime": (0x1000000, True),
    "nostrictatime": (0x1000000, False),
}
_PROPAGATION: Final = {
    "unbindable": 1 << 17,
    "runbindable": 1 << 17 | syscalls.MS_REC,
    "private": syscalls.MS_PRIVATE,
    "rprivate": syscalls.MS_PRIVATE | syscalls.MS_REC,
    "slave": syscalls.MS_SLAVE,
    "rslave": syscalls.MS_SLAVE | syscalls.MS_REC,
    "shared": syscalls.MS_SHARED,
    "rshared": syscalls.MS_SHARED | syscalls.MS_REC,
}
_OF_THE_MOUNT: Final = 0x1 | 0x2 | 0x4 | 0x8 | 0x400 | 0x800 | 0x200000
_NETWORK: Final = ("nfs", "nfs4", "cifs")
_SECRET: Final = ("password=", "password2=", "pass=", "pass2=", "secret=")  # cifs, ceph


@frozen
class MountPlan:
    """Arguments of mount(2); `propagation` is set by a second call, 0 = none."""

    device: str
    fstype: str
    flags: int
    data: str
    propagation: int


def check(options: Mapping[str, str]) -> None:
    """Raises INVALID with moby's texts for options that can't be honoured."""
    for name in options:
        if name not in _VALID:
            raise invalid(f'invalid option: "{name}"')
    if "size" in options:
        raise invalid("quota size requested but no quota support")
    for name, others in _REQUIRED.items():
        for other in others if name in options else ():
            if not options.get(other):
                raise invalid(f'missing required option: "{other}"')
    if any("\0" in value for value in options.values()):
        raise invalid("a volume's options must not contain NUL")


def plan(options: Mapping[str, str]) -> MountPlan:
    """Pure.  `options` as `check` lets them pass, with a device."""
    flags, propagation = 0, 0
    data: list[str] = []
    for word in filter(None, options.get("o", "").split(",")):
        if word in _FLAGS:
            bits, sets = _FLAGS[word]
            flags = flags | bits if sets else flags & ~bits
        elif word in _PROPAGATION:
            propagation |= _PROPAGATION[word]
        else:
            data.append(word)
    return MountPlan(options["device"], options["type"], flags, ",".join(data), propagation)


def mount(options: Mapping[str, str], target: str) -> None:
    """Raises INTERNAL that says what the kernel said; a password among the options is not shown."""
    wanted = plan(options)
    try:
        data = _resolved(wanted)
        if len(data) > 4000:
            raise internal("failed to mount local volume: its options are too long")
        syscalls.mount(wanted.device, target, wanted.fstype, wanted.flags, data)
    except OSError as error:
        raise _failed(wanted, target, error) from error
    try:
        if wanted.flags & syscalls.MS_BIND and wanted.flags & _OF_THE_MOUNT:
            again = wanted.flags & ~syscalls.MS_REC | syscalls.MS_REMOUNT
            syscalls.mount("", target, "", again)  # the kernel ignores them in the first call
        if wanted.propagation:
            syscalls.mount("", target, "", wanted.propagation)
    except OSError as error:
        syscalls.umount(target, syscalls.MNT_DETACH)
        raise _failed(wanted, target, error) from error


def _resolved(wanted: MountPlan) -> str:
    """The kernel's nfs and cifs want an address: `addr=NAME` becomes one."""
    words = wanted.data.split(",")
    for number, word in enumerate(words):
        name = word.removeprefix("addr=")
        if wanted.fstype not in _NETWORK or name == word:
            continue
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise internal(
                f"failed to mount local volume: error resolving passed in network volume address"
                f" {name}: {error.strerror}"
            ) from error
        words[number] = f"addr={found[0][4][0]}"
    return ",".join(words)


def _failed(wanted: MountPlan, target: str, error: OSError) -> EngineError:
    said = (error.strerror or str(error)).lower()
    if error.errno == errno.ENODEV:
        said += f" (this host's kernel has no file system {wanted.fstype!r})"
    shown = ",".join(
        f"{word.partition('=')[0]}=********" if word.lower().startswith(_SECRET) else word
        for word in wanted.data.split(",")
    )
    data = f", data: {shown}" if shown else ""
    return internal(
        f"failed to mount local volume: mount {wanted.device}:{target},"
        f" flags: 0x{wanted.flags:x}{data}: {said}"
    )
