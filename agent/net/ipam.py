"""Addresses of one subnet: who has which, and which is next.  Pure.

Order is docker's: the lowest free address.  A container that is restarted, or recreated by
Compose, thus mostly keeps its address, on which proxies rely that look up their upstreams once.
Peers' ARP caches stay right, because MAC addresses are made from addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from agent.errors import EngineError, Kind

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network

# moby's default address pools for bridges, in its order.
DEFAULT_POOLS: tuple[IPv4Network, ...] = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *(IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)),
)
# A route this wide with a gateway (a VPN's 0.0.0.0/1) says "everything", not "this is in use".
_WIDEST_ROUTE = 8


class AddressPool:
    """The host addresses of a subnet.  Not thread-safe: its owner holds a lock.

    Network, broadcast and gateway addresses are never given, nor what is `reserved`.  `within` is
    the part of the subnet that addresses are chosen from; a claimed one may lie outside of it.
    """

    def __init__(
        self,
        subnet: Subnet,
        gateway: Address | None,
        *,
        within: Subnet | None = None,
        reserved: Iterable[Address] = (),
    ) -> None:
        if gateway is not None and gateway not in subnet:
            raise ValueError(f"gateway {gateway} is not in {subnet}")
        self.subnet = subnet
        self.gateway = gateway
        self._lowest, self._highest = _hosts(subnet)
        part = within or subnet
        self._first = max(self._lowest, int(part.network_address))
        self._count = max(min(self._highest, int(part.broadcast_address)) - self._first + 1, 0)
        self._kept = frozenset(int(one) for one in reserved)
        if gateway is not None:
            self._kept |= {int(gateway)}
        self._taken: dict[int, str] = {}
        self._free_from = self._first  # nothing below is free

    def take(self, owner: str) -> Address:
        """The lowest free address.  Raises INTERNAL, docker's text, when all are taken."""
        for candidate in range(self._free_from, self._first + self._count):
            if candidate not in self._kept and candidate not in self._taken:
                self._taken[candidate] = owner
                self._free_from = candidate + 1
                return self._address(candidate)
        raise EngineError(
            Kind.INTERNAL,
            f"no available IPv{self.subnet.version} addresses on this network's address pools: "
            f"{self.subnet}",
        )

    def claim(self, address: Address, owner: str) -> bool:
        """Take this very address (a survivor's).  False when it is someone else's or not ours."""
        number = int(address)
        inside = address.version == self.subnet.version and number not in self._kept
        inside = inside and self._lowest <= number <= self._highest
        if not inside or self._taken.get(number, owner) != owner:
            return False
        self._taken[number] = owner
        return True

    def give_back(self, address: Address, owner: str) -> None:
        """Idempotent; an address that has another owner by now stays with it."""
        if self._taken.get(int(address)) == owner:
            del self._taken[int(address)]
            self._free_from = max(self._first, min(self._free_from, int(address)))

    def owner(self, address: Address) -> str | None:
        return self._taken.get(int(address))

    def taken(self) -> frozenset[Address]:
        return frozenset(self._address(number) for number in self._taken)

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)


def _hosts(subnet: Subnet) -> tuple[int, int]:
    """First and last address that a host may have; IPv6 has no broadcast address."""
    last = int(subnet.broadcast_address) - (subnet.version == 4)
    return int(subnet.network_address) + 1, last


def conflicting(subnet: Subnet, routes: Iterable[tuple[Subnet, bool]]) -> Subnet | None:
    """The first route that `subnet` would shadow or be shadowed by.

    `routes` are (destination, has a gateway).  Default routes and very wide gateway routes do not
    count: every subnet lies in them.
    """
    for destination, has_gateway in routes:
        if destination.prefixlen == 0 or (has_gateway and destination.prefixlen < _WIDEST_ROUTE):
            continue
        if overlapping(destination, subnet):
            return destination
    return None


def overlapping(one: Subnet, other: Subnet) -> bool:
    """Whether they share an address; subnets of two families never do."""
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def choose_subnet6(seed: str, taken: Iterable[Subnet]) -> IPv6Network:
    """The first free /64 of this host's own unique local /48 (RFC 4193), made from `seed`."""
    known = [one for one in taken if one.version == 6]
    digest = hashlib.sha256(seed.encode()).digest()[:5]
    base = int.from_bytes(b"\xfd" + digest, "big") << 80
    for number in range(1 << 16):
        subnet = IPv6Network((base | number << 64, 64))
        if not any(overlapping(subnet, one) for one in known):
            return subnet
    raise EngineError(Kind.CONFLICT, "could not find an available IPv6 address pool")


def choose_subnet(
    routes: Iterable[tuple[Subnet, bool]],
    pools: Iterable[IPv4Network] = DEFAULT_POOLS,
) -> IPv4Network:
    """The first pool that no host route overlaps.  Raises CONFLICT, docker's text."""
    known = list(routes)
    for pool in pools:
        if conflicting(pool, known) is None:
            return pool
    raise EngineError(
        Kind.CONFLICT,
        "could not find an available, non-overlapping IPv4 address pool among the defaults "
        "to assign to the network",
    )
