"""Unpacking an archive that a container sent, onto the user's own computer.

What is in it is not to be trusted: every directory is opened by its parent's descriptor without
following links, files are made anew, and links are only made at the end, when nothing is written
any more.  So no member can lead out of the destination.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from machine.errors import MachineError, printable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PIECE = 1 << 18


class Pieces:
    """An iterator of bytes as the file that tarfile reads from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        parts = [self._rest]
        got = len(self._rest)
        while size < 0 or got < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece)
            got += len(piece)
        data = b"".join(parts)
        self._rest = data[size:] if size >= 0 else b""
        return data[:size] if size >= 0 else data


def unpack(pieces: Iterator[bytes], folder: str, rename: tuple[str, str] | None) -> int:
    """Into an existing folder; the bytes of all files.  `rename`: the first component, old and new.

    Raises MachineError.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with tarfile.open(fileobj=cast("BinaryIO", Pieces(pieces)), mode="r|") as archive:
            return _Unpacking(top, archive, rename).run()
    except (tarfile.TarError, EOFError) as error:
        raise MachineError(f"damaged archive: {error}") from error
    except OSError as error:
        name = printable(str(error.filename or folder))
        raise MachineError(f"can't write {name}: {error.strerror}") from error
    finally:
        os.close(top)


class _Unpacking:
    """One archive on its way into the directory `top`."""

    def __init__(self, top: int, archive: tarfile.TarFile, rename: tuple[str, str] | None) -> None:
        self._top = top
        self._archive = archive
        self._rename = rename
        self._links: list[tuple[list[str], str]] = []
        self._modes: list[tuple[list[str], int]] = []
        self._made: dict[str, list[str]] = {}
        self._total = 0

    def run(self) -> int:
        for member in self._archive:
            parts = _parts(member.name, self._rename)
            if parts:
                self._member(member, parts)
        for parts, target in self._links:
            _symlink(self._top, parts, target)
        for parts, mode in reversed(self._modes):
            _mode(self._top, parts, mode)
        return self._total

    def _member(self, member: tarfile.TarInfo, parts: list[str]) -> None:
        if member.isdir():
            os.close(_enter(self._top, parts))
            self._modes.append((parts, member.mode))
        elif member.issym():
            self._links.append((parts, member.linkname))
        elif member.islnk():
            _link(self._top, self._made.get(member.linkname, []), parts)
        elif member.isreg():
            self._made[member.name] = parts
            self._total += _file(self._top, parts, self._archive, member)


def _parts(name: str, rename: tuple[str, str] | None) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise MachineError(f'the archive is refused: ".." in {printable(name)!r}')
    if rename and parts and parts[0] == rename[0]:
        parts[0] = rename[1]
    return parts


def _enter(top: int, parts: list[str]) -> int:
    """A descriptor of a directory below `top`; what is missing is made, no link is followed."""
    fd = os.dup(top)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=fd)
            below = os.open(part, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def _place(top: int, parts: list[str]) -> Iterator[tuple[int, str]]:
    """(the parent's descriptor, the name), with nothing but a directory left there."""
    parent = _enter(top, parts[:-1])
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(parts[-1], dir_fd=parent)
        yield parent, parts[-1]
    finally:
        os.close(parent)


def _file(top: int, parts: list[str], archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    with _place(top, parts) as (parent, name):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = os.open(name, flags, member.mode & 0o777, dir_fd=parent)
        try:
            source = archive.extractfile(member)
            while source is not None and (data := source.read(_PIECE)):
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            os.fchmod(fd, member.mode & 0o777)
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)
    return member.size


def _link(top: int, source: list[str], parts: list[str]) -> None:
    """To a file of the same archive; docker's archives have no others."""
    if not source:
        raise MachineError("the archive is refused: a hard link to something outside it")
    with _place(top, parts) as (parent, name):
        above = _enter(top, source[:-1])
        try:
            os.link(source[-1], name, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(above)


def _symlink(top: int, parts: list[str], target: str) -> None:
    with _place(top, parts) as (parent, name):
        os.symlink(target, name, dir_fd=parent)


def _mode(top: int, parts: list[str], mode: int) -> None:
    fd = _enter(top, parts)
    try:
        os.fchmod(fd, mode & 0o777)
    finally:
        os.close(fd)
