"""Attaching over a WebSocket: a container's streams, framed (moby: binary frames since API 1.28)."""

from __future__ import annotations

import select

from agent.engine.bell import Bell
from agent.wire import websocket
from agent.wire.streams import STDOUT, Duplex


class WebSocketDuplex:
    """A raw `Duplex` around another; see `agent.wire.streams` for the rules.

    A close frame, and a broken protocol, end the attachment; the container is left alone.
    """

    def __init__(self, inner: Duplex, *, stdin: bool, text: bool) -> None:
        self._inner = inner
        self._stdin = stdin
        self._kind = websocket.TEXT if text else websocket.BINARY
        self._decoder = websocket.Decoder()
        self._control = bytearray()
        self._answers = bytearray()
        self._closing = False
        self._ended = False
        self._bell = Bell()
        self._epoll = select.epoll()
        self._epoll.register(self._bell.fileno(), select.EPOLLIN)
        self._epoll.register(inner.fileno(), select.EPOLLIN)

    @property
    def tty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._epoll.fileno()

    def read(self) -> list[tuple[int, bytes]] | None:
        self._bell.reset()
        if self._ended:
            return []
        if self._answers:
            answers = bytes(self._answers)
            self._answers.clear()
            self._ended = self._closing
            self._bell.ring()
            return [(STDOUT, answers)]
        pieces = self._inner.read()
        if pieces is None:
            return None
        if not pieces:
            self._ended = True
            self._bell.ring()
            return [(STDOUT, websocket.close_frame(websocket.NORMAL))]
        return [(STDOUT, websocket.frame(self._kind, data)) for _, data in pieces]

    def write(self, data: bytes) -> int:
        """Takes as much as the process takes: what is left comes again."""
        position = 0
        try:
            while position < len(data) and not self._closing:
                if not self._decoder.complete():
                    position += self._decoder.header(data[position:])
                    if self._decoder.complete() and not self._decoder.left:
                        self._payload(b"")
                    continue
                plain = self._decoder.peek(data[position:])
                taken = self._payload(plain)
                position += taken
                if taken < len(plain):
                    return position
        except websocket.WebSocketError:
            self._answer_close(websocket.close_frame(websocket.PROTOCOL_ERROR))
        return len(data) if self._closing else position

    def _payload(self, plain: bytes) -> int:
        if self._decoder.kind < websocket.CLOSE:
            taken = self._inner.write(plain) if self._stdin and plain else len(plain)
            self._decoder.advance(taken)
            return taken
        self._control += plain
        self._decoder.advance(len(plain))
        if not self._decoder.left:
            self._answer()
        return len(plain)

    def _answer(self) -> None:
        payload = bytes(self._control)
        self._control.clear()
        if self._decoder.kind == websocket.PING:
            if len(self._answers) < 4096:  # a client that pings and never reads
                self._answers += websocket.frame(websocket.PONG, payload)
                self._bell.ring()
        elif self._decoder.kind == websocket.CLOSE:
            self._answer_close(websocket.frame(websocket.CLOSE, payload[:2]))

    def _answer_close(self, frame: bytes) -> None:
        self._closing = True
        self._answers += frame
        self._bell.ring()

    def write_fileno(self) -> int | None:
        return self._inner.write_fileno()

    def close_write(self) -> None:
        """The connection's end without a close frame: the client has gone."""
        self._closing = self._ended = True
        self._bell.ring()

    def close(self) -> None:
        self._epoll.close()
        self._bell.close()
        self._inner.close()
