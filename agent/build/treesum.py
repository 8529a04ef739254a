"""Digests of what COPY and ADD copy: names, kinds, modes, contents, links, attributes.

Owners and times are not in it, as in docker's: a copy sets the one, and a fresh clone has other
ones of the other.  Sizes and times are never taken for contents (security case 74).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable

from agent.errors import cancelled, invalid

_MAX_DEPTH = 300
_PIECE = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
Excluded = Callable[[str], bool]


class TreeSum:
    """One digest over any number of things."""

    def __init__(self, gone: Callable[[], bool], excluded: Excluded | None = None) -> None:
        self._hash = hashlib.sha256()
        self._gone = gone
        self._excluded = excluded

    def hex(self) -> str:
        return self._hash.hexdigest()

    def text(self, text: str) -> None:
        raw = os.fsencode(text)
        self._hash.update(b"%d:" % len(raw) + raw)

    def directory(self, fd: int, below: str = "", depth: int = 0) -> None:
        """A directory and what is in it; `fd` is readable."""
        if depth > _MAX_DEPTH:
            raise invalid(f"directories are nested deeper than {_MAX_DEPTH}")
        if self._gone():
            raise cancelled("the build was cancelled: the client has gone")
        if below:
            self._head(below, os.fstat(fd), "", fd)
        for name in sorted(os.listdir(fd)):
            path = f"{below}/{name}" if below else name
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            skip = self._excluded is not None and self._excluded(path)
            if skip and not stat.S_ISDIR(info.st_mode):
                continue
            if stat.S_ISDIR(info.st_mode):
                child = os.open(name, _FOLDER, dir_fd=fd)
                try:
                    self.directory(child, path, depth + 1)
                finally:
                    os.close(child)
            else:
                self.entry(fd, name, path, info)

    def entry(self, parent: int, name: str, shown: str, info: os.stat_result) -> None:
        if stat.S_ISREG(info.st_mode):
            fd = os.open(name, _FILE, dir_fd=parent)
            try:
                self.file(fd, shown)
            finally:
                os.close(fd)
            return
        link = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(info.st_mode) else ""
        self._head(shown, info, link, -1)

    def file(self, fd: int, shown: str) -> None:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise invalid("a file changed its kind while it was read")
        self._head(shown, info, "", fd)
        inner = hashlib.sha256()
        position = 0
        while piece := os.pread(fd, _PIECE, position):
            inner.update(piece)
            position += len(piece)
        self._hash.update(inner.digest())

    def _head(self, shown: str, info: os.stat_result, link: str, fd: int) -> None:
        self.text(shown)
        mode = info.st_mode if not stat.S_ISLNK(info.st_mode) else stat.S_IFLNK
        self.text(f"{mode:o} {info.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0}")
        self.text(link)
        if fd < 0:
            return
        for name in sorted(os.listxattr(fd)):
            if name.startswith("user.") or name == "security.capability":
                self.text(name)
                self._hash.update(os.getxattr(fd, name))
