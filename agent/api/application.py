"""The Engine API as the server serves it: version, route, handler.

The server itself leaves the audit line of each mutating call (security C19).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from agent.api.backend import Backend
from agent.api.call import Api, Call
from agent.api.routes import Match, Router
from agent.api.version import CURRENT_TEXT, Version, split
from agent.wire.http import Answer, Body, Handling, Request


class EngineApplication:
    """`agent.wire.http.Application` for the Engine API.

    `now`: wall-clock ns since the epoch.  `default_dns`: the configuration's name servers for
    containers.
    """

    def __init__(
        self, backend: Backend, now: Callable[[], int], default_dns: tuple[str, ...] = ()
    ) -> None:
        self._api = Api(backend, now, default_dns)
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
        # What walks the disk for sizes is for a worker.
        inline = match.row.inline and "size" not in request.query
        return Handling(self._bound(match, version), match.row.body, inline)

    def _bound(self, match: Match, version: Version) -> Callable[[Request, Body], Answer]:
        row = match.row

        def handle(request: Request, body: Body) -> Answer:
            return row.handler(self._api, Call(request, body, match.params, version))

        return handle
