"""WebSocket framing (RFC 6455): the server's side, without I/O.

Data frames' payload is handed on as it arrives, whatever the frame's size; nothing but a header
and a control frame (125 bytes at most) is ever kept.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
NORMAL: Final = 1000
POLICY: Final = 1008
PROTOCOL_ERROR: Final = 1002


class WebSocketError(ValueError):
    """The peer breaks the protocol."""


def accept(key: str) -> str:
    """Sec-WebSocket-Accept of a Sec-WebSocket-Key.  Raises WebSocketError (section 4.2.1)."""
    if not _KEY.fullmatch(key):
        raise WebSocketError("malformed Sec-WebSocket-Key")
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def frame(kind: int, payload: bytes) -> bytes:
    """One whole unmasked frame."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | kind, size))
    elif size < 1 << 16:
        head = bytes((0x80 | kind, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | kind, 127)) + size.to_bytes(8, "big")
    return head + payload


def close_frame(code: int) -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big"))


class Decoder:
    """What the client sends.

    `header` is fed until it says that a frame has begun (`left` bytes of payload follow); then
    `peek` shows the plain payload of the next bytes, and `advance` says how many were taken.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._mask = b""
        self._offset = 0
        self.kind = CONTINUATION
        self.left = 0

    def header(self, data: bytes) -> int:
        """Takes bytes of a header; returns how many.  `complete()` is true once it is whole."""
        taken = 0
        while taken < len(data) and not self.complete():
            self._head.append(data[taken])
            taken += 1
            if len(self._head) == 2:
                self._check()
        if self.complete():
            self._begin()
        return taken

    def complete(self) -> bool:
        return len(self._head) >= 2 and len(self._head) == self._size()

    def _size(self) -> int:
        return 2 + {126: 2, 127: 8}.get(self._head[1] & 0x7F, 0) + 4

    def _check(self) -> None:
        first, second = self._head
        kind = first & 0x0F
        if first & 0x70 or kind not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise WebSocketError("reserved bits or an unknown frame type")
        if not second & 0x80:
            raise WebSocketError("a client's frame must be masked")
        if kind >= CLOSE and (not first & 0x80 or second & 0x7F > 125):
            raise WebSocketError("a control frame is fragmented or too long")

    def _begin(self) -> None:
        length = self._head[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(self._head[2:-4], "big")
        if length >= 1 << 63:
            raise WebSocketError("a frame is too long")
        self.kind = self._head[0] & 0x0F
        self.left = length
        self._mask = bytes(self._head[-4:])
        self._offset = 0

    def peek(self, data: bytes) -> bytes:
        """The plain payload at the start of `data`."""
        piece = data[: self.left]
        turn = self._offset % 4
        mask = self._mask[turn:] + self._mask[:turn]
        key = (mask * (len(piece) // 4 + 1))[: len(piece)]
        mixed = int.from_bytes(piece, "big") ^ int.from_bytes(key, "big")
        return mixed.to_bytes(len(piece), "big")

    def advance(self, count: int) -> None:
        """`count` bytes of payload were taken; at its end the next header is awaited."""
        self.left -= count
        self._offset += count
        if self.left == 0:
            self._head.clear()
