"""The few system calls that Python 3.11 lacks: mount, umount2, pivot_root, unshare, setns, prctl."""

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError with the target as file name."""
    _checked(
        _LIBC.mount(
            source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
        ),
        f"mount {kind} {target}",
    )


def unmount_lazily(target: str) -> None:
    """umount2(target, MNT_DETACH)."""
    _checked(_LIBC.umount2(target.encode(), MNT_DETACH), target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2); glibc has no wrapper."""
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    _checked(_LIBC.syscall(number, new.encode(), old.encode()), new)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_LIBC.unshare(flags), "unshare")


def join_namespace(path: str, kind: int) -> None:
    """Enter the namespace of type `kind` (a CLONE_NEW* value) that `path` names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        join_namespace_fd(fd, kind)
    finally:
        os.close(fd)


def join_namespace_fd(fd: int, kind: int) -> None:
    """setns(2)."""
    _checked(_LIBC.setns(fd, kind), "setns")


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` to this process when the thread that made it ends."""
    _checked(_LIBC.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")


def set_hostname(name: str) -> None:
    """sethostname(2), in this UTS namespace."""
    raw = name.encode()
    _checked(_LIBC.sethostname(raw, len(raw)), "sethostname")
