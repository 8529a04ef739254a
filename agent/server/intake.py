"""What a connection receives: heads and bodies of requests, with their deadlines."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.errors import EngineError, cancelled, invalid, timeout, too_large
from agent.server.bridges import UploadPipe
from agent.server.channel import Channel
from agent.server.limits import Limits
from agent.wire.http import JSON, MAX_JSON, Headers, printable
from agent.wire.http1 import CONTINUE, Head, RequestReader

_LENGTH_DIGITS: Final = 19


class Intake:
    """The receiving half of one HTTP connection; only one method runs at a time."""

    def __init__(self, channel: Channel, limits: Limits) -> None:
        self._channel = channel
        self._limits = limits
        self._reader = RequestReader()

    @property
    def complete(self) -> bool:
        """True when the current request's body has been read to its end."""
        return self._reader.body_complete

    def next_request(self) -> None:
        self._reader.next_request()

    def leftover(self) -> bytes:
        return self._reader.leftover()

    async def head(self, *, first: bool) -> Head | None:
        """The next request's head; None = the client has closed, or said nothing for long.

        Raises EngineError, ConnectionError.
        """
        head = self._reader.next_head()
        if head is not None:
            return head
        if self._reader.idle and not first:
            try:
                async with asyncio.timeout(self._limits.idle):
                    data = await self._channel.recv()
            except TimeoutError:
                return None
            if not data:
                return None
            self._reader.feed(data)
            head = self._reader.next_head()
        return head or await self._rest_of_head()

    async def _rest_of_head(self) -> Head | None:
        try:
            async with asyncio.timeout(self._limits.head):
                while (head := self._reader.next_head()) is None:
                    data = await self._channel.recv()
                    if not data:
                        return None
                    self._reader.feed(data)
        except TimeoutError:
            if self._reader.idle:
                return None
            raise timeout("request header not received in time") from None
        return head

    async def json(self, head: Head) -> bytes:
        """A whole JSON body, b"" when there is none. Raises EngineError, ConnectionError."""
        if not head.has_body:
            return b""
        _check_json_headers(head.headers)
        await self._invite(head)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.json_body):
                while data := await self._piece():
                    size += len(data)
                    if size > MAX_JSON:
                        raise too_large("request body too large")
                    parts.append(data)
        except TimeoutError:
            raise timeout("request body not received in time") from None
        if size and "content-type" not in head.headers:
            raise invalid("malformed Content-Type header (): mime: no media type")
        return b"".join(parts)

    async def skip(self, head: Head) -> None:
        """Reads an unwanted body away. Raises EngineError, ConnectionError."""
        if not head.has_body:
            return
        await self._invite(head)
        left = self._limits.discard
        try:
            async with asyncio.timeout(self._limits.json_body):
                while data := await self._piece():
                    left -= len(data)
                    if left < 0:
                        raise too_large("request body not expected here")
        except TimeoutError:
            raise timeout("request body not received in time") from None

    async def upload(self, head: Head, pipe: UploadPipe) -> None:
        """Feeds a body into `pipe` to its end. Raises nothing: the pipe's reader is told."""
        try:
            if head.has_body:
                await self._invite(head)
            while True:
                async with asyncio.timeout(self._limits.body_stall):
                    data = await self._piece()
                if not data:
                    break
                await pipe.put(data)
        except EngineError as error:
            pipe.end(error)
        except TimeoutError:
            pipe.end(timeout("request body not received in time"))
        except ConnectionError:
            pipe.end(cancelled("client closed the connection within the request body"))
        else:
            pipe.end()

    async def _invite(self, head: Head) -> None:
        if head.expects_continue:
            await self._channel.send(CONTINUE)

    async def _piece(self) -> bytes:
        while (data := self._reader.next_body()) is None:
            self._reader.feed(await self._channel.recv())
        return data


def _check_json_headers(headers: Headers) -> None:
    """Docker Engine's rule, which also stops a page's text/plain form post. Raises EngineError."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise invalid("Content-Encoding is not supported")
    content_type = headers.get("content-type", JSON)
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise invalid(
            f"unsupported Content-Type header ({printable(content_type)}): must be '{JSON}'"
        )
    declared = headers.get("content-length", "0")
    if len(declared) > _LENGTH_DIGITS or int(declared) > MAX_JSON:
        raise too_large("request body too large")
