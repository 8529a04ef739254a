"""Filling an empty volume with what the image has at its mount point (Docker's copy-up).

Only in a thread with a private mount namespace where the container's root is mounted.  Both sides are
walked by directory descriptors; no symlink is followed inside (cases 67 to 69).
A copy is made aside and moved: beside the volume's _data, or in it where _data is a mount of its own.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterable

from agent.engine.model import MountPoint
from agent.errors import internal
from agent.host import mounts, openat, tree

_LOCKS: dict[str, threading.Lock] = {}
_LOCKS_GUARD = threading.Lock()
_ASIDE = ".copy-up"
_MAX_DEPTH = 256
Links = dict[tuple[int, int], str]


def fill(root_fd: int, points: Iterable[MountPoint]) -> None:
    """Fill each empty copy_up volume of `points`; a volume with anything in it is left alone."""
    for mount in points:
        if not mount.copy_up or not mount.source:
            continue
        with _LOCKS_GUARD:
            lock = _LOCKS.setdefault(mount.source, threading.Lock())
        with lock:
            _fill_one(root_fd, mount)


def _fill_one(root_fd: int, mount: MountPoint) -> None:
    try:
        source = openat.open_in_root(
            root_fd, os.fsencode(mount.target), os.O_RDONLY | os.O_DIRECTORY
        )
    except OSError:
        return  # the image has no directory there: nothing to copy
    try:
        with (
            tree.opened(mount.source) as target,
            tree.opened(os.path.dirname(mount.source)) as above,
        ):
            own = mounts.mount_id(target) != mounts.mount_id(above)
            if set(os.listdir(target)) - ({_ASIDE} if own else set()):
                return
            up = target if own else above
            tree.remove_tree(up, _ASIDE)  # of an agent that died here
            os.mkdir(_ASIDE, 0o700, dir_fd=up)
            with tree.opened(_ASIDE, dir_fd=up) as aside:
                _Copier(os.fstat(source).st_dev, aside).copy(source, aside, "", 0)
                # Whole or not at all for a crash before this line; renames are quick.
                for name in os.listdir(aside):
                    os.rename(name, name, src_dir_fd=aside, dst_dir_fd=target)
            os.rmdir(_ASIDE, dir_fd=up)
            _attributes(source, target)
    except OSError as error:
        raise internal(f"copying image content to {mount.target}: {error.strerror}") from error
    finally:
        os.close(source)


class _Copier:
    """One copy-up; remembers hard links."""

    def __init__(self, device: int, top: int) -> None:
        self._device = device
        self._top = top
        self._links: Links = {}

    def copy(self, source: int, target: int, prefix: str, depth: int) -> None:
        """Contents of directory `source` into directory `target`."""
        if depth > _MAX_DEPTH:
            raise OSError(40, "tree too deep")
        for name in os.listdir(source):
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            path = f"{prefix}{name}"
            if stat.S_ISDIR(info.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
                with (
                    tree.opened(name, dir_fd=source) as below,
                    tree.opened(name, dir_fd=target) as to,
                ):
                    self.copy(below, to, f"{path}/", depth + 1)
                    _attributes(below, to)
            elif not self._linked(info, name, target, path):
                self._leaf(source, target, name, info)

    def _linked(self, info: os.stat_result, name: str, target: int, path: str) -> bool:
        if info.st_nlink < 2:
            return False
        first = self._links.setdefault((info.st_dev, info.st_ino), path)
        if first == path:
            return False
        os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
        return True

    def _leaf(self, source: int, target: int, name: str, info: os.stat_result) -> None:
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
            _times(info, name, target)
        elif stat.S_ISREG(info.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            reading = os.open(name, flags, dir_fd=source)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                writing = os.open(name, flags, 0o600, dir_fd=target)
                try:
                    _bytes(reading, writing)
                    _attributes(reading, writing)
                finally:
                    os.close(writing)
            finally:
                os.close(reading)
        elif not stat.S_ISSOCK(info.st_mode):
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
            _times(info, name, target)


def _bytes(reading: int, writing: int) -> None:
    while os.sendfile(writing, reading, None, 1 << 24):
        pass


def _attributes(source: int, target: int) -> None:
    """Owner, xattrs, mode (last: chown clears setuid bits), times."""
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    for name in os.listxattr(source):
        if name == "security.capability" or name.startswith("user."):
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _times(info: os.stat_result, name: str, target: int) -> None:
    times = (info.st_atime_ns, info.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
