"""Containers' endpoints: addresses, interfaces, the way out, published ports.

A container's endpoints are ordered by `preference`: the first one is its way out, it has the
default routes and the published ports.  Which one that is may change when a running container is
connected or disconnected.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from agent.engine.model import Endpoint, EndpointRequest, PortBinding, PublishedPort
from agent.errors import EngineError, Kind, internal, invalid, not_found
from agent.net import bridge, cables
from agent.net.behind import Behind
from agent.net.dnsnames import Names
from agent.net.firewall import Firewall
from agent.net.names import checked_interface, checked_mac
from agent.net.nfnetlink import Flow, forget_flows
from agent.net.nftables import NftError
from agent.net.ports import HostPorts, expand
from agent.net.rules import Forwarding
from agent.net.segments import Segment, plug_of

_log = logging.getLogger(__name__)
_UDP = 17
_CABLE_DELAY = 0.2  # seconds; the kernel needs 10-50 ms after the container's last process
_INTERFACE = "com.docker.network.endpoint.ifname"


@dataclass
class Ground:
    """What networks and endpoints share.  `lock` guards segments (their addresses too) and ports."""

    ports: HostPorts
    behind: Behind
    names: Names = field(default_factory=Names)
    lock: threading.Lock = field(default_factory=threading.Lock)
    segments: dict[str, Segment] = field(default_factory=dict)  # by network id
    # Released endpoints that keep their addresses until their cables (link numbers) are gone.
    resting: dict[str, tuple[int, Endpoint]] = field(default_factory=dict)  # by endpoint id
    firewall: Firewall | None = None

    def ready_firewall(self) -> Firewall:
        if self.firewall is None:
            raise EngineError(Kind.UNAVAILABLE, "the network is not set up")
        return self.firewall

    def segment(self, reference: str) -> Segment:
        """With the lock held.  By name, else by id.  NOT_FOUND with docker's text."""
        for one in self.segments.values():
            if one.definition.name == reference:
                return one
        found = self.segments.get(reference)
        if found is None:
            raise not_found(f"network {reference} not found")
        return found


