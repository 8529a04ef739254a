"""Kernel calls that the standard library has no name for, through libc by ctypes.

Thin on purpose: each function is one call, raises OSError with the kernel's errno, and says which
man page is meant.  Mount and namespace calls act on the *calling thread*: run them in a thread of
their own (see `agent.runtime.namespace`), never on a pool thread.
ctypes releases the GIL around each call.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Iterator

from agent.values import frozen

_libc = ctypes.CDLL(None, use_errno=True)

# unshare(2), setns(2)
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# mount(2)
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
# umount2(2)
MNT_FORCE = 0x1
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

# prctl(2)
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

# inotify(7)
IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000

# statfs(2) f_type
CGROUP2_SUPER_MAGIC = 0x63677270
TMPFS_MAGIC = 0x01021994
OVERLAYFS_SUPER_MAGIC = 0x794C7630

# renameat2(2)
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

AT_FDCWD = -100

# These numbers are the same on every architecture (asm-generic since 424); for renameat2 we ask libc.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

Path = str | bytes


def _bytes(path: Path) -> bytes:
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("embedded null byte")
    return raw


def _check(result: int, *names: Path) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *(os.fsdecode(name) for name in names[:1]))
    return int(result)


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread.  CLONE_NEWNS also unshares cwd and root (CLONE_FS)."""
    _check(_libc.unshare(ctypes.c_int(flags)))


def setns(fd: int, kind: int = 0) -> None:
    """setns(2): the calling thread joins the namespace that `fd` is; kind 0 = whatever it is."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)))


def mount(source: Path, target: Path, fstype: str = "", flags: int = 0, data: Path = "") -> None:
    """mount(2).  `data` must be shorter than a page (4096 bytes): longer raises ValueError."""
    options = _bytes(data)
    if len(options) >= 4096:
        raise ValueError("mount options do not fit in a page")
    _check(
        _libc.mount(
            ctypes.c_char_p(_bytes(source)),
            ctypes.c_char_p(_bytes(target)),
            ctypes.c_char_p(_bytes(fstype)) if fstype else None,
            ctypes.c_ulong(flags),
            ctypes.c_char_p(options) if options else None,
        ),
        target,
    )


def umount(target: Path, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(ctypes.c_char_p(_bytes(target)), ctypes.c_int(flags)), target)


def open_tree(dir_fd: int, path: Path, flags: int) -> int:
    """open_tree(2), kernel 5.2.  Returns a descriptor; give OPEN_TREE_CLOEXEC."""
    call = _libc.syscall
    return _check(
        call(
            ctypes.c_long(_SYS_OPEN_TREE),
            ctypes.c_int(dir_fd),
            ctypes.c_char_p(_bytes(path)),
            ctypes.c_uint(flags),
        ),
        path,
    )


def move_mount(from_fd: int, from_path: Path, to_fd: int, to_path: Path, flags: int) -> None:
    """move_mount(2), kernel 5.2."""
    _check(
        _libc.syscall(
            ctypes.c_long(_SYS_MOVE_MOUNT),
            ctypes.c_int(from_fd),
            ctypes.c_char_p(_bytes(from_path)),
            ctypes.c_int(to_fd),
            ctypes.c_char_p(_bytes(to_path)),
            ctypes.c_uint(flags),
        ),
        to_path,
    )


def renameat2(old_dir: int, old: Path, new_dir: int, new: Path, flags: int) -> None:
    """renameat2(2): RENAME_NOREPLACE, RENAME_EXCHANGE."""
    _check(
        _libc.renameat2(
            ctypes.c_int(old_dir),
            ctypes.c_char_p(_bytes(old)),
            ctypes.c_int(new_dir),
            ctypes.c_char_p(_bytes(new)),
            ctypes.c_uint(flags),
        ),
        new,
    )


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one integer argument."""
    zero = ctypes.c_ulong(0)
    return _check(
        _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero),
    )


class _Statfs(ctypes.Structure):
    # Only f_type is read; the rest is room for any architecture's layout.
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_char * 512))


def filesystem_type(path: Path) -> int:
    """statfs(2) f_type of `path` (CGROUP2_SUPER_MAGIC, ...)."""
    buffer = _Statfs()
    _check(_libc.statfs(ctypes.c_char_p(_bytes(path)), ctypes.byref(buffer)), path)
    return int(buffer.f_type) & 0xFFFFFFFF


@frozen
class InotifyEvent:
    """One inotify_event: `name` is the entry's name for a watched directory, else b""."""

    watch: int
    mask: int
    name: bytes


_INOTIFY_HEAD = struct.Struct("iIII")


def inotify_init() -> int:
    """inotify_init1(2): a non-blocking, close-on-exec descriptor; readable when events came."""
    return _check(_libc.inotify_init1(ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK)))


def interval_timer(seconds: float) -> int:
    """timerfd_create(2): a non-blocking descriptor that is readable again every `seconds`."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    fd = _check(_libc.timerfd_create(ctypes.c_int(time.CLOCK_MONOTONIC), ctypes.c_int(flags)))
    whole, rest = divmod(int(seconds * 1e9), 1_000_000_000)
    times = (ctypes.c_long * 4)(whole, rest, whole, rest)  # struct itimerspec: interval, first
    _check(_libc.timerfd_settime(ctypes.c_int(fd), ctypes.c_int(0), times, None))
    return fd


def inotify_add_watch(fd: int, path: Path, mask: int) -> int:
    """inotify_add_watch(2); returns the watch's number."""
    return _check(
        _libc.inotify_add_watch(
            ctypes.c_int(fd), ctypes.c_char_p(_bytes(path)), ctypes.c_uint32(mask)
        ),
        path,
    )


def inotify_rm_watch(fd: int, watch: int) -> None:
    """inotify_rm_watch(2)."""
    _check(_libc.inotify_rm_watch(ctypes.c_int(fd), ctypes.c_int(watch)))


def inotify_read(fd: int) -> list[InotifyEvent]:
    """All events that are there now; [] when there are none."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return []
    return list(_inotify_parse(data))


def _inotify_parse(data: bytes) -> Iterator[InotifyEvent]:
    at = 0
    while at + _INOTIFY_HEAD.size <= len(data):
        watch, mask, _cookie, length = _INOTIFY_HEAD.unpack_from(data, at)
        at += _INOTIFY_HEAD.size
        yield InotifyEvent(watch, mask, data[at : at + length].rstrip(b"\0"))
        at += length
