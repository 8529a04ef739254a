"""Which ports a container publishes, and on which network it is; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.engine.model import ContainerConfig, HostConfig, PortBinding
from agent.errors import invalid

BRIDGE_MODES: Final = frozenset({"", "default", "bridge"})


def mode(network_mode: str) -> str:
    """ "bridge" (the default one), "host", "none", "container" or "custom" (a network's name or id)."""
    if network_mode in BRIDGE_MODES:
        return "bridge"
    if network_mode in {"host", "none"}:
        return network_mode
    if network_mode.startswith("container:"):
        if not network_mode.partition(":")[2]:
            raise invalid("invalid container format container:<name|id>")
        return "container"
    return "custom"


def shared_with(network_mode: str) -> str:
    """The other container's reference of "container:x"."""
    return network_mode.partition(":")[2]


def validate(config: ContainerConfig, host: HostConfig) -> tuple[str, ...]:
    """Raises INVALID with docker's texts for what the network mode rules out; returns warnings."""
    kind = mode(host.network_mode)
    if kind == "container":
        _validate_shared(config, host)
    published = host.port_bindings or host.publish_all_ports
    if kind == "host" and published:
        return ("Published ports are discarded when using host network mode",)
    return ()


def _validate_shared(config: ContainerConfig, host: HostConfig) -> None:
    if config.hostname:
        raise invalid("conflicting options: hostname and the network mode")
    if host.dns or host.dns_search or host.dns_options:
        raise invalid("conflicting options: dns and the network mode")
    if host.extra_hosts:
        raise invalid("conflicting options: custom host-to-IP mapping and the network mode")
    if host.port_bindings or host.publish_all_ports:
        raise invalid("conflicting options: port publishing and the container type network mode")
    if config.exposed_ports:
        raise invalid("conflicting options: port exposing and the container type network mode")


def bindings(config: ContainerConfig, host: HostConfig) -> tuple[PortBinding, ...]:
    """What to bind: the asked ones and, for --publish-all, every other exposed port."""
    asked = host.port_bindings
    if not host.publish_all_ports:
        return asked
    taken = {(one.container_port, one.protocol) for one in asked}
    return asked + tuple(
        PortBinding(container_port=port, protocol=protocol)
        for port, protocol in exposed(config.exposed_ports)
        if (port, protocol) not in taken
    )


def exposed(ports: Iterable[str]) -> list[tuple[int, str]]:
    """ "80/tcp", "8000-8010/udp" -> (port, protocol); what is not one is left out (an image's
    ExposedPorts are hostile text and steer nothing else)."""
    found: set[tuple[int, str]] = set()
    for word in ports:
        numbers, _, protocol = word.partition("/")
        low, _, high = numbers.partition("-")
        if (
            not _port(low)
            or (high and not _port(high))
            or protocol not in {"", "tcp", "udp", "sctp"}
        ):
            continue
        found.update((port, protocol or "tcp") for port in range(int(low), int(high or low) + 1))
    return sorted(found)


def _port(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 5 and 0 < int(word) <= 65535