class Endpoints:
    """See agent.engine.ports.Network for what the methods promise."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def reserve(
        self,
        container_id: str,
        ports: Sequence[PortBinding],
        requests: Sequence[EndpointRequest],
    ) -> tuple[Endpoint, ...]:
        ground = self._ground
        ground.ready_firewall()
        self._settle({request.network for request in requests})
        taken: list[Endpoint] = []
        with ground.lock:
            try:
                for request in requests:
                    taken.append(self._take(container_id, request, taken))
                chosen = self._preferred(taken)
                return tuple(
                    self._published(container_id, dataclasses.replace(one, way_out=True), ports)
                    if one is chosen
                    else dataclasses.replace(one, way_out=False)
                    for one in taken
                )
            except EngineError:
                for one in taken:
                    ground.segments[one.network_id].give_back(one)
                raise

    def connect(self, container_id: str, endpoint: Endpoint, pid: int) -> None:
        """On failure neither cable nor rules are left; the reservation is."""
        ground = self._ground
        firewall = ground.ready_firewall()
        with ground.lock:
            segment = ground.segment(endpoint.network_id)
        plug = plug_of(endpoint, on_link=segment.on_link, leads_out=segment.leads_out)
        try:
            segment.wire.plug(endpoint.endpoint_id, pid, plug)
            try:
                firewall.publish(endpoint.endpoint_id, forwardings(endpoint))
            except (NftError, OSError):
                segment.wire.unplug(endpoint.endpoint_id, pid, endpoint.interface)
                raise
        except (OSError, NftError) as error:
            raise internal(
                f"failed to set up container networking: endpoint {container_id[:12]} "
                f"({endpoint.endpoint_id}): {error}"
            ) from error
        ground.names.add(container_id, endpoint, leads_out=segment.leads_out)
        self._forget_udp(endpoint, by_host_port=True)

    def release(self, container_id: str, endpoint: Endpoint) -> None:
        ground = self._ground
        firewall = ground.ready_firewall()
        ground.names.drop(endpoint)
        segment = ground.segments.get(endpoint.network_id)
        try:
            firewall.withdraw(endpoint.endpoint_id)
            cable = segment.wire.cable(endpoint.endpoint_id) if segment else None
        except (OSError, NftError) as error:
            raise internal(
                f"failed to release the network of {container_id[:12]}: {error}"
            ) from error
        with ground.lock:
            ground.ports.release(endpoint.endpoint_id)
        if cable is None:
            self._give_back(endpoint)
        else:
            # The kernel takes the cable away with the container's namespace, many at a time and
            # without us; asked one by one it holds its link lock for 20 ms each.  The address
            # stays taken until the cable is gone.
            with ground.lock:
                ground.resting[endpoint.endpoint_id] = (cable, endpoint)
            ground.behind.later(_CABLE_DELAY, lambda: self._cut(cable, endpoint))
        self._forget_udp(endpoint, by_host_port=False)

    def attach(
        self,
        container_id: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        request: EndpointRequest,
        ports: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        ground = self._ground
        with ground.lock:
            segment = ground.segment(request.network)
            if any(one.network_id == segment.definition.id for one in endpoints):
                raise invalid(f"endpoint already exists in network {segment.definition.name}")
            endpoint = self._take(container_id, request, endpoints)
        endpoint = dataclasses.replace(endpoint, way_out=False)
        try:
            self.connect(container_id, endpoint, pid)
        except EngineError:
            self._give_back(endpoint)
            raise
        everything = [*endpoints, endpoint]
        try:
            return self._steer(container_id, pid, everything, ports)
        except (EngineError, OSError, NftError) as error:
            self._unplug(container_id, pid, endpoint)
            if isinstance(error, EngineError):
                raise
            raise internal(f"failed to set up container networking: {error}") from error

    def detach(
        self,
        container_id: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        endpoint: Endpoint,
        ports: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        self._unplug(container_id, pid, endpoint)
        left = [one for one in endpoints if one.endpoint_id != endpoint.endpoint_id]
        if not left:
            return ()
        try:
            return self._steer(container_id, pid, left, ports)
        except (EngineError, OSError, NftError) as error:
            _log.error("container %s has lost its way out: %s", container_id, error)
            return tuple(left)

    # ----------------------------------------------------------------------------------- its parts

    def _take(
        self, container: str, request: EndpointRequest, others: Iterable[Endpoint]
    ) -> Endpoint:
        """With the lock held.  A full pool may only be waiting for cables to go."""
        ground = self._ground
        segment = ground.segment(request.network)
        _check(segment, request)
        endpoint_id = secrets.token_hex(32)
        try:
            made = segment.take(container, endpoint_id, request)
        except EngineError as error:
            if error.kind is Kind.INVALID:
                raise
            ground.lock.release()
            try:
                ground.behind.flush()
            finally:
                ground.lock.acquire()
            segment = ground.segment(request.network)
            made = segment.take(container, endpoint_id, request)
        try:
            interface = _interface(segment, request, {one.interface for one in others})
        except EngineError:
            segment.give_back(made)
            raise
        return dataclasses.replace(made, interface=interface)

    def _published(
        self, container: str, endpoint: Endpoint, bindings: Sequence[PortBinding]
    ) -> Endpoint:
        """With the lock held: the endpoint with host ports.  Ports of a container whose way out is
        internal, or not through the host, are not published, as docker's."""
        segment = self._ground.segments[endpoint.network_id]
        if not segment.bridged or segment.definition.spec.internal or not bindings:
            return endpoint
        definition = segment.definition
        try:
            wanted = expand(
                bindings,
                four=bool(endpoint.address),
                six=bool(endpoint.address6),
                defaults=(definition.host_binding(4), definition.host_binding(6)),
            )
            ports = self._ground.ports.allocate(endpoint.endpoint_id, wanted)
        except EngineError as error:
            raise EngineError(
                error.kind,
                "driver failed programming external connectivity on endpoint "
                f"{container[:12]} ({endpoint.endpoint_id}): {error.message}"
                if error.kind is Kind.INTERNAL
                else error.message,
            ) from error
        return dataclasses.replace(endpoint, ports=ports)

    def _preferred(self, endpoints: Sequence[Endpoint]) -> Endpoint | None:
        """docker's order: what leads out, gateway priority, name."""
        return min(
            endpoints,
            key=lambda one: (
                not self._ground.segments[one.network_id].leads_out,
                -one.gw_priority,
                one.network,
            ),
            default=None,
        )

    def _steer(
        self,
        container: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        bindings: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        """The preferred endpoint becomes the way out unless it is.  NftError, OSError, EngineError."""
        ground = self._ground
        firewall = ground.ready_firewall()
        known = [one for one in endpoints if one.network_id in ground.segments]
        chosen = self._preferred(known)
        if chosen is None or chosen.way_out:
            return tuple(endpoints)
        before = next((one for one in endpoints if one.way_out), None)
        after = dataclasses.replace(chosen, way_out=True)
        if before is not None:
            firewall.withdraw(before.endpoint_id)
        with ground.lock:
            if before is not None:
                ground.ports.release(before.endpoint_id)
            after = self._published(container, after, _same(bindings, before))
        firewall.publish(after.endpoint_id, forwardings(after))
        segment = ground.segments[after.network_id]
        plug = plug_of(after, on_link=segment.on_link, leads_out=segment.leads_out)
        cables.take_way_out(pid, plug)
        return tuple(
            after if one is chosen else dataclasses.replace(one, way_out=False, ports=())
            for one in endpoints
        )

    def _unplug(self, container_id: str, pid: int, endpoint: Endpoint) -> None:
        """At once, while the container runs on."""
        ground = self._ground
        firewall = ground.ready_firewall()
        ground.names.drop(endpoint)
        segment = ground.segments.get(endpoint.network_id)
        try:
            firewall.withdraw(endpoint.endpoint_id)
            if segment is not None:
                segment.wire.unplug(endpoint.endpoint_id, pid, endpoint.interface)
        except (OSError, NftError) as error:
            raise internal(
                f"failed to disconnect {container_id[:12]} from {endpoint.network}: {error}"
            ) from error
        with ground.lock:
            ground.ports.release(endpoint.endpoint_id)
        self._give_back(endpoint)
        self._forget_udp(endpoint, by_host_port=False)

    def _settle(self, networks: set[str]) -> None:
        """Free at once what waits for its cable on user-defined networks, so that a container that
        is restarted there finds its address free: its peers may have looked it up only once.
        Nobody looks a name up on the default bridge, and its containers start faster so."""
        ground = self._ground
        with ground.lock:
            found = (ground.segments.get(one.network_id) for _, one in ground.resting.values())
            named = {one.definition.id for one in found if one is not None and not one.builtin}
            waiting = [
                (cable, one)
                for cable, one in ground.resting.values()
                if one.network_id in named
                and not networks.isdisjoint({one.network, one.network_id})
            ]
        for cable, endpoint in waiting:
            try:
                self._cut(cable, endpoint)
            except OSError as error:  # the late attempt is still to come
                _log.warning("a cable of network %s was not cut: %s", endpoint.network, error)

    def _cut(self, cable: int, endpoint: Endpoint) -> None:
        bridge.cut(cable)
        self._give_back(endpoint)
        with self._ground.lock:
            self._ground.resting.pop(endpoint.endpoint_id, None)

    def _give_back(self, endpoint: Endpoint) -> None:
        with self._ground.lock:
            segment = self._ground.segments.get(endpoint.network_id)
            if segment is not None:
                segment.give_back(endpoint)

    def _forget_udp(self, endpoint: Endpoint, *, by_host_port: bool) -> None:
        """Behind, since the kernel walks its whole flow table for it (10 ms)."""
        ports = {port.host_port for port in endpoint.ports if port.protocol == "udp"}
        addresses = {ip_address(one) for one in (endpoint.address, endpoint.address6) if one}

        def stale(flow: Flow) -> bool:
            chosen = flow.destination_port in ports if by_host_port else flow.answering in addresses
            return flow.protocol == _UDP and chosen

        if ports:
            self._ground.behind.later(0, lambda: _forget(stale))


def _check(segment: Segment, request: EndpointRequest) -> None:
    """Raises INVALID with docker's texts."""
    spec = segment.definition.spec
    if segment.builtin and (request.aliases or request.links):
        raise invalid(
            "network-scoped alias is supported only for containers in user defined networks"
        )
    if segment.builtin and (request.address or request.address6):
        raise invalid(
            "invalid config for network bridge: invalid endpoint settings:\n"
            "user specified IP address is supported on user defined networks only"
        )
    for text, family in ((request.address, 4), (request.address6, 6)):
        if text and family not in segment.pools:
            raise invalid(
                f"invalid config for network {spec.name}: invalid endpoint settings:\n"
                f"no configured subnet contains IP address {text}"
            )
    try:
        if request.mac:
            checked_mac(request.mac)
    except ValueError as error:
        raise invalid(f"invalid config for network {spec.name}: {error}") from error


def _interface(segment: Segment, request: EndpointRequest, used: set[str]) -> str:
    """The lowest free number, or the name that was asked for.  Raises INVALID."""
    wanted = request.driver_options.get(_INTERFACE, "")
    if wanted:
        try:
            checked_interface(wanted)
        except ValueError as error:
            raise invalid(f"invalid interface name: {error}") from error
        if wanted in {*used, "lo"}:
            raise invalid(f"the interface name {wanted} is in use")
        return wanted
    prefix = segment.definition.interface_prefix()
    return next(name for n in itertools.count() if (name := f"{prefix}{n}") not in used)


def _same(bindings: Sequence[PortBinding], before: Endpoint | None) -> list[PortBinding]:
    """The bindings with the host ports that the former way out had, as far as they were chosen."""
    known: dict[tuple[int, str], list[PublishedPort]] = {}
    for port in before.ports if before else ():
        if ":" not in port.host_ip or not before or not before.address:
            known.setdefault((port.container_port, port.protocol), []).append(port)
    found: list[PortBinding] = []
    for one in bindings:
        ports = known.get((one.container_port, one.protocol))
        chosen = ports.pop(0) if ports else None
        found.append(dataclasses.replace(one, host_port=str(chosen.host_port)) if chosen else one)
    return found


def forwardings(endpoint: Endpoint) -> tuple[Forwarding, ...]:
    """The rules' view of an endpoint's published ports."""
    found: list[Forwarding] = []
    for port in endpoint.ports:
        host = ip_address(port.host_ip)
        address = endpoint.address if host.version == 4 else endpoint.address6
        if address:
            found.append(
                Forwarding(
                    port.protocol, host, port.host_port, ip_address(address), port.container_port
                )
            )
    return tuple(found)


def _forget(stale: Callable[[Flow], bool]) -> None:
    forget_flows(stale)
