"""One admitted request: its body read, its handler called, its answer sent."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import field
from typing import Final

from agent.errors import EngineError, cancelled, internal, unavailable
from agent.server.answers import Responder
from agent.server.bridges import UploadPipe
from agent.server.channel import Channel
from agent.server.hijack import HijackPump
from agent.server.intake import Intake
from agent.server.limits import Limits
from agent.values import frozen
from agent.wire.http import (
    Answer,
    Application,
    BlockingStream,
    Body,
    BodyKind,
    Handling,
    Hijack,
    Reply,
    Request,
    Stream,
)
from agent.wire.http1 import Head

_log = logging.getLogger("agent.server")

# How long an early answer waits for the rest of an upload, so that the connection can be kept.
_SETTLE: Final = 1.0
_TOKEN: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


@frozen(slots=True)
class Service:
    """What all connections share."""

    application: Application
    limits: Limits
    workers: Executor  # handlers
    producers: Executor  # handlers of uploads, and blocking streams
    prefix: str = field(default_factory=lambda: secrets.token_hex(3))
    counter: itertools.count[int] = field(default_factory=itertools.count)

    def next_id(self) -> str:
        return f"{self.prefix}-{next(self.counter)}"


@frozen(slots=True)
class Exchange:
    """`streaming` is called when an answer begins that has no end of its own."""

    service: Service
    channel: Channel
    intake: Intake
    responder: Responder
    head: Head
    request: Request
    streaming: Callable[[], None]

    async def run(self, handling: Handling) -> None:
        """Raises EngineError, and ConnectionError once the client is gone."""
        if handling.body is BodyKind.STREAM:
            await self._upload(handling)
            return
        data = b""
        if handling.body is BodyKind.JSON:
            data = await self.intake.json(self.head)
        else:
            await self.intake.skip(self.head)
        if handling.inline:
            await self._send(_run_handler(handling, self.request, Body(data)))
            return
        gone = threading.Event()
        try:
            answer = await self._on_worker(
                self.service.workers, handling, Body(data, gone=gone), gone
            )
            await self._send(answer)
        finally:
            gone.set()

    async def _upload(self, handling: Handling) -> None:
        gone = threading.Event()
        pipe = UploadPipe(self.service.limits.stream_buffer)
        feeder = asyncio.ensure_future(self.intake.upload(self.head, pipe))
        try:
            body = Body(reader=pipe, gone=gone)
            answer = await self._on_worker(self.service.producers, handling, body, gone)
            if isinstance(answer, Reply):
                await self._settle(pipe, feeder)
            await self._send(answer)
        except EngineError:
            await self._settle(pipe, feeder)
            raise
        finally:
            gone.set()
            pipe.end(cancelled("the request has ended"))
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
            if not self.intake.complete:
                self.responder.keep_alive = False

    async def _settle(self, pipe: UploadPipe, feeder: asyncio.Future[None]) -> None:
        """The rest of the body is read away for a while; if it is longer, the connection ends."""
        pipe.end()
        await asyncio.wait({feeder}, timeout=_SETTLE)
        if not self.intake.complete:
            self.responder.keep_alive = False

    async def _on_worker(
        self, pool: Executor, handling: Handling, body: Body, gone: threading.Event
    ) -> Answer:
        """Calls the handler on a thread; its late answer is disposed of when nobody waits."""
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(pool, _run_handler, handling, self.request, body)
        except RuntimeError as error:  # the pool has been shut down
            raise unavailable("the engine is stopping") from error
        self.channel.on_end(gone.set)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            gone.set()
            future.add_done_callback(_dispose_late)
            raise
        finally:
            self.channel.on_end(None)

    async def _send(self, answer: Answer) -> None:
        if isinstance(answer, Reply):
            await self.responder.reply(answer)
            return
        self.streaming()
        if isinstance(answer, Stream):
            await self.responder.stream(answer)
        elif isinstance(answer, BlockingStream):
            await self.responder.blocking(
                answer, self.service.producers, self.service.limits.stream_buffer
            )
        else:
            await self._hijack(answer)

    async def _hijack(self, hijack: Hijack) -> None:
        protocol = ""
        if self.request.wants_upgrade and not self.head.http10:
            protocol = self.request.headers.get("upgrade")
            if not _TOKEN.fullmatch(protocol):
                protocol = "tcp"
        head = self.responder.hijack_head(hijack.content_type, hijack.headers, protocol=protocol)
        self.responder.keep_alive = False
        leftover = self.intake.leftover()
        await HijackPump(self.channel, hijack, leftover, self.service.limits).run(head)


def _run_handler(handling: Handling, request: Request, body: Body) -> Answer:
    """Calls the handler. Raises EngineError only: what else it raises is logged and hidden."""
    try:
        return handling.handler(request, body)
    except EngineError:
        raise
    except Exception as error:
        _log.exception("request %s failed", request.id)
        raise internal(f"internal error (request {request.id})") from error


def _dispose_late(future: asyncio.Future[Answer]) -> None:
    if not future.cancelled() and future.exception() is None:
        dispose(future.result())


def dispose(answer: Answer) -> None:
    """Closes what an answer holds that will not be sent."""
    if isinstance(answer, Stream):
        answer.source.close()
    elif isinstance(answer, BlockingStream):
        answer.chunks.close()
    elif isinstance(answer, Hijack):
        answer.duplex.close()
        if answer.logs_first is not None:
            answer.logs_first.close()
