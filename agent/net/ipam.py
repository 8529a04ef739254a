"""Addresses of one subnet: who has which, and which is next.  Pure.

Order is docker's: the next free address after the last one given, so that an address rests as
long as possible before someone else has it (peers' ARP caches and half-open connections expire).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from agent.errors import EngineError, Kind

# moby's default address pools for bridges, in its order.
DEFAULT_POOLS: tuple[IPv4Network, ...] = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *(IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)),
)
# A route this wide with a gateway (a VPN's 0.0.0.0/1) says "everything", not "this is in use".
_WIDEST_ROUTE = 8


class AddressPool:
    """The host addresses of a subnet.  Not thread-safe: its owner holds a lock.

    Network, broadcast and gateway addresses are never given.
    """

    def __init__(self, subnet: IPv4Network, gateway: IPv4Address) -> None:
        if gateway not in subnet:
            raise ValueError(f"gateway {gateway} is not in {subnet}")
        self.subnet = subnet
        self.gateway = gateway
        self._first = int(subnet.network_address) + 1
        self._count = max(subnet.num_addresses - 2, 0)
        self._last = int(gateway)
        self._taken: dict[int, str] = {}

    def take(self, owner: str) -> IPv4Address:
        """The next free address.  Raises INTERNAL, docker's text, when all are taken."""
        start = self._last + 1 - self._first
        for step in range(self._count):
            candidate = self._first + (start + step) % self._count
            if candidate != int(self.gateway) and candidate not in self._taken:
                self._taken[candidate] = owner
                self._last = candidate
                return IPv4Address(candidate)
        raise EngineError(
            Kind.INTERNAL,
            f"no available IPv4 addresses on this network's address pools: {self.subnet}",
        )

    def claim(self, address: IPv4Address, owner: str) -> bool:
        """Take this very address (a survivor's).  False when it is someone else's or not ours."""
        number = int(address)
        inside = 0 <= number - self._first < self._count and address != self.gateway
        if not inside or self._taken.get(number, owner) != owner:
            return False
        self._taken[number] = owner
        return True

    def give_back(self, address: IPv4Address, owner: str) -> None:
        """Idempotent; an address that has another owner by now stays with it."""
        if self._taken.get(int(address)) == owner:
            del self._taken[int(address)]

    def owner(self, address: IPv4Address) -> str | None:
        return self._taken.get(int(address))

    def taken(self) -> frozenset[IPv4Address]:
        return frozenset(IPv4Address(number) for number in self._taken)


def conflicting(
    subnet: IPv4Network, routes: Iterable[tuple[IPv4Network, bool]]
) -> IPv4Network | None:
    """The first route that `subnet` would shadow or be shadowed by.

    `routes` are (destination, has a gateway).  Default routes and very wide gateway routes do not
    count: every subnet lies in them.
    """
    for destination, has_gateway in routes:
        if destination.prefixlen == 0 or (has_gateway and destination.prefixlen < _WIDEST_ROUTE):
            continue
        if destination.overlaps(subnet):
            return destination
    return None


def choose_subnet(
    routes: Iterable[tuple[IPv4Network, bool]],
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
