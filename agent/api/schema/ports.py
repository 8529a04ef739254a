"""Port numbers as the API writes them: "80/tcp" keys, host ranges, host addresses."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from agent.api.schema.fields import Field, Table, text, wrong_type
from agent.engine.model import PortBinding
from agent.errors import invalid
from agent.wire.http import printable

_NUMBER: Final = re.compile(r"[0-9]{1,5}")
MAX_PORT: Final = 65535

BINDING: Final = Table(
    "PortBinding",
    (Field("HostIp", text, "host_ip"), Field("HostPort", text, "host_port")),
)


def port_number(word: str, whole: str) -> int:
    if not _NUMBER.fullmatch(word) or int(word) > MAX_PORT:
        raise invalid(f'invalid port specification: "{printable(whole)}"')
    return int(word)


def port_key(key: str) -> tuple[int, int, str]:
    """ "80/tcp", "80", "8000-8010/udp" -> (first, last, protocol).  INVALID for anything else."""
    ports, _, protocol = key.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in {"tcp", "udp", "sctp"}:
        raise invalid(f"invalid proto: {printable(protocol)}")
    low, dash, high = ports.partition("-")
    first = port_number(low, key)
    last = port_number(high, key) if dash else first
    if last < first or first == 0:
        raise invalid(f'invalid port specification: "{printable(key)}"')
    return first, last, protocol


def exposed(key: str) -> str:
    """One key of ExposedPorts, in its canonical spelling ("80" -> "80/tcp")."""
    first, last, protocol = port_key(key)
    return f"{first}/{protocol}" if first == last else f"{first}-{last}/{protocol}"


def bindings(value: object, where: str) -> tuple[PortBinding, ...]:
    """HostConfig.PortBindings.  A null or empty list of a port publishes nothing, as in docker."""
    if not isinstance(value, dict):
        raise wrong_type(value, where, "nat.PortMap")
    found: list[PortBinding] = []
    for key, entries in value.items():
        first, last, protocol = port_key(key)
        if first != last:
            raise invalid(f'invalid port specification: "{printable(key)}"')
        if entries is not None and not isinstance(entries, list):
            raise wrong_type(entries, where, "[]nat.PortBinding")
        found.extend(_binding(one, first, protocol, where) for one in entries or ())
    return tuple(found)


def _binding(value: object, port: int, protocol: str, where: str) -> PortBinding:
    decoded = BINDING.decode({} if value is None else value, where)
    host_ip, host_port = str(decoded.get("host_ip", "")), str(decoded.get("host_port", ""))
    if host_ip:
        try:
            ipaddress.ip_address(host_ip)
        except ValueError as error:
            raise invalid(f"invalid IP address: {printable(host_ip)}") from error
    if host_port:
        low, dash, high = host_port.partition("-")
        first = port_number(low, host_port)
        if dash and port_number(high, host_port) < first:
            raise invalid(f'invalid port specification: "{printable(host_port)}"')
    return PortBinding(port, protocol, host_ip, host_port)
