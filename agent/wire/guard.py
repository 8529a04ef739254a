"""What no container client sends but a browser, or a page through DNS rebinding, would (C17)."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from agent.errors import EngineError, forbidden
from agent.wire.http import Client, Headers, Transport

_BROWSER_HEADERS: Final = (
    "origin",
    "sec-fetch-site",
    "sec-fetch-mode",
    "access-control-request-method",
    "access-control-request-headers",
)
ANY_HOST: Final = "*"

# Over a unix socket the host means nothing, and clients send whatever they like: nothing,
# "docker", "localhost", the API version (curl http://v1.43/...), the escaped socket path. A page's
# own name, which is what DNS rebinding sends, has a dot in it. So has docker.example.com, which the
# docker client sends over ssh: nobody can have that name.
_UNIX_HOST: Final = re.compile(
    r"[a-z0-9_-]+|v[0-9]+\.[0-9]+|([a-z0-9_-]+\.)+localhost|%2f.*|/.*|docker\.example\.com"
)
_PORT: Final = re.compile(r":[0-9]{0,5}$")


def refusal(headers: Headers, client: Client, hosts: frozenset[str]) -> EngineError | None:
    """The error (FORBIDDEN) to answer with, None = the request may go on.

    `hosts`: the names a TLS client may use in lower case; `*` = any.
    """
    for name in _BROWSER_HEADERS:
        if name in headers:
            return forbidden(f"requests from browsers are refused (header {name})")
    if not host_allowed(headers.get("host"), client.transport, hosts):
        return forbidden("request for another host (Host header not allowed)")
    return None


def host_allowed(host: str, transport: Transport, hosts: frozenset[str]) -> bool:
    """No name at all (HTTP/1.0) and any address are allowed: neither can be a rebound page's."""
    name = host.strip().lower()
    if not name.startswith("["):
        name = _PORT.sub("", name)
    if not name or name in hosts or ANY_HOST in hosts:
        return True
    if transport is Transport.UNIX and _UNIX_HOST.fullmatch(name):
        return True
    return _is_address(name)


def _is_address(name: str) -> bool:
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
