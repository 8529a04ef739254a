"""docker diff: what a container's writable layer changes of the layers below it.

Overlayfs keeps it as files (moby pkg/archive, changes_linux.go: a whiteout is a deletion; a
directory that is in both and looks the same is not a change, unless something below it is).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from agent.host import openat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"


class ChangeKind(IntEnum):
    """The API's numbers."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, order=True)
class Change:
    path: str
    kind: ChangeKind


def changes_of(upper: str, lower: Sequence[str]) -> list[Change]:
    """Sorted by path.  Raises OSError.  `lower`: top layer first."""
    below = _Layers(lower)
    try:
        found: dict[str, ChangeKind] = {}
        for path, info, folder in _walk(upper):
            kind = _kind(path, info, below)
            if kind is None:
                continue
            if not (folder and kind is ChangeKind.MODIFIED and _same(info, below.look(path))):
                found[path] = kind
                _mark_parents(path, found)
        return sorted(Change(path, kind) for path, kind in found.items())
    finally:
        below.close()


def _mark_parents(path: str, found: dict[str, ChangeKind]) -> None:
    parent = path.rpartition("/")[0]
    while parent and parent not in found:
        found[parent] = ChangeKind.MODIFIED
        parent = parent.rpartition("/")[0]


def _kind(path: str, info: os.stat_result, below: _Layers) -> ChangeKind | None:
    present = below.look(path) is not None
    if _whiteout(info):
        return ChangeKind.DELETED if present else None
    return ChangeKind.MODIFIED if present else ChangeKind.ADDED


def _same(info: os.stat_result, other: os.stat_result | None) -> bool:
    return (
        other is not None
        and stat.S_ISDIR(other.st_mode)
        and info.st_mode == other.st_mode
        and int(info.st_mtime) == int(other.st_mtime)
    )


def _whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _walk(top: str) -> list[tuple[str, os.stat_result, bool]]:
    """(path, lstat, is a directory) of everything below `top`, parents first.

    By descriptors from the top each time: the container may be exchanging directories for links.
    """
    root = os.open(top, _FOLDER)
    found: list[tuple[str, os.stat_result, bool]] = []
    try:
        waiting = [""]
        while waiting:
            path = waiting.pop()
            for name, info in _entries(root, path):
                folder = stat.S_ISDIR(info.st_mode)
                found.append((f"{path}/{name}", info, folder))
                if folder:
                    waiting.append(f"{path}/{name}")
    finally:
        os.close(root)
    return found


def _entries(root: int, path: str) -> list[tuple[str, os.stat_result]]:
    """Nothing when the folder has gone meanwhile."""
    found: list[tuple[str, os.stat_result]] = []
    with contextlib.suppress(OSError):
        fd = openat.open_real(root, os.fsencode(path), _FOLDER)
        try:
            for name in os.listdir(fd):
                with contextlib.suppress(OSError):
                    found.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        finally:
            os.close(fd)
    return found


class _Layers:
    """Look-ups in the layers below, with overlayfs's rules: whiteouts and opaque directories."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._fds = [os.open(path, _FOLDER) for path in paths]

    def look(self, path: str) -> os.stat_result | None:
        """lstat of `path` in the merged layers; None: it is not there."""
        parts = [part for part in path.split("/") if part]
        fds = self._fds
        for number in range(len(parts)):
            fds, info = self._step(fds, "/".join(parts[: number + 1]))
            if info is None or number == len(parts) - 1:
                return info
        return None

    def _step(self, fds: list[int], path: str) -> tuple[list[int], os.stat_result | None]:
        """The layers that take part in the directory `path`, and its lstat in the first."""
        kept: list[int] = []
        first: os.stat_result | None = None
        for fd in fds:
            info = _lstat(fd, path)
            if info is None:
                continue
            if _whiteout(info) or (first is not None and not stat.S_ISDIR(info.st_mode)):
                break
            first = first or info
            kept.append(fd)
            if not stat.S_ISDIR(info.st_mode) or _opaque(fd, path):
                break
        return kept, first

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


def _lstat(fd: int, path: str) -> os.stat_result | None:
    try:
        # O_PATH with O_NOFOLLOW also opens a link itself; never one on the way to it.
        found = openat.open_real(fd, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.fstat(found)
    finally:
        os.close(found)


def _opaque(fd: int, path: str) -> bool:
    try:
        found = openat.open_real(fd, os.fsencode(path), _FOLDER)
    except OSError:
        return False
    try:
        return os.getxattr(found, _OPAQUE) == b"y"
    except OSError:
        return False
    finally:
        os.close(found)
