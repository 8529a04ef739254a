"""Contents of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, pure.

What a user gave is checked at create (`validate`, case 113): no name may bring a second line.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

from agent.engine.model import ContainerConfig, HostConfig
from agent.errors import invalid
from agent.values import frozen

HOST_GATEWAY: Final = "host-gateway"
EMBEDDED: Final = "127.0.0.11"
# What docker gives a container whose host has only a loopback resolver.
FALLBACK_NAMESERVERS: Final = ("8.8.8.8", "8.8.4.4")
_LABELS: Final = r"[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?"
_HOSTNAME: Final = re.compile(rf"{_LABELS}(\.{_LABELS})*\.?", re.ASCII)
_WORD: Final = re.compile(r"[\x21\x22\x24-\x3a\x3c-\x7e]+")  # visible ASCII without # and ;
_FIXED: Final = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


@frozen
class Resolver:
    """The parts of a resolv.conf."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def validate(config: ContainerConfig, host: HostConfig) -> None:
    """Raises INVALID for any name, address or option that can't be written as one word."""
    if config.hostname and not is_hostname(config.hostname):
        raise invalid(f"invalid hostname format: {config.hostname!r}")
    if config.domainname and not is_hostname(config.domainname):
        raise invalid(f"invalid domainname format: {config.domainname!r}")
    for entry in host.extra_hosts:
        split_extra_host(entry)
    for server in host.dns:
        if not _is_address(server):
            raise invalid(f"bad format for DNS address {server!r}: not an IP address")
    for word in (*host.dns_search, *host.dns_options):
        if not _WORD.fullmatch(word) or len(word) > 255:
            raise invalid(f"bad format for DNS search or option: {word!r}")


def is_hostname(name: str) -> bool:
    return len(name) <= 253 and _HOSTNAME.fullmatch(name) is not None


def split_extra_host(entry: str) -> tuple[str, str]:
    """ "name:address", "name=address" -> (name, address or "host-gateway").  Raises INVALID."""
    # The first separator counts: an IPv6 address has colons of its own.
    found = re.fullmatch(r"([^:=]+)[:=](.+)", entry)
    if found is None or not is_hostname(found[1]):
        raise invalid(f"bad format for add-host: {entry!r}")
    address = found[2]
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != HOST_GATEWAY and not _is_address(address):
        raise invalid(f"invalid IP address in add-host: {found[2]!r}")
    return found[1], address


def hosts(
    extra_hosts: Iterable[str], *, gateway: str, address: str, hostname: str, domainname: str = ""
) -> str:
    """/etc/hosts.  `address` "" = no interface; `gateway` is what "host-gateway" stands for."""
    lines = [_FIXED, *_extra(extra_hosts, gateway)]
    if address:
        lines.append(line(address, hostname, domainname))
    return "".join(lines)


def line(address: str, hostname: str, domainname: str = "") -> str:
    """One address of the container itself."""
    full = f"{hostname}.{domainname} " if domainname else ""
    return f"{address}\t{full}{hostname}\n"


def host_mode_hosts(host_file: str, extra_hosts: Iterable[str], *, gateway: str) -> str:
    """/etc/hosts of a container in the host's network: the host's own, and the extra ones."""
    end = "" if not host_file or host_file.endswith("\n") else "\n"
    return "".join([host_file, end, *_extra(extra_hosts, gateway)])


def _extra(extra_hosts: Iterable[str], gateway: str) -> list[str]:
    lines: list[str] = []
    for entry in extra_hosts:
        name, address = split_extra_host(entry)
        if address == HOST_GATEWAY:
            if not gateway:
                raise invalid(
                    'unable to derive the IP value for host-gateway: set "host-gateway-ip"'
                )
            address = gateway
        lines.append(f"{address}\t{name}\n")
    return lines


def parse_resolver(text: str) -> Resolver:
    """resolv.conf(5): the last `search` or `domain` line counts, options add up."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = re.split(r"[#;]", line, maxsplit=1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_address(words[1]):
            nameservers.append(words[1])
        elif words[0] in {"search", "domain"}:
            search = tuple(words[1:])
        elif words[0] == "options":
            options.extend(words[1:])
    return Resolver(tuple(nameservers), search, tuple(options))


def resolver(own: Resolver, host: HostConfig, *, filtered: bool) -> Resolver:
    """What a container uses.  `filtered`: it can't reach the host's loopback, nor IPv6 servers."""
    nameservers: Sequence[str] = host.dns or own.nameservers
    if filtered and not host.dns:
        nameservers = tuple(one for one in nameservers if _reachable(one)) or FALLBACK_NAMESERVERS
    search = host.dns_search or own.search
    if host.dns_search == (".",):
        search = ()
    return Resolver(tuple(nameservers), search, host.dns_options or own.options)


def resolv_conf(parts: Resolver) -> str:
    lines = [f"nameserver {one}\n" for one in parts.nameservers]
    if parts.search:
        lines.append(f"search {' '.join(parts.search)}\n")
    if parts.options:
        lines.append(f"options {' '.join(parts.options)}\n")
    return "".join(lines)


def embedded_resolv_conf(parts: Resolver) -> str:
    """For a container with the embedded name server: single words are names on its networks."""
    options = parts.options
    if not any(one.startswith("ndots:") for one in options):
        options = (*options, "ndots:0")
    head = "# Made by the container engine; names are served by its embedded name server.\n\n"
    return head + resolv_conf(Resolver((EMBEDDED,), parts.search, options))


def upstream(own: Resolver, host: HostConfig) -> tuple[tuple[str, ...], bool]:
    """(servers that the embedded one asks, they are the host's own loopback ones)."""
    if host.dns:
        return tuple(one for one in host.dns if one != EMBEDDED), False
    servers = own.nameservers
    outside = tuple(one for one in servers if not _loopback(one))
    if outside or not servers:
        return outside or FALLBACK_NAMESERVERS, False
    return servers, True


def _loopback(nameserver: str) -> bool:
    return ipaddress.ip_address(nameserver.partition("%")[0]).is_loopback


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word.partition("%")[0])
    except ValueError:
        return False
    return _WORD.fullmatch(word) is not None


def _reachable(nameserver: str) -> bool:
    address = ipaddress.ip_address(nameserver.partition("%")[0])
    return address.version == 4 and not address.is_loopback
