"""Nimbus' API: one method a call. Each goes through the door, and fails as the contract says."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Final

from drivers.api import DriverContext, Seed
from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)
from drivers.polling import retried

_KINDS: Final[Mapping[int, type[DriverError]]] = {
    401: AuthError,
    402: QuotaError,
    403: AuthError,
    404: GoneError,
    409: ConflictError,
    422: InvalidError,
}


@dataclasses.dataclass(frozen=True)
class Server:
    """A server as Nimbus tells of it; `status` is building, on or off."""

    ident: str
    status: str
    address: str


class Nimbus:
    """The API as one machine's driver needs it. Every method raises DriverError's kinds.

    Nimbus' creates take an idempotency key, and its deletes may be repeated, so that every call is
    made again while the API is out of order.
    """

    def __init__(self, ctx: DriverContext) -> None:
        self._ctx = ctx

    def sizes(self) -> list[str]:
        return [str(size["name"]) for size in self._list("ListSizes", "sizes", "/sizes")]

    def find_keys(self) -> list[str]:
        found = self._list("ListKeys", "keys", f"/keys?tag={self._ctx.uuid}")
        return [str(key["id"]) for key in found]

    def make_key(self, public_key: str) -> str:
        wanted = {"name": self._ctx.name, "tag": self._ctx.uuid, "public_key": public_key}
        return str(self._one("CreateKey", "POST", "/keys", wanted)["id"])

    def drop_key(self, ident: str) -> None:
        self._delete("DeleteKey", f"/keys/{ident}")

    def find_servers(self) -> list[Server]:
        found = self._list("ListServers", "servers", f"/servers?tag={self._ctx.uuid}")
        return [_server(one) for one in found]

    def server(self, ident: str) -> Server:
        return _server(self._one("GetServer", "GET", f"/servers/{ident}"))

    def make_server(self, key: str, seed: Seed) -> str:
        wanted = {
            "name": self._ctx.name,
            "tag": self._ctx.uuid,
            "size": self._ctx.text("size"),
            "key": key,
            "user_data": base64.b64encode(seed.user_data).decode(),
        }
        return str(self._one("CreateServer", "POST", "/servers", wanted)["id"])

    def turn(self, ident: str, power: str) -> None:
        self._one("TurnServer", "POST", f"/servers/{ident}/{power}")

    def drop_server(self, ident: str) -> None:
        self._delete("DeleteServer", f"/servers/{ident}")

    # -- how a call is made

    def _list(self, call: str, what: str, path: str) -> list[Mapping[str, object]]:
        """All pages."""
        found: list[Mapping[str, object]] = []
        more: object = path
        while isinstance(more, str) and more:
            page = self._one(call, "GET", more)
            entries = page.get(what)
            found += entries if isinstance(entries, list) else []
            more = page.get("next")
        return found

    def _delete(self, call: str, path: str) -> None:
        try:
            self._one(call, "DELETE", path)
        except GoneError:
            return  # what is gone already is no error

    def _one(
        self, call: str, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Mapping[str, object]:
        ctx = self._ctx
        action = functools.partial(self._request, call, method, path, body)
        return retried(lambda: ctx.door.call(call, action), clock=ctx.clock)

    def _request(
        self, call: str, method: str, path: str, body: Mapping[str, object] | None
    ) -> Mapping[str, object]:
        headers = {
            "Authorization": f"Bearer {self._ctx.text('token')}",
            "Content-Type": "application/json",
            "Idempotency-Key": f"{call}-{self._ctx.uuid}",
        }
        data = json.dumps(body).encode() if body is not None else b""
        try:
            status, answer = self._ctx.http.request(
                method, self._ctx.text("url") + path, headers=headers, body=data
            )
        except DriverError as err:
            raise TransientError(f"{call}: {err.message}") from err  # nobody answered
        return _decoded(call, status, answer)


def _decoded(call: str, status: int, answer: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(answer or b"{}")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise TransientError(f"{call}: {status}, and no JSON")
    if status < 400:
        return document
    text = f"{call}: {status} {str(document.get('error', ''))[:300]}"
    if status == 429 or status >= 500:
        wait = document.get("retry_after")
        seconds = float(wait) if isinstance(wait, int | float) else 0.0
        raise TransientError(text, retry_after=seconds)
    raise _KINDS.get(status, DriverError)(text)


def _server(document: Mapping[str, object]) -> Server:
    return Server(str(document["id"]), str(document["status"]), str(document.get("address", "")))
