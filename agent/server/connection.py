"""One HTTP connection: requests in, answers out, until it is closed or hijacked."""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import Final

from agent.errors import EngineError
from agent.server.answers import Responder
from agent.server.channel import Channel
from agent.server.exchange import Exchange, Service
from agent.server.intake import Intake
from agent.wire.guard import refusal
from agent.wire.http import READING_METHODS, Client, Request, parse_target, printable
from agent.wire.http1 import Head

_log = logging.getLogger("agent.server")
_audit = logging.getLogger("agent.audit")
_GOODBYE: Final = 0.5  # seconds for a stream that the stopping server ends
_LOGGED_PATH: Final = 1024


class Phase(enum.Enum):
    IDLE = "idle"  # between requests: may be closed at any time
    BUSY = "busy"  # a short request is in flight
    STREAMING = "streaming"  # the answer has no end of its own


class HttpConnection:
    """Serves one channel. `phase` tells a stopping server what may be cut off."""

    def __init__(
        self, channel: Channel, client: Client, service: Service, hosts: frozenset[str]
    ) -> None:
        self.client = client
        self.phase = Phase.IDLE
        self.stopping = False
        self._channel = channel
        self._service = service
        self._hosts = hosts
        self._intake = Intake(channel, service.limits)

    async def run(self) -> None:
        """Until the connection is over; the channel is closed on every path."""
        try:
            first = True
            while await self._one_request(first=first) and not self.stopping:
                first = False
            await self._channel.finish(self._service.limits.linger)
        except (ConnectionError, TimeoutError) as error:
            _log.debug("connection of %s ended: %s", self.client.label(), error)
        except asyncio.CancelledError:
            await self._channel.finish(_GOODBYE)
            raise
        finally:
            self._channel.abort()

    async def _one_request(self, *, first: bool) -> bool:
        """True = another request may follow. Raises ConnectionError."""
        self.phase = Phase.IDLE
        try:
            head = await self._intake.head(first=first)
        except EngineError as error:
            await self._responder(None).error(error)
            return False
        if head is None:
            return False
        self.phase = Phase.BUSY
        responder = self._responder(head)
        request = Request(
            head.method, head.target, "", client=self.client, id=self._service.next_id()
        )
        try:
            request = self._admit(head, request)
            handling = self._service.application.resolve(request)
            await Exchange(
                self._service,
                self._channel,
                self._intake,
                responder,
                head,
                request,
                self._set_streaming,
            ).run(handling)
        except EngineError as error:
            await self._answer_error(responder, error)
        finally:
            self._record(request, responder.status)
        if responder.keep_alive:
            self._intake.next_request()
        return responder.keep_alive

    def _set_streaming(self) -> None:
        self.phase = Phase.STREAMING

    async def _answer_error(self, responder: Responder, error: EngineError) -> None:
        """Raises ConnectionError, also when an answer had begun already."""
        if responder.status:
            raise ConnectionAbortedError(error.message) from error
        if not self._intake.complete:
            responder.keep_alive = False
        await responder.error(error)

    def _responder(self, head: Head | None) -> Responder:
        return Responder(
            self._channel,
            head.method if head else "GET",
            self._service.application.common_headers,
            http10=head is not None and head.http10,
            keep_alive=head is not None and head.keep_alive and not self.stopping,
        )

    def _admit(self, head: Head, request: Request) -> Request:
        """Raises EngineError."""
        error = refusal(head.headers, self.client, self._hosts)
        if error is not None:
            raise error
        path, query = parse_target(head.target)
        return Request(head.method, head.target, path, query, head.headers, self.client, request.id)

    def _record(self, request: Request, status: int) -> None:
        """The query stays out of the log: it may hold secrets (build arguments)."""
        logger, level = _audit, logging.INFO
        if request.method in READING_METHODS:
            logger, level = _log, logging.DEBUG
        if logger.isEnabledFor(level):
            path = printable(request.path or request.target.partition("?")[0])[:_LOGGED_PATH]
            label = request.client.label()
            logger.log(level, "%s %s %s %s %s", request.id, label, request.method, path, status)
