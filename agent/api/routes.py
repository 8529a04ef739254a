"""The route table: every path of the specification, served or not.

docs/api-coverage.md is made from it, and a test holds it against the specification.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Final

from agent.api.call import ApiHandler
from agent.api.handlers import (
    archives,
    attached,
    build,
    containers,
    execs,
    files,
    images,
    networks,
    registry,
    system,
    usage,
    volumes,
)
from agent.api.handlers.unserved import (
    no_checkpoints,
    no_plugins,
    no_swarm,
    not_in_swarm,
    not_yet,
)
from agent.api.version import MINIMUM, Version, page_not_found
from agent.values import frozen
from agent.wire.http import BodyKind


class Service(StrEnum):
    """How far a route is served."""

    SERVED = "served"
    LATER = "not yet"  # 501, names itself
    SWARM = "no swarm"  # 503, as an engine outside a swarm, without plugins and checkpoints


@frozen(slots=True)
class Row:
    """One (method, path).  `template` is the specification's; {name} may hold slashes, {id} not.

    `inline`: never blocks (unless `size` is asked for), answered on the event loop.
    `mutating`: changes something (for a read-only role).
    """

    method: str
    template: str
    handler: ApiHandler
    service: Service = Service.SERVED
    body: BodyKind = BodyKind.NONE
    minimum: Version = MINIMUM
    mutating: bool = False
    inline: bool = False


def _read(template: str, handler: ApiHandler, *, inline: bool = False) -> Row:
    return Row("GET", template, handler, inline=inline)


def _change(method: str, template: str, handler: ApiHandler, body: BodyKind = BodyKind.NONE) -> Row:
    return Row(method, template, handler, body=body, mutating=True)


def _later(method: str, template: str, what: str) -> Row:
    # A refused body is never read: the server answers and closes.
    return Row(method, template, not_yet(what), Service.LATER, inline=True)


def _swarm(method: str, template: str) -> Row:
    return Row(method, template, no_swarm, Service.SWARM, inline=True)


_SYSTEM: Final = (
    Row("GET", "/_ping", system.ping, inline=True),
    Row("HEAD", "/_ping", system.ping, inline=True),
    _read("/version", system.version, inline=True),
    _read("/info", system.info),
    _read("/events", system.events),
    _read("/system/df", system.disk_usage),
    Row("POST", "/auth", registry.login, body=BodyKind.JSON),
    _change("POST", "/commit", build.commit, BodyKind.JSON),
    # Ours for `machine build --ssh`; a client of BuildKit hears that it is not served.
    Row("POST", "/session", build.session, Service.LATER, mutating=True),
    _read("/distribution/{name}/json", registry.distribution),
)
_CONTAINERS: Final = (
    _read("/containers/json", containers.list_all),
    _change("POST", "/containers/create", containers.create, BodyKind.JSON),
    _read("/containers/{id}/json", containers.inspect, inline=True),
    _read("/containers/{id}/top", usage.top),
    _read("/containers/{id}/logs", attached.logs),
    _read("/containers/{id}/changes", files.changes),
    _read("/containers/{id}/export", files.export),
    _read("/containers/{id}/stats", usage.stats),
    Row("POST", "/containers/{id}/resize", containers.resize),
    _change("POST", "/containers/{id}/start", containers.start),
    _change("POST", "/containers/{id}/stop", containers.stop),
    _change("POST", "/containers/{id}/restart", containers.restart),
    _change("POST", "/containers/{id}/kill", containers.kill),
    _change("POST", "/containers/{id}/update", usage.update, BodyKind.JSON),
    _change("POST", "/containers/{id}/rename", containers.rename),
    _change("POST", "/containers/{id}/pause", containers.pause),
    _change("POST", "/containers/{id}/unpause", containers.unpause),
    _change("POST", "/containers/{id}/attach", attached.attach),
    _change("GET", "/containers/{id}/attach/ws", attached.attach_websocket),
    Row("POST", "/containers/{id}/wait", containers.wait),
    _change("DELETE", "/containers/{id}", containers.remove),
    Row("HEAD", "/containers/{id}/archive", files.stat),
    _read("/containers/{id}/archive", files.read),
    _change("PUT", "/containers/{id}/archive", files.write, BodyKind.STREAM),
    _change("POST", "/containers/prune", usage.prune_containers),
    _change("POST", "/containers/{id}/exec", execs.create, BodyKind.JSON),
    _change("POST", "/exec/{id}/start", execs.start, BodyKind.JSON),
    Row("POST", "/exec/{id}/resize", execs.resize),
    _read("/exec/{id}/json", execs.inspect),
)
_IMAGES: Final = (
    _read("/images/json", images.list_all),
    _change("POST", "/images/create", images.create, BodyKind.STREAM),
    _read("/images/search", registry.search),
    _change("POST", "/images/prune", archives.prune),
    _read("/images/get", archives.save_many),
    _change("POST", "/images/load", archives.load, BodyKind.STREAM),
    _read("/images/{name}/json", images.inspect),
    _read("/images/{name}/history", images.show_history),
    _change("POST", "/images/{name}/push", registry.push),
    _change("POST", "/images/{name}/tag", images.tag),
    _read("/images/{name}/get", archives.save_one),
    _change("DELETE", "/images/{name}", images.remove),
    _change("POST", "/build", build.build, BodyKind.STREAM),
    _change("POST", "/build/prune", build.prune),
)
_VOLUMES_AND_NETWORKS: Final = (
    _read("/volumes", volumes.list_all),
    _change("POST", "/volumes/create", volumes.create, BodyKind.JSON),
    _read("/volumes/{name}", volumes.inspect),
    _swarm("PUT", "/volumes/{name}"),
    _change("DELETE", "/volumes/{name}", volumes.remove),
    _change("POST", "/volumes/prune", usage.prune_volumes),
    _read("/networks", networks.list_all),
    _read("/networks/{id}", networks.inspect),
    _change("DELETE", "/networks/{id}", networks.remove),
    _change("POST", "/networks/create", networks.create, BodyKind.JSON),
    _change("POST", "/networks/{id}/connect", networks.connect, BodyKind.JSON),
    _change("POST", "/networks/{id}/disconnect", networks.disconnect, BodyKind.JSON),
    _change("POST", "/networks/prune", networks.prune),
)
_PLUGINS: Final = (
    _read("/plugins", system.no_plugins, inline=True),
    _read("/plugins/{name}/json", system.no_such_plugin, inline=True),
    *(
        Row(method, template, no_plugins, Service.SWARM, inline=True)
        for method, template in (
            ("GET", "/plugins/privileges"),
            ("POST", "/plugins/pull"),
            ("POST", "/plugins/create"),
            ("DELETE", "/plugins/{name}"),
            ("POST", "/plugins/{name}/enable"),
            ("POST", "/plugins/{name}/disable"),
            ("POST", "/plugins/{name}/upgrade"),
            ("POST", "/plugins/{name}/push"),
            ("POST", "/plugins/{name}/set"),
        )
    ),
)
_SWARM: Final = (
    _swarm("POST", "/swarm/init"),
    _swarm("POST", "/swarm/join"),
    Row("POST", "/swarm/leave", not_in_swarm, Service.SWARM, inline=True),
    *(
        _swarm(method, template)
        for method, template in (
            ("GET", "/swarm"),
            ("POST", "/swarm/update"),
            ("GET", "/swarm/unlockkey"),
            ("POST", "/swarm/unlock"),
            ("GET", "/nodes"),
            ("GET", "/nodes/{id}"),
            ("DELETE", "/nodes/{id}"),
            ("POST", "/nodes/{id}/update"),
            ("GET", "/services"),
            ("POST", "/services/create"),
            ("GET", "/services/{id}"),
            ("DELETE", "/services/{id}"),
            ("POST", "/services/{id}/update"),
            ("GET", "/services/{id}/logs"),
            ("GET", "/tasks"),
            ("GET", "/tasks/{id}"),
            ("GET", "/tasks/{id}/logs"),
            ("GET", "/secrets"),
            ("POST", "/secrets/create"),
            ("GET", "/secrets/{id}"),
            ("DELETE", "/secrets/{id}"),
            ("POST", "/secrets/{id}/update"),
            ("GET", "/configs"),
            ("POST", "/configs/create"),
            ("GET", "/configs/{id}"),
            ("DELETE", "/configs/{id}"),
            ("POST", "/configs/{id}/update"),
        )
    ),
)

# Of Docker Engine, though not of the specification.
_CHECKPOINTS: Final = tuple(
    Row(method, template, no_checkpoints, Service.SWARM, inline=True)
    for method, template in (
        ("GET", "/containers/{id}/checkpoints"),
        ("POST", "/containers/{id}/checkpoints"),
        ("DELETE", "/containers/{id}/checkpoints/{checkpoint}"),
    )
)
ROUTES: Final[tuple[Row, ...]] = (
    *_SYSTEM,
    *_CONTAINERS,
    *_IMAGES,
    *_VOLUMES_AND_NETWORKS,
    *_PLUGINS,
    *_SWARM,
    *_CHECKPOINTS,
)


@frozen(slots=True)
class Match:
    row: Row
    params: Mapping[str, str]


_VARIABLE: Final = re.compile(r"\{(id|name)\}")
_NO_PARAMS: Final[Mapping[str, str]] = MappingProxyType({})


@cache
def _expression(template: str) -> re.Pattern[str]:
    """Made when a path may match it: all of them take the start 5 ms."""
    parts = _VARIABLE.split(template)
    return re.compile(
        "".join(
            (re.escape(part) if index % 2 == 0 else _variable(part))
            for index, part in enumerate(parts)
        )
    )


def _variable(name: str) -> str:
    # Image names hold slashes; everything else named is one segment.
    return f"(?P<{name}>.+)" if name == "name" else f"(?P<{name}>[^/]+)"


class Router:
    """Finds the row of a request: literal paths by one look-up, the others by first segment."""

    def __init__(self, rows: Iterable[Row] = ROUTES) -> None:
        self._literal: dict[tuple[str, str], Match] = {}
        self._patterns: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if "{" in row.template:
                key = (row.method, _family(row.template))
                self._patterns.setdefault(key, []).append(row)
            else:
                self._literal[row.method, row.template] = Match(row, _NO_PARAMS)

    def find(self, method: str, path: str, version: Version) -> Match:
        """Raises EngineError (NOT_FOUND "page not found") for unknown paths and wrong methods."""
        match = self._literal.get((method, path)) or self._by_pattern(method, path)
        if match is None or version < match.row.minimum:
            raise page_not_found()
        return match

    def _by_pattern(self, method: str, path: str) -> Match | None:
        for row in self._patterns.get((method, _family(path)), ()):
            found = _expression(row.template).fullmatch(path)
            if found is not None:
                return Match(row, found.groupdict())
        return None


def _family(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""
