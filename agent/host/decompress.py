"""Layer compression: gzip (any number of members), zstd, none; told apart by their first bytes.

In process only: no external program is ever run on image bytes (CVE-2026-41567).  Memory stays
bounded: output comes in pieces of at most 1 MiB, zstd windows end at 128 MiB.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol, cast

PIECE = 1 << 20
Read = Callable[[], bytes]  # some bytes, b"" at the end


class DecompressError(ValueError):
    """The stream is damaged, or compressed in a way that is not allowed."""


def sniff(head: bytes) -> str:
    """ "gzip", "zstd" or "" (a plain tar); the media type is not believed (case 18)."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    magic = int.from_bytes(head[:4], "little")
    if magic == 0xFD2FB528 or (len(head) >= 4 and 0x184D2A50 <= magic <= 0x184D2A5F):
        return "zstd"
    for refused, name in ((b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x04\x22\x4d\x18", "lz4")):
        if head.startswith(refused):
            raise DecompressError(f"{name} layers are not supported")
    return ""


class Inflater(Protocol):
    """The part of zlib's and isal's decompression objects that is used."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class Codec(NamedTuple):
    """A gzip implementation: what makes a decoder for one member, and what it raises."""

    make: Callable[[], Inflater]
    error: type[Exception]


def _zlib() -> Inflater:
    return zlib.decompressobj(wbits=31)


def gzip_codec() -> Codec:
    """isal's (twice as fast) where it can be imported, else the standard library's."""
    try:
        from isal import isal_zlib
    except ImportError:
        return Codec(_zlib, zlib.error)
    make = partial(isal_zlib.decompressobj, wbits=31)
    return Codec(cast("Callable[[], Inflater]", make), isal_zlib.error)


def gunzip(read: Read, codec: Codec) -> Iterator[bytes]:
    """Inflate all members; NUL padding after the last is allowed, other garbage is not."""
    data = read()
    while data:
        while len(data) < 2 and (more := read()):
            data += more
        if not data.startswith(b"\x1f\x8b"):
            raise DecompressError("garbage after the gzip stream")
        stream = codec.make()
        yield from _inflate_member(stream, codec, data, read)
        data = (stream.unused_data or read()).lstrip(b"\0") or _skip_padding(read)


def _inflate_member(stream: Inflater, codec: Codec, data: bytes, read: Read) -> Iterator[bytes]:
    finished = False
    while not finished:
        try:
            piece = stream.decompress(data, PIECE)
        except codec.error as error:
            raise DecompressError(f"damaged gzip stream: {error}") from error
        if piece:
            yield piece
        data, finished = stream.unconsumed_tail, stream.eof
        if not data and not finished and len(piece) < PIECE:
            data = read()
            if not data:
                raise DecompressError("truncated gzip stream")


def _skip_padding(read: Read) -> bytes:
    while data := read():
        data = data.lstrip(b"\0")
        if data:
            return data
    return b""


class _Buffer(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def load_zstd() -> ctypes.CDLL:
    """libzstd with the signatures that are used here; DecompressError when the host has none."""
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise DecompressError("zstd layers need libzstd.so.1 on this host") from error
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = (
        ctypes.c_void_p,
        ctypes.POINTER(_Buffer),
        ctypes.POINTER(_Buffer),
    )
    library.ZSTD_DCtx_setParameter.restype = ctypes.c_size_t
    library.ZSTD_DCtx_setParameter.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    return library


def unzstd(read: Read, library: ctypes.CDLL, window_log: int) -> Iterator[bytes]:
    """Decompress all frames (skippable ones too); a window beyond 2^window_log is an error."""
    stream = library.ZSTD_createDStream()
    if not stream:
        raise DecompressError("no memory for a zstd stream")
    try:
        library.ZSTD_DCtx_setParameter(stream, 100, window_log)  # ZSTD_d_windowLogMax
        space = ctypes.create_string_buffer(PIECE)
        address = ctypes.addressof(space)
        view = memoryview(space)
        left = 0
        while data := read():
            source = _Buffer(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data), 0)
            full = False
            while source.pos < source.size or full:
                target = _Buffer(address, PIECE, 0)
                left = library.ZSTD_decompressStream(
                    stream, ctypes.byref(target), ctypes.byref(source)
                )
                if library.ZSTD_isError(left):
                    reason = library.ZSTD_getErrorName(left).decode("ascii", "replace")
                    raise DecompressError(f"damaged zstd stream: {reason}")
                full = target.pos == PIECE
                if target.pos:
                    yield bytes(view[: target.pos])
        if left:
            raise DecompressError("truncated zstd stream")
    finally:
        library.ZSTD_freeDStream(stream)
