"""The networks' use cases (`agent.api.backend.Networking`)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from agent.engine import publishing
from agent.engine.core import Core, with_state
from agent.engine.joining import NOWHERE, Joining, named, own_lines, wanted, with_names
from agent.engine.lifecycle import live
from agent.engine.model import Container, Endpoint, EndpointRequest, NetworkSpec, Phase
from agent.engine.ports import NetworkInfo
from agent.errors import EngineError, Kind, conflict, forbidden, invalid, not_found

_log = logging.getLogger(__name__)


class NetworksUse:
    """References are names, ids or unique id prefixes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._joining = Joining(core)

    def get(self, reference: str) -> NetworkInfo:
        """Raises NOT_FOUND, INVALID for an ambiguous prefix."""
        return find(self._core.ports.network.networks(), reference)

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        made = self._core.ports.network.create(spec)
        self._event("create", made)
        return made

    def remove(self, reference: str) -> None:
        """FORBIDDEN for predefined networks and for those with running containers."""
        self._remove(self.get(reference))

    def prune(self, matches: Callable[[NetworkInfo], bool]) -> list[str]:
        """Removes those that nobody is on; their names."""
        gone: list[str] = []
        for one in self._core.ports.network.networks():
            if one.builtin or not matches(one) or self._active(one):
                continue
            try:
                self._remove(one)
            except EngineError as error:  # used meanwhile, or gone
                _log.info("network %s was not pruned: %s", one.name, error.message)
                continue
            gone.append(one.name)
        self._core.bus.publish("network", "prune", "", {"reclaimed": "0"})
        return gone

    def connect(self, reference: str, container: str, request: EndpointRequest) -> None:
        """`request.network` does not count.  A stopped container is on it from its next start."""
        network = self.get(reference)
        request = dataclasses.replace(request, network=network.name)
        with self._core.book.locked(container) as found:
            _check_connect(network, found)
            if live(found.state.phase):
                self._attach(network, found, request)
                return
            if found.state.phase in {Phase.REMOVING, Phase.DEAD}:
                raise conflict(
                    f"container {found.id} is marked for removal and cannot be connected to a "
                    "network"
                )
            self._core.save(_with_request(found, request))

    def disconnect(self, reference: str, container: str, *, force: bool) -> None:
        """`force` also where the network is gone already."""
        try:
            name = self.get(reference).name
        except EngineError as error:
            if not force or error.kind is not Kind.NOT_FOUND:
                raise
            name = reference
        with self._core.book.locked(container) as found:
            if publishing.mode(found.host_config.network_mode) == "host" or name == "host":
                raise forbidden(
                    "container cannot be disconnected from host network or connected to host network"
                )
            endpoint = next((one for one in found.state.endpoints if one.network == name), None)
            if not any(one.network == name for one in wanted(found)) and endpoint is None:
                raise forbidden(f"container {found.id} is not connected to network {name}")
            if live(found.state.phase) and endpoint is not None:
                self._detach(found, endpoint)
                return
            self._core.save(_without_request(found, name))

    def renamed(self, container: Container) -> None:
        """With the lock held: its new name goes to the name servers.  The container as it is then."""
        network = self._core.ports.network
        requests = {one.network: one for one in wanted(container)}
        endpoints: list[Endpoint] = []
        for before in container.state.endpoints:
            request, after = requests.get(before.network), before
            if before.dns_names and request is not None:
                fresh = with_names(request, container, ()).dns_names
                after = dataclasses.replace(before, dns_names=fresh)
                network.rename(after)
            endpoints.append(after)
        if tuple(endpoints) != container.state.endpoints:
            state = dataclasses.replace(container.state, endpoints=tuple(endpoints))
            self._core.save(with_state(container, state))

    # ----------------------------------------------------------------------------------- its parts

    def _attach(self, network: NetworkInfo, container: Container, request: EndpointRequest) -> None:
        core, before = self._core, container.state.endpoints
        if any(one.network_id == network.id for one in before):
            raise forbidden(
                f"endpoint with name {container.name} already exists in network {network.name}"
            )
        builtin = (network.name,) if network.builtin else ()
        asked = with_names(request, container, builtin)
        ports = publishing.bindings(container.config, container.host_config)
        pid = container.state.pid
        after = core.ports.network.attach(container.id, pid, before, asked, ports)
        state = dataclasses.replace(container.state, endpoints=after)
        endpoint = next(one for one in after if one.network_id == network.id)
        try:
            if named(after) and not named(before):
                self._joining.serve_names(container, pid)
                self._joining.resolve_by_names(container)
            core.files.amend_hosts(container.id, add=own_lines(container, [endpoint]))
            core.save(_with_request(with_state(container, state), request))
        except (EngineError, OSError):
            core.ports.network.detach(container.id, pid, after, endpoint, ports)
            raise
        self._event("connect", network, container=container.id)

    def _detach(self, container: Container, endpoint: Endpoint) -> None:
        core = self._core
        ports = publishing.bindings(container.config, container.host_config)
        left = core.ports.network.detach(
            container.id, container.state.pid, container.state.endpoints, endpoint, ports
        )
        addresses = [one for one in (endpoint.address, endpoint.address6) if one]
        core.files.amend_hosts(container.id, without=addresses)
        state = dataclasses.replace(container.state, endpoints=left)
        core.save(_without_request(with_state(container, state), endpoint.network))
        attributes = {
            "container": container.id,
            "name": endpoint.network,
            "type": endpoint.driver,
        }
        core.bus.publish("network", "disconnect", endpoint.network_id, attributes)

    def _remove(self, network: NetworkInfo) -> None:
        if network.builtin:
            raise forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        active = self._active(network)
        if active:
            raise forbidden(
                f"error while removing network: network {network.name} has active endpoints "
                f"({', '.join(active)})"
            )
        self._core.ports.network.remove(network.id)
        self._event("destroy", network)

    def _active(self, network: NetworkInfo) -> list[str]:
        return [
            f'name:"{one.name}" id:"{endpoint.endpoint_id[:12]}"'
            for one in self._core.book.all()
            if live(one.state.phase)
            for endpoint in one.state.endpoints
            if endpoint.network_id == network.id
        ]

    def _event(self, action: str, network: NetworkInfo, **extra: str) -> None:
        attributes = {**extra, "name": network.name, "type": network.driver}
        self._core.bus.publish("network", action, network.id, attributes)


