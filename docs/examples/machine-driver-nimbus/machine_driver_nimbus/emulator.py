"""Nimbus in memory, for tests: the API's requests and answers, without a network.

`hosts` gives servers real machines behind them; without any they have addresses for documentation.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

PAGE = 2  # entries
SIZES = ("small", "large")
ACCOUNT = "token-of-a-test"
Json = dict[str, object]


class Hosts(Protocol):
    """What servers are."""

    def make(self, ident: str, user_data: bytes, public_key: str) -> str:
        """Boot one; its address."""

    def power(self, ident: str, *, on: bool) -> None: ...

    def destroy(self, ident: str) -> None: ...


class Addresses:
    """Servers of which only an address exists."""

    def make(self, ident: str, user_data: bytes, public_key: str) -> str:
        del user_data, public_key
        return f"192.0.2.{ident.rpartition('-')[2]}"

    def power(self, ident: str, *, on: bool) -> None:
        """Nothing has power."""

    def destroy(self, ident: str) -> None:
        """Nothing is there."""


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclasses.dataclass
class Emulator:
    """The provider. Thread-safe."""

    hosts: Hosts = dataclasses.field(default_factory=Addresses)
    keys: dict[str, Json] = dataclasses.field(default_factory=dict)
    servers: dict[str, Json] = dataclasses.field(default_factory=dict)
    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)
    _made: dict[str, str] = dataclasses.field(default_factory=dict)  # idempotency key -> id
    _count: int = 0

    def handle(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """One request; (status, body)."""
        with self.lock:
            try:
                answer = self._route(method, target, headers, body)
            except RefusedError as err:
                return err.status, json.dumps({"error": str(err)}).encode()
            return 200, json.dumps(answer).encode()

    def _route(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Json:
        if headers.get("Authorization") != f"Bearer {ACCOUNT}":
            raise RefusedError(401, "this token is not known")
        parts = urlsplit(target)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        document = json.loads(body) if body else {}
        routes: list[tuple[str, str, Callable[[str], Json]]] = [
            ("GET", "/sizes", lambda _: {"sizes": [{"name": name} for name in SIZES]}),
            ("GET", "/keys", lambda _: _page("keys", self.keys, query)),
            ("POST", "/keys", lambda _: self._make_key(document, headers)),
            ("DELETE", "/keys/([^/]+)", self._drop_key),
            ("GET", "/servers", lambda _: _page("servers", self.servers, query)),
            ("POST", "/servers", lambda _: self._make_server(document, headers)),
            ("GET", "/servers/([^/]+)", self._server),
            ("DELETE", "/servers/([^/]+)", self._drop_server),
            ("POST", "/servers/([^/]+)/on", lambda ident: self._turn(ident, "on")),
            ("POST", "/servers/([^/]+)/off", lambda ident: self._turn(ident, "off")),
        ]
        for verb, pattern, answer in routes:
            found = re.fullmatch(pattern, parts.path)
            if verb == method and found:
                return answer(found[1] if found.groups() else "")
        raise RefusedError(404, f"there is no {method} {parts.path}")

    def _again(self, headers: Mapping[str, str], kind: str) -> str:
        """The id of what an earlier request with this idempotency key made, or a new one."""
        key = headers.get("Idempotency-Key", "")
        if key not in self._made or self._made[key] not in self.keys | self.servers:
            self._count += 1
            self._made[key] = f"{kind}-{self._count}"
        return self._made[key]

    def _make_key(self, wanted: Json, headers: Mapping[str, str]) -> Json:
        ident = self._again(headers, "key")
        return self.keys.setdefault(ident, {"id": ident, **wanted})

    def _drop_key(self, ident: str) -> Json:
        if not self.keys.pop(ident, None):
            raise RefusedError(404, f"no key {ident}")
        return {}

    def _make_server(self, wanted: Json, headers: Mapping[str, str]) -> Json:
        key = self.keys.get(str(wanted["key"]))
        if wanted["size"] not in SIZES or key is None:
            raise RefusedError(422, f"no size {wanted['size']}, or no key {wanted['key']}")
        ident = self._again(headers, "server")
        if ident not in self.servers:
            data = base64.b64decode(str(wanted["user_data"]))
            address = self.hosts.make(ident, data, str(key["public_key"]))
            about = {"name": wanted["name"], "tag": wanted["tag"], "address": address}
            self.servers[ident] = {"id": ident, "status": "building", **about}
        return self.servers[ident]

    def _server(self, ident: str) -> Json:
        """What is building is on at the second look."""
        if ident not in self.servers:
            raise RefusedError(404, f"no server {ident}")
        seen = dict(self.servers[ident])
        if seen["status"] == "building":
            self.servers[ident]["status"] = "on"
        return seen

    def _turn(self, ident: str, power: str) -> Json:
        self._server(ident)
        self.hosts.power(ident, on=power == "on")
        self.servers[ident]["status"] = power
        return {}

    def _drop_server(self, ident: str) -> Json:
        self._server(ident)
        self.hosts.destroy(ident)
        del self.servers[ident]
        return {}


def _page(what: str, entries: Mapping[str, Json], query: Mapping[str, str]) -> Json:
    """A page of those with the tag that was asked for, and where the next one is."""
    found = [one for one in entries.values() if one.get("tag") == query.get("tag")]
    start = int(query.get("from", "0"))
    more = f"/{what}?tag={query.get('tag')}&from={start + PAGE}"
    rest = len(found) > start + PAGE
    return {what: found[start : start + PAGE], "next": more if rest else ""}
