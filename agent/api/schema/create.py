"""The body of POST /containers/create, whole."""

from __future__ import annotations

import re
from typing import Final

from agent.api.backend import CreateRequest
from agent.api.schema.config import CONTAINER_CONFIG, container_config
from agent.api.schema.fields import Field, Table, anything
from agent.api.schema.host import HOST_CONFIG, host_config
from agent.api.schema.networks import networks_of_create
from agent.errors import invalid
from agent.wire.http import printable

_NAME: Final = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")

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

    Raises EngineError: INVALID (names the field that is not served).
    """
    if document is None:
        raise invalid("invalid JSON: got EOF while reading request body")
    given = CONTAINER_CONFIG.canonical(document)
    parts = WRAPPER.canonical(document)
    config = container_config(given)
    given_host = HOST_CONFIG.canonical(parts.get("HostConfig", {}))
    host = host_config(given_host)
    networks = networks_of_create(
        parts.get("NetworkingConfig", {}), host, str(given.get("MacAddress", ""))
    )
    return CreateRequest(
        name=valid_name(name) if name else "",
        config=config,
        host_config=host,
        platform=platform,
        given_config=given,
        given_host_config=given_host,
        networks=networks,
    )
