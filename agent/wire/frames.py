"""Docker's stream multiplexing: each piece of output behind an 8-byte header.

Header: stream number (0 stdin, 1 stdout, 2 stderr, 3 system error), three zero bytes, length as
32-bit big-endian (Engine API, ContainerAttach, "Stream format").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from agent.values import frozen

_HEADER: Final = struct.Struct(">BxxxL")
SYSTEM_ERROR: Final = 3  # the docker client ends with its text as an error
_LARGEST_STREAM: Final = SYSTEM_ERROR

# Docker sends at most 16 KiB a frame, but a stored log line may be 1 MiB and more; a length beyond
# this is not a stream of frames at all.
MAX_FRAME: Final = 64 * 1024 * 1024


class FrameError(ValueError):
    """The bytes are not a multiplexed stream."""


@frozen(slots=True)
class Frame:
    stream: int  # 0 to 3
    data: bytes


def encode(stream: int, data: bytes) -> bytes:
    """One frame. `data` may be empty."""
    return _HEADER.pack(stream, len(data)) + data


def encode_all(pieces: Sequence[tuple[int, bytes]]) -> bytes:
    """Frames for (stream, bytes) pieces; empty pieces are left out."""
    parts: list[bytes] = []
    for stream, data in pieces:
        if data:
            parts.append(_HEADER.pack(stream, len(data)))
            parts.append(data)
    return b"".join(parts)


class FrameDecoder:
    """Bytes in, frames out, whatever way the bytes are cut.

    With `partial=True` a frame's bytes come out as they arrive (several Frames for one), which
    bounds the memory by the piece that was fed; else each Frame is whole.
    """

    def __init__(self, *, partial: bool = False) -> None:
        self._partial = partial
        self._buffer = bytearray()
        self._stream = 0
        self._left = -1  # bytes of the current frame still to come; -1 = in a header

    def feed(self, data: bytes) -> list[Frame]:
        """Raises FrameError."""
        self._buffer += data
        frames: list[Frame] = []
        offset = 0
        while True:
            if self._left < 0:
                if len(self._buffer) - offset < _HEADER.size:
                    break
                self._open(offset)
                offset += _HEADER.size
            available = len(self._buffer) - offset
            take = min(available, self._left)
            if take < self._left and not (self._partial and take):
                break
            frames.append(Frame(self._stream, bytes(self._buffer[offset : offset + take])))
            offset += take
            self._left = self._left - take or -1
        del self._buffer[:offset]
        return frames

    def _open(self, offset: int) -> None:
        if self._buffer[offset + 1 : offset + 4] != b"\0\0\0":
            raise FrameError("malformed stream frame header")
        stream, length = _HEADER.unpack_from(self._buffer, offset)
        if stream > _LARGEST_STREAM or length > MAX_FRAME:
            raise FrameError(f"malformed stream frame header: stream {stream}, length {length}")
        self._stream, self._left = stream, length

    def finish(self) -> None:
        """Raises FrameError when the stream has ended within a frame."""
        if self._left >= 0 or self._buffer:
            raise FrameError("stream ended within a frame")