def find(networks: list[NetworkInfo], reference: str) -> NetworkInfo:
    """By id, name or unique id prefix, in this order.  Raises NOT_FOUND, INVALID (ambiguous)."""
    for one in networks:
        if one.id == reference:
            return one
    for one in networks:
        if one.name == reference:
            return one
    matching = [one for one in networks if reference and one.id.startswith(reference)]
    if len(matching) > 1:
        raise invalid(
            f"network {reference!r} is ambiguous ({len(matching)} matches found on ID prefix)"
        )
    if not matching:
        raise not_found(f"network {reference} not found")
    return matching[0]


def settled(container: Container, networks: list[NetworkInfo]) -> Container:
    """At create: networks by their names where they exist; what does not fails at the start.

    Raises INVALID, docker's texts, for what the network mode rules out.
    """
    kind = publishing.mode(container.host_config.network_mode)
    asked = list(container.networks)
    if kind in {"host", "container", "none"}:
        if any(one.network not in {kind, container.host_config.network_mode} for one in asked):
            raise invalid("conflicting options: cannot attach both user-defined and "
                          f"{kind} network-mode networks")  # fmt: skip
        return dataclasses.replace(container, networks=())
    mode = "bridge" if kind == "bridge" else container.host_config.network_mode
    first = _name(mode, networks)
    by_name: dict[str, EndpointRequest] = {first: EndpointRequest(first)}
    for one in asked:
        name = _name("bridge" if one.network == "default" else one.network, networks)
        by_name[name] = dataclasses.replace(one, network=name)
    if kind == "custom" and container.host_config.links:
        links = (*container.host_config.links, *by_name[first].links)
        by_name[first] = dataclasses.replace(by_name[first], links=tuple(dict.fromkeys(links)))
    return dataclasses.replace(container, networks=tuple(by_name.values()))


def _name(reference: str, networks: list[NetworkInfo]) -> str:
    try:
        return find(networks, reference).name
    except EngineError:
        return reference


def _check_connect(network: NetworkInfo, container: Container) -> None:
    kind = publishing.mode(container.host_config.network_mode)
    if kind == "container":
        raise forbidden(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
    if kind == "host" or network.driver == "host":
        raise forbidden(
            "container cannot be disconnected from host network or connected to host network"
        )
    if kind == "none" or network.driver == "null":
        raise forbidden(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )


def _with_request(container: Container, request: EndpointRequest) -> Container:
    others = tuple(one for one in wanted(container) if one.network != request.network)
    return dataclasses.replace(container, networks=(*others, request))


def _without_request(container: Container, name: str) -> Container:
    left = tuple(one for one in wanted(container) if one.network != name)
    return dataclasses.replace(container, networks=left or (EndpointRequest(NOWHERE),))
