"""File tree operations confined to a directory descriptor.

Nothing here resolves a path string twice, follows a symlink out of the given directory, or
recurses (a container can make a tree deeper than any stack).  All names are bytes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agent.host import openat

_MAX_HELD = 64  # directory descriptors held while going down


@contextmanager
def opened(path: str | bytes, *, dir_fd: int | None = None) -> Iterator[int]:
    """A directory's descriptor for the length of a with block; symlinks are not followed."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def make_private(path: str, mode: int = 0o700) -> None:
    """Make a directory of ours (and its parents) with exactly this mode, durable on return."""
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            make_private(parent, 0o755)
        with suppress(FileExistsError):
            os.mkdir(path, mode)
        sync_directory(parent)
    os.chmod(path, mode)


def sync_directory(path: str) -> None:
    """fsync a directory, so that what was renamed into it survives a power cut."""
    with opened(path) as fd:
        os.fsync(fd)


def write_atomic(directory: str, name: str, data: bytes, mode: int = 0o600) -> None:
    """Replace `directory/name`; on return file and name are on disk."""
    temporary = f".{name}.new"
    with opened(directory) as dir_fd:
        fd = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            mode,
            dir_fd=dir_fd,
        )
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        os.fsync(dir_fd)


def read_regular(root_fd: int, path: bytes, limit: int) -> bytes:
    """Contents of a regular file in the root; never blocks on a FIFO or device.

    Raises OSError: EINVAL when it is no regular file, EFBIG when it is longer than `limit` bytes.
    """
    fd = openat.open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        pieces: list[bytes] = []
        got = 0
        while piece := file.read(limit + 1 - got):
            pieces.append(piece)
            got += len(piece)
            if got > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return b"".join(pieces)


def remove_tree(dir_fd: int, name: str | bytes) -> None:
    """Remove `name` in `dir_fd`, a file or a whole tree.  Idempotent; any depth.

    Directories below the 64th level are first renamed up into the tree's own top, so neither
    descriptors nor the stack grow with depth.  Never crosses a mount: EBUSY/EXDEV is raised.
    """
    raw = os.fsencode(name)
    if _remove_simple(dir_fd, raw):
        return
    top = openat.open_real(dir_fd, raw, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _Emptier(top).run()
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        os.rmdir(raw, dir_fd=dir_fd)


def _remove_simple(dir_fd: int, name: bytes) -> bool:
    """Remove a file or an empty directory; False when it is a directory with something in it."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
    return True


class _Emptier:
    """Empties one directory with an explicit stack of (descriptor, names still to do)."""

    def __init__(self, top: int) -> None:
        self._top = top

    def run(self) -> None:
        while True:
            self._empty_top()
            if not os.listdir(self._top):
                return

    def _empty_top(self) -> None:
        stack: list[tuple[int, bytes, list[bytes]]] = [(self._top, b"", _names(self._top))]
        try:
            while stack:
                fd, name, names = stack[-1]
                if names:
                    self._step(stack, fd, names.pop())
                    continue
                stack.pop()
                if stack:
                    os.close(fd)
                    os.rmdir(name, dir_fd=stack[-1][0])
        finally:
            for fd, _, _ in stack[1:]:
                os.close(fd)

    def _step(self, stack: list[tuple[int, bytes, list[bytes]]], fd: int, name: bytes) -> None:
        if _remove_simple(fd, name):
            return
        if len(stack) >= _MAX_HELD:
            self._lift(fd, name)
            return
        child = openat.open_real(fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        stack.append((child, name, _names(child)))

    def _lift(self, fd: int, name: bytes) -> None:
        # A random name: the tree's own names are not ours to know.
        os.rename(
            name, b".up-" + os.urandom(12).hex().encode(), src_dir_fd=fd, dst_dir_fd=self._top
        )


def _names(fd: int) -> list[bytes]:
    return [os.fsencode(entry) for entry in os.listdir(fd)]
