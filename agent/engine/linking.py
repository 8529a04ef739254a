"""Links on the default bridge (`--link`): another container's address and variables.  Pure but for
the look into the book."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from agent.engine import publishing
from agent.engine.book import Book
from agent.engine.hostsfile import is_hostname
from agent.engine.lifecycle import live
from agent.engine.model import Container, Endpoint, HostConfig
from agent.errors import EngineError, conflict, invalid
from agent.values import frozen

_NOT_LINKED = frozenset({"HOME", "PATH"})


@frozen
class Link:
    """A running container under another name."""

    alias: str
    target: Container
    endpoint: Endpoint


def split(entry: str) -> tuple[str, str]:
    """ "container:alias", "container" -> (container, alias).  Raises INVALID."""
    target, _, alias = entry.partition(":")
    alias = alias.rpartition("/")[2] or target.removeprefix("/")
    if not target or not is_hostname(alias):
        raise invalid(f"bad format for links: {entry}")
    return target.removeprefix("/"), alias


def validate(host: HostConfig, book: Book) -> HostConfig:
    """At create: the links' targets by name.  Raises INVALID."""
    if not host.links:
        return host
    if publishing.mode(host.network_mode) in {"host", "container", "none"}:
        raise invalid(
            "conflicting options: links are only supported on the default bridge and user defined "
            "networks"
        )
    found = []
    for entry in host.links:
        target, alias = split(entry)
        if publishing.mode(host.network_mode) == "bridge":
            target = _target(target, book).name
        found.append(f"{target}:{alias}")
    return dataclasses.replace(host, links=tuple(found))


def _target(name: str, book: Book) -> Container:
    """INVALID: with NOT_FOUND the docker CLI would pull the image and try again (moby 39823)."""
    try:
        return book.find(name)
    except EngineError as error:
        raise invalid(f"could not get container for {name}: {error.message}") from error


def resolve(container: Container, book: Book) -> tuple[Link, ...]:
    """On the default bridge; elsewhere the name server knows the aliases.  Raises CONFLICT for a
    target that does not run there."""
    if publishing.mode(container.host_config.network_mode) != "bridge":
        return ()
    links: list[Link] = []
    for entry in container.host_config.links:
        name, alias = split(entry)
        target = book.find(name)
        endpoint = next((one for one in target.state.endpoints if one.network == "bridge"), None)
        if not live(target.state.phase) or endpoint is None:
            raise conflict(
                f"Cannot link to a non running container: /{target.name} AS "
                f"/{container.name}/{alias}"
            )
        links.append(Link(alias, target, endpoint))
    return tuple(links)


def hosts_lines(links: Iterable[Link]) -> str:
    """alias, hostname and name of each target."""
    lines = []
    for link in links:
        names = dict.fromkeys((link.alias, link.target.config.hostname, link.target.name))
        lines.append(f"{link.endpoint.address}\t{' '.join(one for one in names if one)}\n")
    return "".join(lines)


def environment(container: Container, links: Sequence[Link]) -> tuple[str, ...]:
    """docker's variables: NAME, PORT, PORT_80_TCP*, ENV_*."""
    found: list[str] = []
    for link in links:
        prefix = re.sub(r"[^A-Za-z0-9]", "_", link.alias).upper()
        address = link.endpoint.address
        ports = publishing.exposed(link.target.config.exposed_ports)
        if ports:
            found.append(f"{prefix}_PORT={ports[0][1]}://{address}:{ports[0][0]}")
        for port, protocol in ports:
            name = f"{prefix}_PORT_{port}_{protocol.upper()}"
            found += [
                f"{name}={protocol}://{address}:{port}",
                f"{name}_ADDR={address}",
                f"{name}_PORT={port}",
                f"{name}_PROTO={protocol}",
            ]
        found.append(f"{prefix}_NAME=/{container.name}/{link.alias}")
        found += [
            f"{prefix}_ENV_{entry}"
            for entry in link.target.config.env
            if entry.partition("=")[0] not in _NOT_LINKED
        ]
    return tuple(found)
