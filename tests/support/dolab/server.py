"""The HTTP of the emulator: tokens, routes, pages, rate limits, and faults by script."""

import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from tests.support.dolab.catalogue import Doc
from tests.support.dolab.cloud import Cloud
from tests.support.dolab.machines import Machines
from tests.support.dolab.refusals import ApiError, missing

# the API's defaults
_PER_PAGE = 20
_MOST_PER_PAGE = 200


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of this method whose path matches.

    `status`: refused with it. `drop`: the connection ends "before" anything is done, or "after" it
    was. `delay`: seconds before anything is done; `hold`: before the answer. `skip`: so many matching requests pass first.
    """

    method: str
    path: str
    status: int = 0
    message: str = "Server Error"
    drop: str = ""
    delay: float = 0.0
    hold: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    skip: int = 0

    def takes(self, method: str, path: str) -> bool:
        if self.times < 1 or method != self.method or not re.fullmatch(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Asked:
    """A request as it came; `query` and `body` decoded."""

    method: str
    path: str
    query: dict[str, str]
    body: Doc


class DoLab:
    """The server, on a port of the loopback. A context manager. Accounts are told by token."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.most_per_page = _MOST_PER_PAGE
        self._accounts: dict[str, Cloud] = {}
        self._closing = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}/v2/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def account(self, token: str, machines: Machines | None = None) -> Cloud:
        """A new, empty account that this token opens."""
        self._accounts[token] = Cloud(machines)
        return self._accounts[token]

    def account_of(self, authorization: str) -> Cloud | None:
        """The account that the header's token opens."""
        kind, _, token = authorization.partition(" ")
        return self._accounts.get(token) if kind == "Bearer" else None

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # -- one request

    def answer(
        self, asked: Asked, authorization: str, fault: Fault | None
    ) -> tuple[int, Doc | None]:
        """(status, document). Raises ApiError."""
        if fault and fault.status:
            raise ApiError(fault.status, "server_error", fault.message)
        cloud = self.account_of(authorization)
        if cloud is None:
            raise ApiError(401, "unauthorized", "Unable to authenticate you")
        cloud.count_request()
        for method, pattern, serve in _ROUTES:
            found = re.fullmatch(pattern, asked.path)
            if found and method == asked.method:
                with cloud.lock:
                    return serve(self, cloud, asked, *found.groups())
        raise missing()

    def fault(self, method: str, path: str) -> Fault | None:
        return next((one for one in self.faults if one.takes(method, path)), None)

    def pause(self, seconds: float) -> None:
        """A delay that ends with the emulator."""
        self._closing.wait(seconds)

    def page(self, key: str, things: list[Doc], asked: Asked) -> tuple[int, Doc]:
        size = min(int(asked.query.get("per_page", _PER_PAGE)), self.most_per_page)
        number = int(asked.query.get("page", 1))
        last = max(-(-len(things) // size), 1)
        links: Doc = {}
        if number < last:
            query = {**asked.query, "per_page": size}
            base = f"https://api.digitalocean.com/v2/{asked.path}?"
            links = {
                "next": base + urlencode(query | {"page": number + 1}),
                "last": base + urlencode(query | {"page": last}),
            }
        shown = things[(number - 1) * size : number * size]
        return 200, {
            key: shown,
            "links": {"pages": links} if links else {},
            "meta": {"total": len(things)},
        }


Serve = Callable[..., tuple[int, Doc | None]]


def _lists(key: str, find: Callable[[Cloud], list[Doc]]) -> Serve:
    return lambda lab, cloud, asked: lab.page(key, find(cloud), asked)


def _gives(key: str, find: Callable[..., Doc], status: int = 200) -> Serve:
    return lambda lab, cloud, asked, *ids: (status, {key: find(cloud, *map(unquote, ids))})


def _makes(key: str, make: Callable[[Cloud, Doc], Doc], status: int = 201) -> Serve:
    return lambda lab, cloud, asked: (status, {key: make(cloud, asked.body)})


def _drops(drop: Callable[..., None]) -> Serve:
    def serve(lab: DoLab, cloud: Cloud, asked: Asked, ident: str) -> tuple[int, None]:
        drop(cloud, unquote(ident))
        return 204, None

    return serve


def _images(lab: DoLab, cloud: Cloud, asked: Asked) -> tuple[int, Doc]:
    wanted = asked.query.get("type")
    found = [one for one in cloud.images if wanted in {None, "distribution"}]
    return lab.page("images", found, asked)


def _droplets(lab: DoLab, cloud: Cloud, asked: Asked) -> tuple[int, Doc]:
    return lab.page("droplets", cloud.list_droplets(asked.query.get("tag_name", "")), asked)


def _new_droplet(lab: DoLab, cloud: Cloud, asked: Asked) -> tuple[int, Doc]:
    droplet, action = cloud.make_droplet(asked.body)
    href = f"https://api.digitalocean.com/v2/actions/{action['id']}"
    link = {"id": action["id"], "rel": "create", "href": href}
    return 202, {"droplet": droplet, "links": {"actions": [link]}}


def _acts(lab: DoLab, cloud: Cloud, asked: Asked, ident: str) -> tuple[int, Doc]:
    return 201, {"action": cloud.act(int(ident), asked.body)}


def _snapshots(lab: DoLab, cloud: Cloud, asked: Asked) -> tuple[int, Doc]:
    found = cloud.list_snapshots(asked.query.get("resource_type", ""))
    return lab.page("snapshots", found, asked)


_ROUTES: tuple[tuple[str, str, Serve], ...] = (
    ("GET", "account", _gives("account", Cloud.account)),
    ("GET", "regions", _lists("regions", lambda cloud: cloud.regions)),
    ("GET", "sizes", _lists("sizes", lambda cloud: cloud.sizes)),
    ("GET", "images", _images),
    ("GET", "images/([^/]+)", _gives("image", Cloud.image)),
    ("GET", "vpcs", _lists("vpcs", lambda cloud: list(cloud.vpcs.values()))),
    ("GET", "vpcs/([^/]+)", _gives("vpc", Cloud.vpc)),
    ("GET", "tags", _lists("tags", lambda cloud: [cloud.tag(name) for name in sorted(cloud.tags)])),
    ("GET", "tags/([^/]+)", _gives("tag", Cloud.tag)),
    ("POST", "tags", _makes("tag", Cloud.make_tag)),
    ("DELETE", "tags/([^/]+)", _drops(Cloud.drop_tag)),
    ("GET", "account/keys", _lists("ssh_keys", lambda cloud: list(cloud.keys.values()))),
    ("GET", "account/keys/([^/]+)", _gives("ssh_key", Cloud.key)),
    ("POST", "account/keys", _makes("ssh_key", Cloud.make_key)),
    ("DELETE", "account/keys/([^/]+)", _drops(Cloud.drop_key)),
    ("GET", "droplets", _droplets),
    ("POST", "droplets", _new_droplet),
    ("GET", r"droplets/(\d+)", _gives("droplet", lambda cloud, i: cloud.droplet(int(i)))),
    ("DELETE", r"droplets/(\d+)", _drops(lambda cloud, i: cloud.drop_droplet(int(i)))),
    ("POST", r"droplets/(\d+)/actions", _acts),
    ("GET", r"actions/(\d+)", _gives("action", lambda cloud, i: cloud.action(int(i)))),
    ("GET", "volumes", _lists("volumes", lambda cloud: list(cloud.discs.values()))),
    ("POST", "volumes", _makes("volume", Cloud.make_volume)),
    ("DELETE", "volumes/([^/]+)", _drops(Cloud.drop_volume)),
    ("GET", "snapshots", _snapshots),
    ("DELETE", "snapshots/([^/]+)", _drops(Cloud.drop_snapshot)),
    ("GET", "firewalls", _lists("firewalls", lambda cloud: list(cloud.walls.values()))),
    ("POST", "firewalls", _makes("firewall", Cloud.make_firewall, 202)),
    ("DELETE", "firewalls/([^/]+)", _drops(Cloud.drop_firewall)),
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, lab: DoLab) -> None:
        self.lab = lab
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    wbufsize = -1  # head and body in one segment
    server: Any

    def _serve(self) -> None:
        lab: DoLab = self.server.lab
        asked = self._asked()
        lab.asked.append(asked)
        fault = lab.fault(asked.method, asked.path)
        headers = dict(fault.headers) if fault else {}
        if fault and fault.delay:
            lab.pause(fault.delay)
        if fault and fault.drop == "before":
            self._hang_up()
            return
        try:
            status, document = lab.answer(asked, self.headers.get("Authorization", ""), fault)
        except ApiError as err:
            status = err.status
            document = {"id": err.ident, "message": err.message, "request_id": "4d9d8375"}
        if fault and fault.hold:
            lab.pause(fault.hold)
        if fault and fault.drop == "after":
            self._hang_up()
            return
        self._write(status, document, headers)

    def _asked(self) -> Asked:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else {}
        # python-digitalocean ends some paths with a slash; the API takes both.
        path = parts.path.removeprefix("/v2/").rstrip("/")
        return Asked(self.command, path, dict(parse_qsl(parts.query)), body)

    def _write(self, status: int, document: Doc | None, headers: dict[str, str]) -> None:
        cloud = self.server.lab.account_of(self.headers.get("Authorization", ""))
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=utf-8")
        if cloud:
            self.send_header("ratelimit-limit", "5000")
            self.send_header("ratelimit-remaining", str(cloud.remaining))
            self.send_header("ratelimit-reset", str(cloud.reset))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked is in the lab's list."""


for _method in ("GET", "POST", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler._serve)
