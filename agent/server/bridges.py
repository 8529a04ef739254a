"""Bounded pipes between the event loop and worker threads: uploads in, produced answers out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque

from agent.errors import EngineError, Kind, cancelled
from agent.wire.streams import ChunkSource

_log = logging.getLogger("agent.server")


class UploadPipe:
    """A request body from the loop to a worker; satisfies `agent.wire.streams.BodyReader`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: EngineError | None = None
        self._blocked = False  # the loop waits for room

    # on the loop

    async def put(self, data: bytes) -> None:
        """Returns when there is room for more."""
        with self._changed:
            if self._ended:
                return
            self._chunks.append(data)
            self._size += len(data)
            self._changed.notify()
            if self._size < self._capacity:
                return
            self._blocked = True
            self._room.clear()
        await self._room.wait()

    def end(self, error: EngineError | None = None) -> None:
        """The body is complete, or failed, or unwanted from now on. Later calls change nothing."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._error = error
                self._changed.notify_all()
        self._room.set()

    # on the worker

    def read(self, size: int = 65536, /) -> bytes:
        if size < 0:
            raise ValueError("a body is read in pieces")
        with self._changed:
            while not self._chunks:
                if self._error is not None:
                    raise EngineError(self._error.kind, self._error.message)
                if self._ended:
                    return b""
                self._changed.wait()
            data = self._take(size)
            self._size -= len(data)
            wake = self._blocked and self._size <= self._capacity // 2
            if wake:
                self._blocked = False
        if wake:
            _call(self._loop, self._room)
        return data

    def _take(self, size: int) -> bytes:
        """What is there, up to `size` bytes, in one piece: each turn between loop and worker costs
        more than the copy."""
        pieces: list[bytes] = []
        while self._chunks and len(self._chunks[0]) <= size:
            pieces.append(self._chunks.popleft())
            size -= len(pieces[-1])
        if not pieces:
            data = self._chunks.popleft()
            self._chunks.appendleft(data[size:])
            return data[:size]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class DownloadPipe:
    """Chunks from a worker to the loop."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._stopped = False
        self._error: EngineError | None = None

    # on the worker

    def produce(self, chunks: ChunkSource) -> None:
        """Runs the source to its end, or until `stop()`; then closes it. Raises nothing."""
        error: EngineError | None = None
        try:
            with contextlib.closing(chunks):
                for chunk in chunks:
                    if not self._put(chunk):
                        break
        except EngineError as caught:
            error = caught
        except Exception:  # noqa: BLE001 - a thread's top: the answer's end is told in any case
            _log.exception("a streamed answer failed")
            error = EngineError(Kind.INTERNAL, "internal error")
        finally:
            with self._changed:
                self._ended = True
                self._error = error
            _call(self._loop, self._ready)

    def _put(self, chunk: bytes) -> bool:
        with self._changed:
            while self._size >= self._capacity and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return False
            was_empty = not self._chunks
            if chunk:
                self._chunks.append(chunk)
                self._size += len(chunk)
        if was_empty and chunk:
            _call(self._loop, self._ready)
        return True

    # on the loop

    async def get(self) -> bytes:
        """What has been produced, joined; b"" = the end. Raises EngineError."""
        while True:
            with self._changed:
                self._ready.clear()
                data = b"".join(self._chunks)
                self._chunks.clear()
                self._size = 0
                self._changed.notify()
                ended, error, stopped = self._ended, self._error, self._stopped
            if data:
                return data
            if stopped:
                raise cancelled("client closed the connection")
            if ended:
                if error is not None:
                    raise error
                return b""
            await self._ready.wait()

    def stop(self) -> None:
        """The client has gone: the worker stops at its next chunk."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._ready.set()


def _call(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        _log.debug("the event loop has closed; nobody waits any more")
