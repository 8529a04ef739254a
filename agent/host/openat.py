"""openat2(2) and the few other calls on directory descriptors that the os module lacks.

Every path that comes from an image, an archive or a container is resolved by the kernel below a
directory descriptor: `RESOLVE_IN_ROOT` gives absolute symlinks and ".." the meaning that they have
inside the container, with no window between check and use.  Only the standard library and light
imports: the unpack worker loads this module at each start.
"""

from __future__ import annotations

import ctypes
import errno
import os

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

O_PATH = os.O_PATH
DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_SYS_OPENAT2 = 437  # the same number on every architecture that CPython 3.11 supports on Linux
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_HOW_SIZE = ctypes.c_size_t(ctypes.sizeof(_OpenHow))


def openat2(dir_fd: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); O_CLOEXEC is always added.  Raises OSError with the path as its filename.

    EAGAIN (a rename raced with a ".." inside the root) is tried again a few times, as the manual
    page asks for.
    """
    if b"\0" in path:
        raise OSError(errno.EINVAL, "embedded null byte", path)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    number = 0
    for _ in range(16):
        found = _syscall(
            ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(dir_fd), path, ctypes.byref(how), _HOW_SIZE
        )
        if found >= 0:
            return int(found)
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def open_in_root(root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as a process chrooted to `root_fd` would, never through /proc magic links.

    Absolute and relative paths mean the same.  The last component's symlink is followed too (in
    the root) unless `flags` has O_NOFOLLOW.
    """
    return openat2(root_fd, path or b".", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def open_real(root_fd: int, path: bytes, flags: int) -> int:
    """Open `path` below `root_fd` when no component is a symlink (ELOOP else) or a mount (EXDEV)."""
    return openat2(
        root_fd,
        path.lstrip(b"/") or b".",
        flags,
        0,
        RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    )


def supported() -> bool:
    """Whether this kernel (5.6+) and its seccomp filter let us call openat2."""
    try:
        fd = openat2(_AT_FDCWD, b"/", DIRECTORY, 0, RESOLVE_NO_MAGICLINKS)
    except OSError:
        return False
    os.close(fd)
    return True


def syncfs(fd: int) -> None:
    """syncfs(2): write back all of the file system that holds `fd`."""
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
