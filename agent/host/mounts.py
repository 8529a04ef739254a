"""Which mount a path is in: rename(2) ends at its border, and what is mounted is never deleted."""

from __future__ import annotations

import os

from agent.host import syscalls


def mount_id(fd: int) -> int:
    """The number of the mount that a descriptor is in.

    A bind of the same file system has the same st_dev: only this number tells them apart.
    """
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("mnt_id:"))
    return int(line.split()[1])


def is_mount_point(path: str) -> bool:
    """Whether something is mounted on the directory `path` itself.  Raises OSError."""
    return _of(path) != _of(os.path.dirname(path))


def unmount_all(path: str) -> None:
    """Whatever is mounted on it, in this mount namespace.  Raises OSError."""
    while is_mount_point(path):
        syscalls.umount(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)


def _of(path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return mount_id(fd)
    finally:
        os.close(fd)
