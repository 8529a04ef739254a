"""A tar upload, inflated when it is compressed: gzip, zstd, bzip2, xz, told by its first bytes.

By the standard library and libzstd in this process only: a program called `xz` or `unpigz` in a
container's PATH is never run (CVE-2026-41567, case 63).
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from agent.host.decompress import (
    PIECE,
    DecompressError,
    Read,
    gunzip,
    gzip_codec,
    load_zstd,
    sniff,
    unzstd,
)

_HEAD: Final = 8
_XZ_MEMORY: Final = 128 << 20
_ZSTD_WINDOW: Final = 27  # 128 MiB


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


def inflated(read: Callable[[], bytes]) -> Iterator[bytes]:
    """The plain bytes.  DecompressError when they are damaged or need too much memory."""
    head = b""
    while len(head) < _HEAD and (more := read()):
        head += more
    source = _Again(head, read)
    if head.startswith(b"BZh"):
        return _members(source, bz2.BZ2Decompressor)
    if head.startswith(b"\xfd7zXZ\0"):
        return _members(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY))
    kind = sniff(head)
    if kind == "gzip":
        return gunzip(source, gzip_codec())
    if kind == "zstd":
        return unzstd(source, load_zstd(), _ZSTD_WINDOW)
    return iter(source, b"")


class _Again:
    """`read` with the bytes that were looked at in front."""

    def __init__(self, head: bytes, read: Read) -> None:
        self._head = head
        self._read = read

    def __call__(self) -> bytes:
        head, self._head = self._head, b""
        return head or self._read()


def _members(read: Read, make: Callable[[], _Decoder]) -> Iterator[bytes]:
    data = read()
    while data:
        decoder = make()
        yield from _member(decoder, data, read)
        data = decoder.unused_data.lstrip(b"\0")
        while not data and (data := read()):
            data = data.lstrip(b"\0")


def _member(decoder: _Decoder, data: bytes, read: Read) -> Iterator[bytes]:
    while not decoder.eof:
        try:
            piece = decoder.decompress(data, PIECE)
        except (OSError, EOFError, ValueError, lzma.LZMAError, MemoryError) as error:
            raise DecompressError(f"damaged archive: {error}") from error
        if piece:
            yield piece
        data = b""
        if decoder.needs_input:
            data = read()
            if not data:
                raise DecompressError("truncated archive")
