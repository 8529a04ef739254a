"""The operator's word for the default bridge's address.  Pure."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Interface, NetmaskValueError

from agent.errors import invalid


def parse_bip(text: str) -> IPv4Interface:
    """ "172.17.0.1/16": a host address with its prefix.  Raises INVALID."""
    try:
        gateway = IPv4Interface(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise invalid(f"invalid bip (want ADDRESS/PREFIX): {text}") from None
    network = gateway.network
    edges = (network.network_address, network.broadcast_address)
    if not 8 <= network.prefixlen <= 30 or gateway.ip in edges or not gateway.ip.is_private:
        raise invalid(f"invalid bip (want a private host address and a prefix of 8-30): {text}")
    return gateway
