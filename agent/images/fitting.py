"""What a layer leaves unsaid about its directories, filled in from the layers below it.

A layer may name `var/run/x` and no `var/run`.  What that means is decided below: where `var/run` is
a symlink to `/run`, the file belongs into `/run` (security.md case 4); where `tmp` has mode 1777,
it keeps it.  Layers are unpacked side by side, before anything below them is known, and shared by
images of different bases, so a layer is never changed afterwards.  Instead a second, small one is
made that lies on top of it: links, directories, and hard links to the layer's own files, made once
for each stack of layers.  A layer that has entries for its directories, as nearly all do, costs one
look for a file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

from agent.host import openat

_OPAQUE = "trusted.overlay.opaque"
_LOOK = os.O_PATH | os.O_NOFOLLOW
_MAX_LINKS = 40  # as the kernel's path walk
_DEFAULT = (0o755, 0, 0)
Parts = tuple[bytes, ...]


class Merged:
    """What a stack of layers shows together, as overlayfs merges it; `roots` are top first."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self._known: dict[Parts, list[int]] = {(): list(roots)}

    def look(self, parts: Parts) -> tuple[os.stat_result, int] | None:
        """lstat of a path without symlinks in its parents, and the root that shows it."""
        if not parts:
            return os.fstat(self._roots[0]), self._roots[0]
        for root in self._having(parts[:-1]):
            found = status(root, parts)
            if found is not None:
                return None if _is_whiteout(found) else (found, root)
        return None

    def _having(self, parts: Parts) -> list[int]:
        """The roots whose directory `parts` is seen, top first."""
        if parts in self._known:
            return self._known[parts]
        for depth in range(1, len(parts) + 1):
            path = parts[:depth]
            if path not in self._known:
                self._known[path] = self._merging(path, self._known[path[:-1]])
        return self._known[parts]

    def _merging(self, path: Parts, roots: list[int]) -> list[int]:
        seen: list[int] = []
        for root in roots:
            found = status(root, path)
            if found is None:
                continue
            if not stat.S_ISDIR(found.st_mode):
                break
            seen.append(root)
            if is_opaque(root, path):
                break
        return seen

    def resolve(self, parts: Parts, start: Parts = ()) -> Parts | None:
        """Where a path leads inside the root, whether it is there or not; None for no directory.

        `start`: where it begins, a directory without symlinks.
        """
        left = deque(parts)
        done = list(start)
        links = 0
        while left:
            part = left.popleft()
            if part == b"..":
                done[-1:] = []
                continue
            found = self.look((*done, part))
            if found is None or stat.S_ISDIR(found[0].st_mode):
                done.append(part)
                continue
            links += 1
            if not stat.S_ISLNK(found[0].st_mode) or links > _MAX_LINKS:
                return None
            target = read_link(found[1], (*done, part))
            if target.startswith(b"/"):
                done.clear()
            left.extendleft(reversed(split(target)))
        return tuple(done)


