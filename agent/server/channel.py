"""Byte channels for the connection loop: receive, send with back-pressure, half-close, linger.

asyncio's own streams are not used: they hide the difference between the peer's half-close and its
death, which is all that matters to a hijacked connection.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from agent.server.limits import READ_SIZE

_RECEIVE_HIGH = 256 * 1024
_RECEIVE_LOW = 64 * 1024
_SEND_HIGH = 256 * 1024
_SEND_LOW = 64 * 1024
_LINGER_BYTES = 64 * 1024 * 1024


class Channel(abc.ABC):
    """A connection's bytes. One task receives while another sends."""

    @abc.abstractmethod
    async def recv(self, limit: int = READ_SIZE) -> bytes:
        """1 to `limit` bytes; b"" = the peer has ended its side. Raises ConnectionError."""

    @abc.abstractmethod
    async def send(self, data: bytes) -> None:
        """Returns when the buffer is below its mark again. Raises ConnectionError."""

    @abc.abstractmethod
    async def finish(self, linger: float) -> None:
        """Everything sent, our side ended; waits until the peer closes (at most `linger`), closes.

        Closing while the peer still sends would make the kernel reset the connection, and the
        reset would overtake our last bytes.
        """

    @abc.abstractmethod
    def abort(self) -> None:
        """Closes at once, dropping what is buffered."""

    @property
    @abc.abstractmethod
    def raw(self) -> RawChannel:
        """The socket's own channel."""

    def peer_vanished(self) -> bool:
        """True when the connection is dead in both directions, seen without reading from it."""
        return self.raw.socket_dead()

    @property
    def ended(self) -> bool:
        """True when the peer has ended its side of the socket, or the connection is lost."""
        return self.raw.ended

    def on_end(self, callback: Callable[[], None] | None) -> None:
        """Sets what is called once `ended` becomes true (one callback; None removes it)."""
        self.raw.set_end_callback(callback)


class RawChannel(asyncio.Protocol, Channel):
    """A socket of the event loop. `opened` and `closed` are called once each."""

    def __init__(
        self,
        opened: Callable[[RawChannel], None],
        closed: Callable[[RawChannel], None],
    ) -> None:
        self._opened = opened
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._reading_paused = False
        self._eof = False
        self._lost = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._write_paused = False
        self._gone = self._loop.create_future()
        self._end_callback: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_SEND_HIGH, low=_SEND_LOW)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered >= _RECEIVE_HIGH and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self._eof = True
        _wake(self._reader)
        self._ended()
        return True  # our side stays open

    def connection_lost(self, _exc: Exception | None) -> None:
        self._lost = True
        _wake(self._reader)
        _wake(self._writer)
        _wake(self._gone)
        self._ended()
        self._closed(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        _wake(self._writer)

    # Channel

    @property
    def raw(self) -> RawChannel:
        return self

    async def recv(self, limit: int = READ_SIZE) -> bytes:
        while not self._chunks:
            if self._lost:
                raise ConnectionResetError("connection lost")
            if self._eof:
                return b""
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._chunks.popleft()
        if len(data) > limit:
            self._chunks.appendleft(data[limit:])
            data = data[:limit]
        self._buffered -= len(data)
        if self._reading_paused and self._buffered <= _RECEIVE_LOW and not self._lost:
            self._reading_paused = False
            self._live().resume_reading()
        return data

    async def send(self, data: bytes) -> None:
        self.write(data)
        await self.drain()

    def write(self, data: bytes) -> None:
        """Sends without waiting; `drain()` must follow. Raises ConnectionError."""
        if self._lost:
            raise ConnectionResetError("connection lost")
        self._live().write(data)

    async def drain(self) -> None:
        """Waits until the send buffer is below its mark. Raises ConnectionError."""
        while self._write_paused:
            if self._lost:
                raise ConnectionResetError("connection lost")
            if self._writer is None or self._writer.done():
                self._writer = self._loop.create_future()
            await asyncio.shield(self._writer)
        if self._lost:
            raise ConnectionResetError("connection lost")

    async def finish(self, linger: float) -> None:
        try:
            if not self._lost:
                self._end_output()
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(linger):
                        await self._discard()
                self._live().close()
            await self._closing(linger)
        except OSError:  # shutdown(2) of a socket that was reset a moment ago: ENOTCONN
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise

    def _end_output(self) -> None:
        transport = self._live()
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()

    async def _discard(self) -> None:
        left = _LINGER_BYTES
        while left > 0:
            data = await self.recv()
            if not data:
                return
            left -= len(data)

    async def _closing(self, limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await asyncio.shield(self._gone)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def ended(self) -> bool:
        return self._eof or self._lost

    @property
    def lost(self) -> bool:
        return self._lost

    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def set_end_callback(self, callback: Callable[[], None] | None) -> None:
        self._end_callback = callback
        if callback is not None and self.ended:
            self._ended()

    def _ended(self) -> None:
        callback, self._end_callback = self._end_callback, None
        if callback is not None:
            callback()

    def socket_dead(self) -> bool:
        """Hang-up in both directions, or an error: only poll() tells, once reading has ended."""
        if self._lost:
            return True
        poller = select.poll()
        poller.register(self.socket().fileno(), 0)
        return bool(poller.poll(0))

    def socket(self) -> socket.socket:
        return cast("socket.socket", self._live().get_extra_info("socket"))

    def peer_address(self) -> str:
        """The peer's IP address, "" on a unix socket."""
        peer: object = self._live().get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def _live(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionResetError("connection lost")
        return self._transport


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
