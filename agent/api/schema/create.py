"""The body of POST /containers/create, whole."""

from __future__ import annotations

import re
from typing import Final, cast

from agent.api.backend import CreateRequest
from agent.api.schema.config import CONTAINER_CONFIG, container_config
from agent.api.schema.fields import (
    Document,
    Field,
    Table,
    anything,
    map_of,
    not_served,
    refuse_unless_zero,
    unserved,
)
from agent.api.schema.host import HOST_CONFIG, host_config
from agent.engine.model import HostConfig
from agent.errors import invalid
from agent.wire.http import printable

_NAME: Final = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")

# Observed fields (Gateway, IPAddress, ...) are ignored in a request, as Docker Engine does.
ENDPOINT: Final = Table(
    "EndpointSettings",
    (
        unserved("IPAMConfig"),
        unserved("Links"),
        unserved("MacAddress"),
        Field("Aliases", anything),
        unserved("DriverOpts"),
        unserved("GwPriority"),
        Field("NetworkID", anything),
        Field("EndpointID", anything),
        Field("Gateway", anything),
        Field("IPAddress", anything),
        Field("IPPrefixLen", anything),
        Field("IPv6Gateway", anything),
        Field("GlobalIPv6Address", anything),
        Field("GlobalIPv6PrefixLen", anything),
        Field("DNSNames", anything),
    ),
)
NETWORKING_CONFIG: Final = Table(
    "NetworkingConfig", (Field("EndpointsConfig", map_of(anything), "endpoints"),)
)
WRAPPER: Final = Table(
    "ContainerCreateRequest",
    (Field("HostConfig", anything), Field("NetworkingConfig", anything)),
)


def valid_name(name: str) -> str:
    """A container name without its optional leading slash.  INVALID with docker's text."""
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise invalid(
            f"Invalid container name ({printable(name)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return name.removeprefix("/")


def create_request(document: object, name: str, platform: str) -> CreateRequest:
    """Decodes and checks everything before anything is done.

    Raises EngineError: INVALID, NOT_IMPLEMENTED (names the field that is not served).
    """
    if document is None:
        raise invalid("invalid JSON: got EOF while reading request body")
    given = CONTAINER_CONFIG.canonical(document)
    parts = WRAPPER.canonical(document)
    config = container_config(given)
    given_host = HOST_CONFIG.canonical(parts.get("HostConfig", {}))
    host = host_config(given_host)
    _check_networking(parts.get("NetworkingConfig", {}), host)
    return CreateRequest(
        name=valid_name(name) if name else "",
        config=config,
        host_config=host,
        platform=platform,
        given_config=given,
        given_host_config=given_host,
    )


def _check_networking(value: object, host: HostConfig) -> None:
    """Only the default endpoint of the network that HostConfig.NetworkMode names is served."""
    decoded = NETWORKING_CONFIG.decode(value)
    endpoints = cast("Document", decoded.get("endpoints", {}))
    mode = "bridge" if host.network_mode == "default" else host.network_mode
    for name, settings in endpoints.items():
        where = f"NetworkingConfig.EndpointsConfig.{name}"
        if name not in {mode, "default"}:
            raise not_served(where)
        if settings is None:
            continue
        ENDPOINT.decode(settings, where)
        aliases: Document = ENDPOINT.canonical(settings, where)
        refuse_unless_zero(aliases.get("Aliases"), f"{where}.Aliases")