class Fit:
    """Makes the layer on top: `layer` is the unpacked one, `out` an empty directory for the fit."""

    def __init__(self, layer: int, implicit: Iterable[bytes], below: Merged, out: int) -> None:
        self._layer = layer
        self._implicit = {split(path) for path in implicit}
        self._below = below
        self._out = out
        self._made: set[Parts] = {()}
        self.needed = False

    def run(self) -> bool:
        """True when there was anything to do.  Raises OSError."""
        settled: Parts | None = None
        for parts in sorted(self._implicit):  # what is inside a directory follows it at once
            if settled is None or parts[: len(settled)] != settled:
                settled = parts if self._directory(parts) else None
        return self.needed

    def _directory(self, parts: Parts) -> bool:
        """True when all that is inside has been looked after too."""
        own = status(self._layer, parts)
        if own is None or not stat.S_ISDIR(own.st_mode):
            return True  # replaced later in the layer
        found = self._below.look(parts)
        if found is None or is_opaque(self._layer, parts):
            return True  # new with this layer, and so is all in it
        if stat.S_ISDIR(found[0].st_mode):
            if _metadata(found[0]) != _metadata(own):
                self._folder(parts)
            return False
        if stat.S_ISLNK(found[0].st_mode):
            self._through(parts, found[0], read_link(found[1], parts))
        return True

    def _through(self, parts: Parts, link: os.stat_result, text: bytes) -> None:
        """The layer's files below `parts` belong where the symlink of a lower layer leads."""
        target = self._below.resolve(parts)
        if target is None or not self._free(target):
            return
        parent = self._folder(parts[:-1])
        where = b"/".join(parts)
        os.symlink(text, where, dir_fd=parent)
        os.chown(where, link.st_uid, link.st_gid, dir_fd=parent, follow_symlinks=False)
        waiting = deque([(parts, target)])
        while waiting:
            source, goal = waiting.popleft()
            self._folder(goal)
            for name in _names(self._layer, source):
                self._move(source, goal, name, waiting)

    def _move(
        self, source: Parts, goal: Parts, name: bytes, waiting: deque[tuple[Parts, Parts]]
    ) -> None:
        inner, outer = (*source, name), (*goal, name)
        own = status(self._layer, inner)
        if own is None:
            return
        if not stat.S_ISDIR(own.st_mode):
            with suppress(FileExistsError):
                os.link(
                    b"/".join(inner),
                    b"/".join(outer),
                    src_dir_fd=self._layer,
                    dst_dir_fd=self._out,
                    follow_symlinks=False,
                )
            return
        if inner in self._implicit:
            onward = self._below.resolve((name,), goal)
            if onward is not None and onward != outer and self._free(onward):
                waiting.append((inner, onward))
                return
            metadata = self._seen(outer)
        else:
            metadata = _metadata(own)
        self._folder(outer, metadata)
        if is_opaque(self._layer, inner):
            fd = openat.open_real(self._out, b"/".join(outer), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.setxattr(fd, _OPAQUE, b"y")
            finally:
                os.close(fd)
        waiting.append((inner, outer))

    def _free(self, target: Parts) -> bool:
        """Whether the layer itself has nothing but directories on the way to `target`."""
        for depth in range(1, len(target) + 1):
            found = status(self._layer, target[:depth])
            if found is None:
                return True
            if not stat.S_ISDIR(found.st_mode):
                return False
        return True

    def _folder(self, parts: Parts, metadata: tuple[int, int, int] | None = None) -> int:
        """Make a directory of the fit, and those above it; returns the fit's root."""
        self.needed = True
        known = len(parts) - 1 if parts[:-1] in self._made else 0
        for depth in range(known + 1, len(parts) + 1):
            path = parts[:depth]
            if path in self._made:
                continue
            self._made.add(path)
            given = metadata if metadata and depth == len(parts) else self._seen(path)
            name = b"/".join(path)
            os.mkdir(name, 0o700, dir_fd=self._out)
            os.chown(name, given[1], given[2], dir_fd=self._out, follow_symlinks=False)
            os.chmod(name, given[0], dir_fd=self._out)  # our own directory, made just now
        return self._out

    def _seen(self, parts: Parts) -> tuple[int, int, int]:
        """The metadata that a container is to see of a directory."""
        own = status(self._layer, parts)
        if own is not None and parts not in self._implicit:
            return _metadata(own)
        found = self._below.look(parts)
        if found is not None and stat.S_ISDIR(found[0].st_mode):
            return _metadata(found[0])
        return _DEFAULT


def split(path: bytes) -> Parts:
    """Components without empty ones and "."."""
    return tuple(part for part in path.split(b"/") if part not in (b"", b"."))


def status(root: int, parts: Parts) -> os.stat_result | None:
    """lstat below a layer's root; None when it is not there or a parent is no directory."""
    try:
        fd = openat.open_real(root, b"/".join(parts), _LOOK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None  # ELOOP: a parent is a symlink
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def read_link(root: int, parts: Parts) -> bytes:
    """The text of a symlink below a layer's root."""
    fd = openat.open_real(root, b"/".join(parts), _LOOK)
    try:
        return os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)


def is_opaque(root: int, parts: Parts) -> bool:
    """Whether a directory hides what lies below it."""
    fd = openat.open_real(root, b"/".join(parts), os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False
    finally:
        os.close(fd)


def _names(root: int, parts: Parts) -> list[bytes]:
    fd = openat.open_real(root, b"/".join(parts), os.O_RDONLY | os.O_DIRECTORY)
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def _metadata(found: os.stat_result) -> tuple[int, int, int]:
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
