"""Which addresses a registry may send us on to (security.md C23).  Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# What clouds tell the hosts that they run: addresses that are not link-local.
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def plain(text: str) -> Address:
    """The address without a zone, IPv4 unwrapped from IPv4-mapped and NAT64 IPv6."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def may_follow(target: Address, registry: Iterable[Address]) -> bool:
    """Whether a redirect or foreign URL may lead to `target`.

    Public addresses always; cloud metadata (link-local or not), unspecified and multicast never; a
    loopback address only when the registry itself is at that very address; a private one only
    when the registry is private (or loopback) too.
    """
    if target.is_link_local or target.is_unspecified or target.is_multicast:
        return False
    if target in _METADATA:
        return False
    own = list(registry)
    if target.is_loopback:
        return target in own
    if target.is_global:
        return True
    return any(not address.is_global for address in own)


def insecure(host: str, port: int, rules: Iterable[str]) -> bool:
    """Whether plain HTTP (or an unverified certificate) is allowed for this registry.

    Loopback names and addresses always; else "host", "host:port" or a CIDR of the list.
    """
    if host == "localhost" or _in_network(host, "127.0.0.0/8") or _in_network(host, "::1/128"):
        return True
    names = {host.lower(), f"{host.lower()}:{port}", f"[{host.lower()}]:{port}"}
    return any(_in_network(host, rule) if "/" in rule else rule.lower() in names for rule in rules)


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
