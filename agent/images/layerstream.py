"""The bytes of one layer's tar on their way into files, the diffID and the recipe.

Light imports: the unpack worker loads this module at each start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from agent.images.recipe import Writer
from agent.images.tarheader import TarError


class Stream:
    """Pieces of an archive as a thing to take bytes from; every byte goes through `seen`.

    What is taken or skipped is a literal of the recipe, what is copied is a file's contents.
    """

    def __init__(
        self,
        pieces: Iterator[bytes],
        limit: int,
        seen: Callable[[bytes], None],
        recipe: Writer | None = None,
    ) -> None:
        self._pieces = pieces
        self.limit = limit
        self._seen = seen
        self.recipe = recipe
        self._view = memoryview(b"")
        self.total = 0

    def _fill(self) -> bool:
        piece = next(self._pieces, b"")
        if not piece:
            return False
        self.total += len(piece)
        if self.total > self.limit:
            raise TarError(f"the layer unpacks to more than the limit of {self.limit} bytes")
        self._seen(piece)
        self._view = memoryview(piece)
        return True

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end."""
        if len(self._view) >= size:
            found = bytes(self._view[:size])
            self._view = self._view[size:]
        else:
            found = b"".join([bytes(part) for part in self._parts(size)])
        if self.recipe is not None:
            self.recipe.literal(found)
        return found

    def _parts(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._view and not self._fill():
                return
            part = self._view[:size]
            self._view = self._view[len(part) :]
            size -= len(part)
            yield part

    def copy(self, size: int, fd: int, *, literal: bool = False) -> None:
        """The next `size` bytes into a file; `literal`: into the recipe too."""
        left = size
        for part in self._parts(size):
            left -= len(part)
            if literal and self.recipe is not None:
                self.recipe.literal(part)
            written = 0
            while written < len(part):
                written += os.write(fd, part[written:])
        if left:
            raise TarError("truncated file body")

    def skip(self, size: int) -> None:
        """Pass over bytes; the end of input is not an error here (padding may be missing)."""
        for part in self._parts(size):
            if self.recipe is not None:
                self.recipe.literal(part)

    def drain(self) -> None:
        """Pass over all that is left: it counts for the diffID."""
        while self._view or self._fill():
            self.skip(len(self._view))
