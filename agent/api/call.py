"""What a handler is given: the engine, and one request as the router understood it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from agent.api.backend import Backend
from agent.api.texts import Texts
from agent.api.version import CURRENT, Version
from agent.values import frozen
from agent.wire.http import Answer, Body, Query, Request


@frozen(slots=True)
class Api:
    """What handlers act on.  `now` is wall-clock ns since the epoch; `default_dns` the name servers
    of containers that ask for none."""

    backend: Backend
    now: Callable[[], int]
    default_dns: tuple[str, ...] = ()
    texts: Texts = field(default_factory=Texts)


@frozen(slots=True)
class Call:
    """One request.  `params` are the path's variables, decoded."""

    request: Request
    body: Body = field(default_factory=Body)
    params: Mapping[str, str] = field(default_factory=dict)
    version: Version = CURRENT

    @property
    def query(self) -> Query:
        return self.request.query

    @property
    def id(self) -> str:
        return self.params["id"]

    @property
    def name(self) -> str:
        return self.params["name"]


ApiHandler = Callable[[Api, Call], Answer]
