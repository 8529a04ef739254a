"""How a layer's tar was written: every byte of it but the files' contents (as tar-split keeps it).

A layer is kept unpacked (ADR 4); with its recipe the very tar, and so the diffID, can be made
again for save and push.  `recipe` lies beside `diff`:

    8 bytes magic, 8 bytes size of the tar (little endian), then one zlib stream of records:
    u32 length, literal bytes, then u16 path length, u64 size, u64 inode, path
    (path length 0xFFFF: no file follows, the recipe ends)

A file that a later member of the same layer replaced is moved to `kept` instead of removed; the
inode tells it apart.  Light imports: the unpack worker loads this module at each start.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

NAME, KEPT = "recipe", "kept"
_MAGIC = b"MLRECIP1"
_HEAD = struct.Struct("<8sQ")
_LENGTH = struct.Struct("<I")
_BODY = struct.Struct("<HQQ")
_END = 0xFFFF
_FLUSH = 256 << 10
_LITERAL_LIMIT = 16 << 20
_PATH_LIMIT = 8192


class Body(NamedTuple):
    """A file's contents: where it was unpacked to, and which file that was."""

    path: bytes
    size: int
    inode: int


class RecipeError(ValueError):
    """The recipe is damaged."""


class Writer:
    """Writes a recipe to a descriptor (which stays the caller's)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = 0
        self._literal = bytearray()
        self._records = bytearray()
        self._deflate = zlib.compressobj(1)
        _write(fd, _HEAD.pack(_MAGIC, 0))

    def literal(self, data: bytes | memoryview) -> None:
        """Bytes of the tar that are no file's."""
        self._literal += data
        if len(self._literal) >= _LITERAL_LIMIT:
            self.body(b"", 0, 0)

    def body(self, path: bytes, size: int, inode: int) -> None:
        """Here come the `size` bytes of the file at `path`."""
        self._size += len(self._literal) + size
        records = self._records
        records += _LENGTH.pack(len(self._literal))
        records += self._literal
        records += _BODY.pack(len(path), size, inode)
        records += path
        self._literal.clear()
        if len(records) >= _FLUSH:
            _write(self._fd, self._deflate.compress(records))
            records.clear()

    def finish(self) -> int:
        """Complete it; the size of the tar."""
        self._size += len(self._literal)
        self._records += _LENGTH.pack(len(self._literal))
        self._records += self._literal
        self._records += _BODY.pack(_END, 0, 0)
        _write(self._fd, self._deflate.compress(self._records) + self._deflate.flush())
        os.pwrite(self._fd, _HEAD.pack(_MAGIC, self._size), 0)
        return self._size


def tar_size(fd: int) -> int:
    """The size of the tar that the recipe in `fd` makes.  RecipeError when it is none."""
    head = os.pread(fd, _HEAD.size, 0)
    if len(head) != _HEAD.size or not head.startswith(_MAGIC):
        raise RecipeError("not a recipe")
    return int(_HEAD.unpack(head)[1])


def read(fd: int) -> Iterator[bytes | Body]:
    """Literals and files in order.  RecipeError when it is damaged."""
    source = _Source(fd)
    while True:
        (length,) = _LENGTH.unpack(source.take(_LENGTH.size))
        if length > 2 * _LITERAL_LIMIT:
            raise RecipeError("damaged")
        if length:
            yield source.take(length)
        path_length, size, inode = _BODY.unpack(source.take(_BODY.size))
        if path_length == _END:
            return
        if path_length > _PATH_LIMIT:
            raise RecipeError("damaged")
        path = source.take(path_length)
        if size:
            yield Body(path, size, inode)


class _Source:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = _HEAD.size
        self._inflate = zlib.decompressobj()
        self._data = b""
        self._start = 0

    def take(self, size: int) -> bytes:
        while len(self._data) - self._start < size:
            self._fill()
        found = self._data[self._start : self._start + size]
        self._start += size
        return found

    def _fill(self) -> None:
        packed = self._inflate.unconsumed_tail
        if not packed:
            packed = os.pread(self._fd, 64 << 10, self._position)
            self._position += len(packed)
            if not packed:
                raise RecipeError("truncated")
        try:
            more = self._inflate.decompress(packed, 1 << 20)
        except zlib.error as error:
            raise RecipeError("damaged") from error
        self._data = self._data[self._start :] + more
        self._start = 0


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
