"""The members of an image archive (docker load), each in a file of ours, by name.

Nothing is made under a name from the archive: files are numbered.  Links are followed by name
among the members only, so none leads to a file of the host (security.md case 22).
"""

from __future__ import annotations

import os
import posixpath
import threading
from collections.abc import Callable, Iterator

from agent.errors import invalid, no_space
from agent.images import decompress, tarheader
from agent.images.cancel import Cancellation
from agent.images.decompress import DecompressError
from agent.images.tarheader import Entry, Headers, TarError, padded

_PIECE = 1 << 20
_MEMBERS = 20_000
_NAME = 1024
_HOPS = 8
_HEAD = 512
Read = Callable[[int], bytes]


class Member:
    """One file of the archive; it may be read while it is still being written."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size
        self._written = 0
        self._changed = threading.Condition()

    def grew(self, size: int) -> None:
        """So many bytes more are there; -1: no more will come."""
        with self._changed:
            self._written = -1 if size < 0 else self._written + size
            self._changed.notify_all()

    def pieces(self) -> Iterator[bytes]:
        """All of it.  INVALID when the archive ends before the file does."""
        done = 0
        with open(self.path, "rb", buffering=0) as file:
            while done < self.size:
                with self._changed:
                    while 0 <= self._written <= done:
                        self._changed.wait()
                    if self._written < 0:
                        raise invalid("invalid archive: it ends in the middle of a file")
                piece = file.read(_PIECE)
                done += len(piece)
                yield piece


class Spool:
    """The archive, read to its end into `folder` (ours, private, thrown away by the caller)."""

    def __init__(
        self,
        folder: str,
        cancel: Cancellation,
        reserve: int,
        begun: Callable[[str, Member, bytes], None] = lambda _name, _member, _head: None,
    ) -> None:
        """`begun(name, member, first bytes)` is told of each file before it is written."""
        self._begun = begun
        self._folder = folder
        self._cancel = cancel
        space = os.statvfs(folder)
        self._left = space.f_bavail * space.f_frsize - reserve
        self._files: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        self._view = memoryview(b"")

    def fill(self, read: Read) -> None:
        """Raises INVALID for what is no archive of images, NO_SPACE before the disk is full."""
        try:
            self._pieces = iter(_plain(read))
            headers = Headers(self._take)
            count = 0
            while (entry := headers.next()) is not None:
                count += 1
                if count > _MEMBERS:
                    raise invalid(f"invalid archive: more than {_MEMBERS} members")
                self._member(entry, count)
            while self._more():  # what follows the archive: the client wants to send it
                self._cancel.check()
        except (TarError, DecompressError) as error:
            raise invalid(f"invalid archive: {error}") from error

    def names(self) -> list[str]:
        return list(self._files)

    def find(self, name: str) -> Member | None:
        """The file that a name of the archive leads to; None when there is none."""
        name = posixpath.normpath(name)
        for _ in range(_HOPS):
            if name not in self._links:
                return self._files.get(name)
            name = self._links[name]
        return None

    def get(self, name: str) -> Member:
        found = self.find(name)
        if found is None:
            raise invalid(f"invalid archive: it has no file {name[:200]!r}")
        return found

    def read(self, name: str, limit: int) -> bytes:
        """A small document."""
        found = self.get(name)
        if found.size > limit:
            raise invalid(f"invalid archive: {name[:200]!r} is larger than {limit} bytes")
        return b"".join(found.pieces())

    # ---------------------------------------------------------------------------------- reading

    def _member(self, entry: Entry, number: int) -> None:
        name = _safe(entry.name)
        if entry.kind == tarheader.DIRECTORY:
            self._skip(padded(entry.size))
        elif entry.kind == tarheader.REGULAR:
            self._links.pop(name, None)
            self._files[name] = self._keep(name, entry.size, number)
            self._skip(padded(entry.size) - entry.size)
        elif entry.kind in (tarheader.SYMLINK, tarheader.HARD):
            base = posixpath.dirname(name) if entry.kind == tarheader.SYMLINK else ""
            target = entry.link.decode("utf-8", "replace")
            self._files.pop(name, None)
            self._links[name] = posixpath.normpath(posixpath.join(base, target))
        else:
            raise invalid(f"invalid archive: {name[:200]!r} is a device")

    def _keep(self, name: str, size: int, number: int) -> Member:
        self._left -= size
        if self._left < 0:
            raise no_space("no space left on device for the archive")
        path = os.path.join(self._folder, str(number))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        member = Member(path, size)
        whole = False
        try:
            if not self._view:
                self._more()
            self._begun(name, member, bytes(self._view[:_HEAD]))
            left = size
            while left:
                if not self._view and not self._more():
                    raise invalid("invalid archive: it ends in the middle of a file")
                part = self._view[:left]
                self._view = self._view[len(part) :]
                left -= len(part)
                while part:
                    wrote = os.write(fd, part)
                    part = part[wrote:]
                    member.grew(wrote)
            whole = True
        finally:
            os.close(fd)
            if not whole:
                member.grew(-1)
        return member

    def _more(self) -> bool:
        self._cancel.check()
        self._view = memoryview(next(self._pieces, b""))
        return bool(self._view)

    def _take(self, size: int) -> bytes:
        gathered = bytearray()
        while size and (self._view or self._more()):
            part = self._view[:size]
            self._view = self._view[len(part) :]
            gathered += part
            size -= len(part)
        return bytes(gathered)

    def _skip(self, size: int) -> None:
        while size and (self._view or self._more()):
            passed = min(size, len(self._view))
            self._view = self._view[passed:]
            size -= passed


def _safe(name: bytes) -> str:
    text = name.decode("utf-8", "replace")
    parts = text.split("/")
    if not text or len(text) > _NAME or text.startswith("/") or ".." in parts:
        raise invalid(f"invalid archive: refusing the name {text[:200]!r}")
    return posixpath.normpath(text)


def _plain(read: Read) -> Iterator[bytes]:
    head = b""
    while len(head) < 6 and (more := read(_PIECE)):
        head += more
    pending = [head]

    def next_piece() -> bytes:
        return pending.pop() if pending else read(_PIECE)

    kind = decompress.sniff(head)
    if kind == "gzip":
        return decompress.gunzip(next_piece, decompress.gzip_codec())
    if kind == "zstd":
        return decompress.unzstd(next_piece, decompress.load_zstd(), 27)
    return iter(next_piece, b"")
