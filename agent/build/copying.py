"""Copies file trees between directory descriptors: COPY, ADD and commit.

Every path is resolved below its root's descriptor by the kernel (`RESOLVE_IN_ROOT`); the last
component is never followed when something is made.  The destination belongs to one step alone,
so looking at a name and then acting on it is sound.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agent.errors import cancelled, invalid
from agent.host import openat, tree

_MAX_DEPTH = 300
_CHUNK = 16 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True)
class Rules:
    """`owner`: (uid, gid) of all that is made, None = as the source has it.  `chmod`: mode of all
    files and directories, None = the source's.  `excluded`: by path below the copied directory.
    `marks`: keep overlayfs's own marks (a commit's copy of an upper directory)."""

    owner: tuple[int, int] | None = (0, 0)
    chmod: int | None = None
    excluded: Callable[[str], bool] | None = None
    marks: bool = False


def ensure_directory(root: int, path: str, owner: tuple[int, int], mode: int = 0o755) -> int:
    """`mkdir -p` in the root; a descriptor of it.  INVALID when something in it is no directory."""
    current = openat.open_in_root(root, b"/", openat.DIRECTORY)
    walked = b""
    try:
        for part in os.fsencode(path).split(b"/"):
            if part in (b"", b"."):
                continue
            walked += b"/" + part
            following = _step(root, walked, current, part, (owner, mode))
            os.close(current)
            current = following
    except OSError as error:
        os.close(current)
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
            raise invalid(f"cannot copy to non-directory: {path}") from error
        raise
    return current


def _step(
    root: int, walked: bytes, parent: int, name: bytes, made: tuple[tuple[int, int], int]
) -> int:
    try:
        return openat.open_in_root(root, walked, openat.DIRECTORY)
    except FileNotFoundError:
        owner, mode = made
        os.mkdir(name, mode, dir_fd=parent)
        os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
        fd = openat.open_in_root(root, walked, openat.DIRECTORY)
        os.chmod(f"/proc/self/fd/{fd}", mode)  # whatever the umask is
        return fd


class Copier:
    """Copies with one set of rules.  Raises EngineError (INVALID, CANCELLED) and OSError."""

    def __init__(self, rules: Rules, gone: Callable[[], bool]) -> None:
        self._rules = rules
        self._gone = gone

    def contents(self, source: int, target: int, below: str = "", depth: int = 0) -> None:
        """What is in the directory `source` (readable) into the directory `target`."""
        if depth > _MAX_DEPTH:
            raise invalid(f"directories are nested deeper than {_MAX_DEPTH}")
        if self._gone():
            raise cancelled("the build was cancelled: the client has gone")
        for name in sorted(os.listdir(source)):
            path = f"{below}/{name}" if below else name
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            excluded = self._rules.excluded is not None and self._rules.excluded(path)
            if stat.S_ISDIR(info.st_mode):
                self._directory(source, target, name, (path, depth), skip=excluded)
            elif not excluded:
                self.one(source, name, target, name, info)

    def _directory(
        self, source: int, target: int, name: str, place: tuple[str, int], *, skip: bool
    ) -> None:
        """An excluded directory may hold what a later pattern takes back."""
        path, depth = place
        child = os.open(name, _FOLDER, dir_fd=source)
        try:
            if skip:
                if os.listdir(child):
                    self._taken_back(child, target, name, place)
                return
            made = self._make_directory(child, target, name)
            try:
                self.contents(child, made, path, depth + 1)
                self._finish(child, made)
            finally:
                os.close(made)
        finally:
            os.close(child)

    def _taken_back(self, child: int, target: int, name: str, place: tuple[str, int]) -> None:
        path, depth = place
        made = self._make_directory(child, target, name)
        try:
            self.contents(child, made, path, depth + 1)
        finally:
            os.close(made)
        with suppress(OSError):  # nothing was taken back
            os.rmdir(name, dir_fd=target)

    def _make_directory(self, source: int, target: int, name: str) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=target)
        except FileExistsError:
            found = os.stat(name, dir_fd=target, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=target)
                os.mkdir(name, 0o700, dir_fd=target)
        made = os.open(name, _FOLDER, dir_fd=target)
        self._attributes(source, made)
        return made

    def _finish(self, source: int, made: int) -> None:
        info = os.fstat(source)
        os.utime(made, ns=(info.st_mtime_ns, info.st_mtime_ns))

    def _attributes(self, source: int, made: int) -> None:
        """Owner first: chown clears set-id bits and capabilities."""
        info = os.fstat(source)
        os.fchown(made, *(self._rules.owner or (info.st_uid, info.st_gid)))
        mode = info.st_mode if self._rules.chmod is None else self._rules.chmod
        os.fchmod(made, stat.S_IMODE(mode))
        for name in os.listxattr(source):
            own = name.startswith("user.") and not name.startswith("user.overlay.")
            if own or name == _CAPABILITY or (self._rules.marks and name == _OPAQUE):
                with suppress(FileNotFoundError):
                    os.setxattr(made, name, os.getxattr(source, name))

    def one(
        self, source: int, name: str, target: int, new: str, info: os.stat_result | None = None
    ) -> None:
        """A file, link, FIFO or device `name` of `source` as `new` in `target`."""
        info = info or os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode):
            fd = os.open(name, _FILE, dir_fd=source)
            try:
                self.file(fd, target, new)
            finally:
                os.close(fd)
            return
        whiteout = stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
        if stat.S_ISSOCK(info.st_mode) or (whiteout and not self._rules.marks):
            return
        _clear(target, new)
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), new, dir_fd=target)
        else:
            os.mknod(new, info.st_mode, info.st_rdev, dir_fd=target)
        owner = self._rules.owner or (info.st_uid, info.st_gid)
        os.chown(new, *owner, dir_fd=target, follow_symlinks=False)
        moment = (info.st_mtime_ns, info.st_mtime_ns)
        os.utime(new, ns=moment, dir_fd=target, follow_symlinks=False)

    def file(self, source: int, target: int, new: str) -> None:
        """The regular file behind `source` as `new`; it replaces what is there, not a directory."""
        info = os.fstat(source)
        if not stat.S_ISREG(info.st_mode):
            raise invalid("a file changed its kind while it was copied")
        try:
            made = os.open(new, _NEW, 0o600, dir_fd=target)
        except FileExistsError:
            _clear(target, new)
            made = os.open(new, _NEW, 0o600, dir_fd=target)
        try:
            self._bytes(source, made, info.st_size)
            self._attributes(source, made)
            os.utime(made, ns=(info.st_mtime_ns, info.st_mtime_ns))
        finally:
            os.close(made)

    def _bytes(self, source: int, made: int, size: int) -> None:
        done = 0
        while done < size:
            if done and self._gone():
                raise cancelled("the build was cancelled: the client has gone")
            moved = os.sendfile(made, source, done, min(_CHUNK, size - done))
            if not moved:
                raise invalid("a file shrank while it was copied")
            done += moved


def _clear(target: int, name: str) -> None:
    try:
        found = os.stat(name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        tree.remove_tree(target, name)
    else:
        os.unlink(name, dir_fd=target)


def copy_upper(source: str, target: str, gone: Callable[[], bool]) -> None:
    """A container's upper directory with overlayfs's marks, owners and times: for commit."""
    rules = Rules(owner=None, marks=True)
    try:
        with tree.opened(source) as from_fd, tree.opened(target) as to_fd:
            copier = Copier(rules, gone)
            copier.contents(from_fd, to_fd)
            info = os.fstat(from_fd)
            os.fchown(to_fd, info.st_uid, info.st_gid)
            os.fchmod(to_fd, stat.S_IMODE(info.st_mode))
    except OSError as error:
        raise invalid(f"can't copy the container's files: {error.strerror}") from error
