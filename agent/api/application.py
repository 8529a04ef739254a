"""The Engine API as the server serves it: route, version, handler, audit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from agent.api.backend import Backend
from agent.api.call import Api, Call
from agent.api.routes import Match, Router
from agent.api.version import CURRENT_TEXT, Version, split
from agent.errors import EngineError, Kind
from agent.wire.http import Answer, Body, Handling, Reply, Request, printable

audit: Final = logging.getLogger("agent.audit")

MAX_AUDIT_PATH: Final = 300


class EngineApplication:
    """`agent.wire.http.Application` for the Engine API.

    `now`: wall-clock ns since the epoch.
    """

    def __init__(self, backend: Backend, now: Callable[[], int]) -> None:
        self._api = Api(backend, now)
        self._router = Router()
        self._headers: Final = (
            ("Api-Version", CURRENT_TEXT),
            ("Docker-Experimental", "false"),
            ("Ostype", "linux"),
            ("Server", f"Machine/{backend.facts.agent_version} (linux)"),
        )

    @property
    def common_headers(self) -> Sequence[tuple[str, str]]:
        return self._headers

    def resolve(self, request: Request) -> Handling:
        """Raises EngineError: INVALID for a version not spoken, NOT_FOUND for unknown routes."""
        version, path = split(request.path)
        match = self._router.find(request.method, path, version)
        return Handling(self._bound(match, version), match.row.body, match.row.inline)

    def _bound(self, match: Match, version: Version) -> Callable[[Request, Body], Answer]:
        row = match.row

        def handle(request: Request, body: Body) -> Answer:
            call = Call(request, body, match.params, version)
            if not row.mutating:
                return row.handler(self._api, call)
            try:
                answer = row.handler(self._api, call)
            except EngineError as error:
                _audit(request, error.kind.value)
                raise
            _audit(request, _result(answer))
            return answer

        return handle


def _result(answer: Answer) -> str:
    """How it ended; for a stream, that it began."""
    return str(answer.status) if isinstance(answer, Reply) else "streaming"


def _audit(request: Request, result: str) -> None:
    """One line for each mutating call (security C19).  No header and no body: secrets are there."""
    if result == Kind.NOT_MODIFIED.value:
        return
    audit.info(
        "%s %s %s %s: %s",
        request.id or "-",
        request.client.label(),
        request.method,
        printable(request.path)[:MAX_AUDIT_PATH],
        result,
    )
