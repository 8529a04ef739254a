"""gzip on several cores, the same bytes every time: for the layers that push sends.

One gzip member made of blocks that were deflated apart (as pigz -i does), level 1: a push waits for
this more than for anything else.  A part whose first bytes hardly shrink is stored: deflating
what is compressed already would take most of the time.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

_BLOCK = 1 << 20
_AHEAD = 6  # blocks being deflated or waiting
_PART = 128 << 10
_PROBE = 8 << 10
_LEVEL = 1
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


def gzipped(pieces: Iterable[bytes], pool: ThreadPoolExecutor) -> Generator[bytes, None, None]:
    """The gzip stream of `pieces`.  The pool's threads do the work, in order, a few blocks ahead."""
    yield _HEAD
    running: deque[Future[bytes]] = deque()
    check = size = 0
    try:
        for block in _blocks(pieces):
            running.append(pool.submit(_deflated, block))
            check = zlib.crc32(block, check)
            size += len(block)
            if len(running) > _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
    yield b"\x03\x00" + struct.pack("<II", check, size & 0xFFFFFFFF)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut anew at fixed places, so that the result does not depend on how the input came."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        while len(gathered) >= _BLOCK:
            yield bytes(gathered[:_BLOCK])
            del gathered[:_BLOCK]
    if gathered:
        yield bytes(gathered)


def _deflated(block: bytes) -> bytes:
    parts = (block[start : start + _PART] for start in range(0, len(block), _PART))
    return b"".join(_part(part) for part in parts)


def _part(part: bytes) -> bytes:
    probe = part[:_PROBE]
    level = _LEVEL if len(zlib.compress(probe, _LEVEL)) < len(probe) * 0.97 else 0
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return deflate.compress(part) + deflate.flush(zlib.Z_FULL_FLUSH)
