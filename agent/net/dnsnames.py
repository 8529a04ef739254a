"""Who has which name on which network: what the embedded name servers answer from."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.engine.model import Endpoint
from agent.net.ipam import Address
from agent.values import frozen

_MOST: Final = 4096  # endpoints' addresses in one answer; a UDP answer holds far fewer


@frozen
class Found:
    """`addresses` of a known name, of the family asked for (maybe none)."""

    addresses: tuple[Address, ...]


@dataclass
class _Network:
    name: str
    by_name: dict[str, dict[str, Endpoint]]  # lower-case name -> endpoint id -> endpoint
    by_address: dict[Address, Endpoint]


class Names:
    """All networks' names.  Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._networks: dict[str, _Network] = {}
        self._endpoints: dict[str, tuple[str, Endpoint]] = {}  # endpoint id -> container, endpoint
        self._outward: set[str] = set()  # ids of endpoints on networks that lead out
        self._of: dict[str, dict[str, Endpoint]] = {}  # container -> endpoint id -> endpoint
        self._turn = 0

    def add(self, container: str, endpoint: Endpoint, *, leads_out: bool = True) -> None:
        """Or replace.  `leads_out`: names of elsewhere may be asked for by way of it."""
        with self._lock:
            self._drop(endpoint.endpoint_id)
            if leads_out:
                self._outward.add(endpoint.endpoint_id)
            self._endpoints[endpoint.endpoint_id] = (container, endpoint)
            self._of.setdefault(container, {})[endpoint.endpoint_id] = endpoint
            network = self._networks.setdefault(
                endpoint.network_id, _Network(endpoint.network, {}, {})
            )
            for name in endpoint.dns_names:
                network.by_name.setdefault(name.lower(), {})[endpoint.endpoint_id] = endpoint
            for address in _addresses(endpoint):
                network.by_address[address] = endpoint

    def rename(self, endpoint: Endpoint) -> None:
        """Nothing for an endpoint that has gone."""
        with self._lock:
            known = self._endpoints.get(endpoint.endpoint_id)
            leads_out = endpoint.endpoint_id in self._outward
        if known is not None:
            self.add(known[0], endpoint, leads_out=leads_out)

    def drop(self, endpoint: Endpoint) -> None:
        """Idempotent."""
        with self._lock:
            self._drop(endpoint.endpoint_id)

    def clear(self) -> None:
        with self._lock:
            self._networks.clear()
            self._endpoints.clear()
            self._of.clear()
            self._outward.clear()

    def find(self, container: str, name: str, version: int) -> Found | None:
        """What `name` means to that container: a name on one of its networks, alone or followed by
        the network's name, or one of its links.  None = not ours to know."""
        wanted = name.lower().rstrip(".")
        with self._lock:
            for own in self._own(container):
                network = self._networks[own.network_id]
                hits = self._on(network, own, wanted)
                if hits:
                    self._turn += 1
                    return Found(_turned(hits, version, self._turn))
        return None

    def owner(self, container: str, address: Address) -> str | None:
        """The name for PTR: "container.network", if that address is on one of its networks."""
        with self._lock:
            for own in self._own(container):
                hit = self._networks[own.network_id].by_address.get(address)
                if hit is not None and hit.dns_names:
                    return f"{hit.dns_names[0]}.{hit.network}"
        return None

    def leads_out(self, container: str) -> bool:
        """Whether it is on a network that is not internal (case 108)."""
        with self._lock:
            return not self._outward.isdisjoint(self._of.get(container, {}))

    def _own(self, container: str) -> list[Endpoint]:
        found = self._of.get(container, {}).values()
        return sorted(found, key=lambda one: (not one.way_out, -one.gw_priority, one.network))

    def _on(self, network: _Network, own: Endpoint, wanted: str) -> list[Endpoint]:
        hits = network.by_name.get(wanted)
        if not hits:
            hits = network.by_name.get(wanted.removesuffix(f".{network.name.lower()}"))
        if not hits:
            for link in own.links:
                target, _, alias = link.partition(":")
                if (alias or target).lower() == wanted:
                    hits = network.by_name.get(target.lower())
        return list(hits.values()) if hits else []

    def _drop(self, endpoint_id: str) -> None:
        self._outward.discard(endpoint_id)
        container, endpoint = self._endpoints.pop(endpoint_id, ("", None))
        if endpoint is None:
            return
        mine = self._of.get(container, {})
        mine.pop(endpoint_id, None)
        if not mine:
            self._of.pop(container, None)
        network = self._networks[endpoint.network_id]
        for name in endpoint.dns_names:
            holders = network.by_name.get(name.lower(), {})
            holders.pop(endpoint_id, None)
            if not holders:
                network.by_name.pop(name.lower(), None)
        for address in _addresses(endpoint):
            if network.by_address.get(address) is endpoint:
                del network.by_address[address]
        if not network.by_address and not network.by_name:
            del self._networks[endpoint.network_id]


def _addresses(endpoint: Endpoint) -> list[Address]:
    return [ip_address(one) for one in (endpoint.address, endpoint.address6) if one]


def _turned(hits: list[Endpoint], version: int, turn: int) -> tuple[Address, ...]:
    """Each answer begins with another one: clients that take the first share the work out."""
    texts = [one.address if version == 4 else one.address6 for one in hits]
    found = [ip_address(text) for text in texts if text][:_MOST]
    start = turn % len(found) if found else 0
    return tuple(found[start:] + found[:start])
