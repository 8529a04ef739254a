"""Sends what a handler returned: whole replies and streams. Hijacked ones are in `hijack`."""

from __future__ import annotations

import asyncio
import email.utils
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from typing import Final

from agent.errors import EngineError
from agent.server.bridges import DownloadPipe
from agent.server.channel import Channel
from agent.server.readiness import readable
from agent.wire import jsonlines
from agent.wire.http import BlockingStream, Reply, Stream, error_reply, printable
from agent.wire.http1 import LAST_CHUNK, chunk, response_head
from agent.wire.streams import PullStream

_log = logging.getLogger("agent.server")
_NO_LENGTH: Final = frozenset({204, 304})

Fields = Iterable[tuple[str, str]]


class Responder:
    """The answer to one request. `keep_alive` and `status` are read by the connection after it."""

    def __init__(
        self,
        channel: Channel,
        method: str,
        common: Sequence[tuple[str, str]],
        *,
        http10: bool,
        keep_alive: bool,
    ) -> None:
        self._channel = channel
        self._bodiless = method == "HEAD"
        self._common = common
        self._http10 = http10
        self.keep_alive = keep_alive
        self.status = 0

    def _head(self, status: int, fields: Fields, reason: str = "") -> bytes:
        """Raises ValueError for a header that would break its line."""
        date = ("Date", _date.text(asyncio.get_running_loop().time()))
        all_fields = [*fields, *self._common, date]
        if not self.keep_alive:
            all_fields.append(("Connection", "close"))
        head = response_head(status, all_fields, reason)
        self.status = status
        return head

    async def reply(self, reply: Reply) -> None:
        """Raises ConnectionError."""
        fields = list(reply.headers)
        if reply.content_type:
            fields.append(("Content-Type", reply.content_type))
        if reply.status not in _NO_LENGTH:
            fields.append(("Content-Length", str(len(reply.body))))
        body = b"" if self._bodiless or reply.status in _NO_LENGTH else reply.body
        await self._channel.send(self._head(reply.status, fields) + body)

    async def error(self, error: EngineError) -> None:
        """Raises ConnectionError."""
        await self.reply(error_reply(error))

    def hijack_head(self, content_type: str, headers: Fields, *, protocol: str) -> bytes:
        """The head before a raw stream; 101 when the client asked for `protocol`, 200 when ""."""
        fields = [("Content-Type", content_type), *headers, *self._common]
        if protocol:
            fields += [("Connection", "Upgrade"), ("Upgrade", protocol)]
        self.status = 101 if protocol else 200
        return response_head(self.status, fields)

    async def _begin(self, status: int, content_type: str, headers: Fields) -> None:
        fields = [*headers, ("Content-Type", content_type)]
        if self._http10:
            self.keep_alive = False
        else:
            fields.append(("Transfer-Encoding", "chunked"))
        await self._channel.send(self._head(status, fields))

    async def _piece(self, data: bytes) -> None:
        await self._channel.send(data if self._http10 else chunk(data))

    async def _end(self) -> None:
        if not self._http10:
            await self._channel.send(LAST_CHUNK)

    async def stream(self, answer: Stream) -> None:
        """Sends until the source ends or the client goes; the source is closed. ConnectionError."""
        try:
            await self._begin(answer.status, answer.content_type, answer.headers)
            if self._bodiless:
                return
            await until_ended(self._channel, lambda: self._pump(answer.source))
        finally:
            answer.source.close()

    async def _pump(self, source: PullStream) -> None:
        async for data in pulled(source):
            await self._piece(data)
        await self._end()

    async def blocking(self, answer: BlockingStream, pool: Executor, capacity: int) -> None:
        """Sends what the worker produces. Raises ConnectionError, EngineError (nothing sent)."""
        pipe = DownloadPipe(capacity)
        future = pool.submit(pipe.produce, answer.chunks)
        self._channel.on_end(pipe.stop)
        try:
            first = await pipe.get()
            await self._begin(answer.status, answer.content_type, answer.headers)
            if first and not self._bodiless:
                await self._piece(first)
                await self._drain(pipe, answer.content_type)
            if not self._bodiless:
                await self._end()
        finally:
            self._channel.on_end(None)
            pipe.stop()
            if future.cancel():  # a produce() that never started closes nothing
                answer.chunks.close()

    async def _drain(self, pipe: DownloadPipe, content_type: str) -> None:
        try:
            while data := await pipe.get():
                await self._piece(data)
        except EngineError as error:
            if "json" not in content_type:
                raise ConnectionAbortedError(error.message) from error
            document = {"errorDetail": {"message": error.message}, "error": error.message}
            await self._piece(jsonlines.encode(document))


async def until_ended(channel: Channel, work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Runs `work`, and cuts it off when the client has gone. Raises ConnectionError."""
    task = asyncio.ensure_future(work())

    def cut() -> None:
        task.cancel()

    channel.on_end(cut)
    try:
        await asyncio.wait({task})
    finally:
        channel.on_end(None)
        task.cancel()  # nothing, when it is done
    if task.cancelled():
        raise ConnectionResetError("client closed the connection")
    task.result()


async def pulled(source: PullStream) -> AsyncIterator[bytes]:
    """The pieces of a source. Raises ConnectionAbortedError when the source fails."""
    while True:
        try:
            data = source.read()
        except (EngineError, OSError) as error:
            _log.warning("a stream failed: %s", printable(str(error)))
            raise ConnectionAbortedError("the stream failed") from error
        if data is None:
            await readable(source.fileno())
        elif data:
            yield data
            # A source that is always ready and a client that always takes would else never let
            # any other connection run.
            await asyncio.sleep(0)
        else:
            return


class _Date:
    """The Date header's value, made once a second for all connections."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, now: float) -> str:
        """`now`: the loop's clock, seconds."""
        if int(now) != self._second:
            self._second, self._text = int(now), email.utils.formatdate(usegmt=True)
        return self._text


_date: Final = _Date()
