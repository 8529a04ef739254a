"""Networks of this host: `agent.engine.ports.Network` on netlink and nftables.

An endpoint's id owns its address, host ports and rules, and names its cable: a container that is
started again never waits for the kernel to finish with its former cable.
Nothing but record.py's record and shelf.py's definitions outlives the process; all else comes from
`setup`'s argument and the kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface

from agent.engine.model import Endpoint, EndpointRequest, IpamPool, NetworkSpec, PortBinding
from agent.engine.ports import NameServers, NetworkInfo
from agent.errors import EngineError, conflict, forbidden, internal
from agent.net import bridge, definitions, ipam, record, sysctl
from agent.net.behind import Behind
from agent.net.bip import parse_bip
from agent.net.definitions import Definition
from agent.net.dnsserver import NameService
from agent.net.endpoints import Endpoints, Ground, forwardings
from agent.net.firewall import Firewall
from agent.net.ipam import Subnet
from agent.net.names import checked_interface, checked_table
from agent.net.nftables import Nft, NftError, open_nft
from agent.net.ports import ANY, Binder, HostPorts, bind
from agent.net.rules import Plan
from agent.net.segments import BridgeWire, Segment
from agent.net.shelf import Shelf
from agent.net.watcher import Watcher
from agent.values import frozen

_RETIREMENT = 1.0  # seconds; networks that come and go in a row share one end of their bridges
_log = logging.getLogger(__name__)


@frozen
class NetworkSettings:
    """What an operator may choose.

    `root` is the agent's $ROOT.  `bip` is the bridge's address with prefix ("172.17.0.1/16"); ""
    = chosen among docker's pools so that no host route overlaps, and remembered.  `agent_ports`
    are closed to containers (C20).  `block_metadata` closes 169.254.169.254 to them (C36; for
    cloud machines).  `guard_forwarding`: when it is the agent that turns IPv4 forwarding on, the
    host does not become a router between the interfaces that it had before.
    """

    root: str
    bridge: str = "machine0"
    table: str = "machine"
    bip: str = ""
    mtu: int = 1500
    agent_ports: tuple[int, ...] = (2376,)
    block_metadata: bool = False
    guard_forwarding: bool = True


class HostNetworks:
    """All networks of one network namespace: that of the thread that made this object.

    Threads may share it; calls for one container come one at a time (ports.py).
    """

    def __init__(self, settings: NetworkSettings, nft: Nft, binder: Binder = bind) -> None:
        checked_interface(settings.bridge)
        self._settings = settings
        self._folder = os.path.join(settings.root, "network")
        self._record = record.load(self._folder, time.time_ns())
        self._shelf = Shelf(self._folder)
        self._nft = nft
        self._binder = binder
        self._changing = threading.Lock()  # networks come and go one at a time
        self._ground = Ground(HostPorts(binder), Behind())
        self._endpoints = Endpoints(self._ground)
        self._names = NameService(self._ground.names)
        self._watcher: Watcher | None = None

    # ------------------------------------------------------------------------------------ the port

    def setup(self, endpoints: Iterable[tuple[str, Endpoint]]) -> None:
        """See ports.Network.  Raises INVALID or CONFLICT for a subnet that cannot be used."""
        live = list(endpoints)
        self._stop()
        try:
            kept = self._shelf.all()
            gateway = self._choose_gateway([endpoint for _, endpoint in live], kept)
            self._remember(gateway)
            segments = [self._default_segment(gateway)]
            segments += [Segment(one, self._settings.mtu) for one in kept]
            self._ensure(segments)
            self._take_over(segments, live)
            firewall = self._assert(segments, live)
            # Only now: the rules that keep loopback closed (raw_prerouting) are there.
            self._forward(segments, firewall)
            self._adopt(segments, live)
            bridge.cut_retired()  # of an agent that was killed
            self._watcher = Watcher(firewall)
            self._warn(firewall)
        except (OSError, NftError) as error:
            raise internal(f"cannot set up the networks: {error}") from error

    def networks(self) -> list[NetworkInfo]:
        """See ports.Network."""
        ids, created = self._record.ids, self._record.created
        with self._ground.lock:
            segments = list(self._ground.segments.values())
        default = next((one.definition for one in segments if one.builtin), None)
        if default is None:
            default = self._default_definition(self._record.gateway)
        return [
            dataclasses.replace(definitions.info(default), builtin=True),
            NetworkInfo("host", ids["host"], "host", created=created, builtin=True),
            NetworkInfo("none", ids["none"], "null", created=created, builtin=True),
            *(definitions.info(one.definition) for one in segments if not one.builtin),
        ]

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """See ports.Network."""
        definitions.check(spec)
        if spec.driver != "bridge" and not spec.options.get("parent"):
            spec = dataclasses.replace(spec, internal=True)
        with self._changing:
            self._check_free(spec)
            definition = self._define(spec)
            try:
                # First the disk: what there is in the kernel is always found again.
                self._shelf.put(definition)
                try:
                    self._bring_up(Segment(definition, self._settings.mtu))
                except (EngineError, OSError, NftError):
                    self._shelf.drop(definition.id)
                    raise
            except (OSError, NftError) as error:
                raise internal(f"cannot create network {spec.name}: {error}") from error
        return definitions.info(definition)

    def remove(self, network_id: str) -> None:
        """See ports.Network."""
        ground = self._ground
        with self._changing:
            if self._busy(network_id):  # maybe only with cables that are about to go
                ground.behind.flush()
            with ground.lock:
                segment = ground.segment(network_id)
                name = segment.definition.name
                if segment.builtin:
                    raise forbidden(f"{name} is a pre-defined network and cannot be removed")
                if segment.endpoints:
                    raise forbidden(
                        f"error while removing network: network {name} id {network_id} has "
                        "active endpoints"
                    )
                del ground.segments[network_id]
            try:
                self._take_down(segment)
                self._shelf.drop(network_id)
            except (OSError, NftError) as error:
                with ground.lock:
                    ground.segments[network_id] = segment
                raise internal(f"cannot remove network {name}: {error}") from error

    def reserve(
        self,
        container_id: str,
        ports: Sequence[PortBinding],
        requests: Sequence[EndpointRequest] = (EndpointRequest("bridge"),),
    ) -> tuple[Endpoint, ...]:
        """See ports.Network."""
        return self._endpoints.reserve(container_id, ports, requests)

    def connect(self, container_id: str, endpoint: Endpoint, pid: int) -> None:
        """See ports.Network."""
        self._endpoints.connect(container_id, endpoint, pid)

    def release(self, container_id: str, endpoint: Endpoint) -> None:
        """See ports.Network."""
        self._endpoints.release(container_id, endpoint)

    def attach(
        self,
        container_id: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        request: EndpointRequest,
        ports: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        """See ports.Network."""
        return self._endpoints.attach(container_id, pid, endpoints, request, ports)

    def detach(
        self,
        container_id: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        endpoint: Endpoint,
        ports: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        """See ports.Network."""
        return self._endpoints.detach(container_id, pid, endpoints, endpoint, ports)

    def serve_names(self, container_id: str, pid: int, upstream: NameServers) -> None:
        """See ports.Network."""
        try:
            self._names.serve(container_id, pid, upstream)
        except OSError as error:
            raise internal(
                f"cannot start the name server of {container_id[:12]}: {error}"
            ) from error

    def silence_names(self, container_id: str) -> None:
        """See ports.Network."""
        self._names.silence(container_id)

    def rename(self, endpoint: Endpoint) -> None:
        """See ports.Network."""
        self._ground.names.rename(endpoint)

    def close(self) -> None:
        """Threads and sockets end; bridges, cables and rules stay, containers run on."""
        self._stop()
        self._names.close()
        self._ground.behind.close()
        self._nft.close()

    def teardown(self) -> None:
        """For uninstalling: bridges, cables and table go, then as `close`.  Idempotent.

        Forwarding stays on: by now something else may count on it.
        """
        self._stop()
        try:
            gateway = self._record.gateway or IPv4Interface("172.17.0.1/16")
            segments = [self._default_segment(gateway)]
            segments += [Segment(one, self._settings.mtu) for one in self._shelf.all()]
            with contextlib.closing(Firewall(self._nft, self._plan(()))) as firewall:
                firewall.remove()
            for segment in segments:
                if isinstance(segment.wire, BridgeWire):
                    segment.wire.bridge.remove()
                elif (index := segment.wire.retire()) is not None:
                    bridge.cut(index)
        except (OSError, NftError) as error:
            raise internal(f"cannot remove the networks: {error}") from error
        self._names.close()
        self._ground.behind.close()
        self._nft.close()

    # ------------------------------------------------------------------------------ coming up

    def _default_definition(self, gateway: IPv4Interface | None) -> Definition:
        name = self._settings.bridge
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.host_binding_ipv4": str(ANY),
            "com.docker.network.bridge.name": name,
            "com.docker.network.driver.mtu": str(self._settings.mtu),
        }
        pool = IpamPool(str(gateway.network), gateway=str(gateway.ip)) if gateway else None
        spec = NetworkSpec("bridge", pools=(pool,) if pool else (), options=options)
        return Definition(self._record.ids["bridge"], self._record.created, spec)

    def _default_segment(self, gateway: IPv4Interface) -> Segment:
        return Segment(self._default_definition(gateway), self._settings.mtu, builtin=True)

    def _choose_gateway(
        self, live: Sequence[Endpoint], kept: Sequence[Definition]
    ) -> IPv4Interface:
        others: list[tuple[Subnet, bool]] = [
            (subnet, False) for one in kept for subnet in one.subnets()
        ]
        routes = [*self._foreign_routes(kept), *others]
        if self._settings.bip:
            gateway = parse_bip(self._settings.bip)
            taken = ipam.conflicting(gateway.network, routes)
            if taken is not None:
                raise conflict(
                    f"bip {self._settings.bip} overlaps with the host's route to {taken}"
                )
            return gateway
        remembered = self._record.gateway
        if remembered is not None:
            # Running containers cannot move; else the host's routes go first.
            mine = [one.address for one in live if one.network == "bridge" and one.address]
            used = any(IPv4Address(one) in remembered.network for one in mine)
            if used or ipam.conflicting(remembered.network, routes) is None:
                return remembered
        subnet = ipam.choose_subnet(routes)
        return IPv4Interface((subnet.network_address + 1, subnet.prefixlen))

    def _foreign_routes(self, kept: Iterable[Definition]) -> list[tuple[Subnet, bool]]:
        own = [one.bridge for one in kept if one.spec.driver == "bridge"]
        return bridge.foreign_routes([self._settings.bridge, *own])

    def _remember(self, gateway: IPv4Interface) -> None:
        links = self._record.guard_links
        links6 = self._record.guard6_links
        boot = _boot_id()
        if boot != self._record.guard_boot:
            links, links6 = (), ()
        if sysctl.get("ipv4/ip_forward") == "0":  # it will be us who turn it on
            links = self._outer_links()
        self._keep(
            dataclasses.replace(
                self._record,
                guard_boot=boot,
                gateway=gateway,
                guard_links=links,
                guard6_links=links6,
            )
        )

    def _keep(self, changed: record.NetworkRecord) -> None:
        if changed != self._record:
            record.save(self._folder, changed)
            self._record = changed

    def _outer_links(self) -> tuple[int, ...]:
        with self._ground.lock:
            bridges = {one.definition.bridge for one in self._ground.segments.values()}
        names = {"lo", self._settings.bridge, *bridges}
        return tuple(
            link.index
            for link in bridge.host_links()
            if link.name not in names and not link.name.startswith("br-")
        )

    def _plan(self, segments: Iterable[Segment]) -> Plan:
        guard = self._settings.guard_forwarding
        rules = [one.rules() for one in segments if one.bridged]
        return Plan(
            table=checked_table(self._settings.table),
            networks={one.key: one for one in rules},
            agent_ports=self._settings.agent_ports,
            block_metadata=self._settings.block_metadata,
            guarded=self._record.guard_links if guard else (),
            guarded6=self._record.guard6_links if guard else (),
        )

    def _ensure(self, segments: Sequence[Segment]) -> None:
        """The default bridge must come up; another network that can't is only of no use."""
        for segment in segments:
            try:
                segment.wire.ensure()
            except OSError as error:
                if segment.builtin:
                    raise
                _log.error("network %s is not there: %s", segment.definition.name, error)

    def _take_over(self, segments: Sequence[Segment], live: Sequence[tuple[str, Endpoint]]) -> None:
        """The survivors' addresses, names and host ports are taken."""
        by_id = {one.definition.id: one for one in segments}
        ports = HostPorts(self._binder)
        self._ground.names.clear()
        for container, endpoint in live:
            segment = by_id.get(endpoint.network_id)
            if segment is None:
                _log.error("%s is on %s, which is no more", container, endpoint.network)
                continue
            for text in segment.claim(container, endpoint):
                _log.error("%s has the address %s of another", container, text)
            for trouble in ports.adopt(endpoint.endpoint_id, endpoint.ports):
                _log.warning("%s: cannot hold the host port %s", container, trouble)
            self._ground.names.add(container, endpoint, leads_out=segment.leads_out)
        with self._ground.lock:
            self._ground.segments, self._ground.ports = by_id, ports

    def _assert(
        self, segments: Sequence[Segment], live: Sequence[tuple[str, Endpoint]]
    ) -> Firewall:
        firewall = Firewall(self._nft, self._plan(segments))
        self._ground.firewall = firewall
        firewall.assert_all({one.endpoint_id: forwardings(one) for _, one in live})
        return firewall

    def _forward(self, segments: Iterable[Segment], firewall: Firewall) -> None:
        sysctl.put("ipv4/ip_forward", "1")
        for segment in segments:
            self._forward_on(segment, firewall)

    def _forward_on(self, segment: Segment, firewall: Firewall) -> None:
        if not segment.bridged:
            return
        sysctl.put(f"ipv4/conf/{segment.definition.bridge}/route_localnet", "1")
        if 6 in segment.pools:
            self._forward_six(firewall)

    def _forward_six(self, firewall: Firewall) -> None:
        if sysctl.get("ipv6/conf/all/forwarding") != "0":
            return
        links = self._outer_links()
        self._keep(dataclasses.replace(self._record, guard6_links=links))
        if self._settings.guard_forwarding:
            firewall.guard6(links)
        for link in bridge.host_links():
            # A forwarding host takes no router's word unless told so: it would lose its own way out.
            if link.index in links and sysctl.get(f"ipv6/conf/{link.name}/accept_ra") == "1":
                sysctl.put(f"ipv6/conf/{link.name}/accept_ra", "2")
        sysctl.put("ipv6/conf/all/forwarding", "1")

    def _adopt(self, segments: Iterable[Segment], live: Sequence[tuple[str, Endpoint]]) -> None:
        for segment in segments:
            if isinstance(segment.wire, BridgeWire):
                identity = segment.definition.id
                mine = [one.endpoint_id for _, one in live if one.network_id == identity]
                segment.wire.bridge.adopt(mine)

    def _warn(self, firewall: Firewall) -> None:
        """Say what outside of our table will get in the containers' way (it always wins)."""
        for table in firewall.foreign_drops():
            _log.warning(
                "the nftables table %s drops forwarded packets by policy: containers reach the "
                "outside only as far as it lets them",
                table,
            )

    def _stop(self) -> None:
        self._ground.behind.flush()
        watcher, self._watcher = self._watcher, None
        firewall, self._ground.firewall = self._ground.firewall, None
        if watcher is not None:
            watcher.close()
        if firewall is not None:
            firewall.close()
        with self._ground.lock:
            self._ground.ports.close()

    # ------------------------------------------------------------------------ networks come and go

    def _check_free(self, spec: NetworkSpec) -> None:
        with self._ground.lock:
            segments = list(self._ground.segments.values())
        if any(one.definition.name == spec.name for one in segments):
            raise conflict(f"network with name {spec.name} already exists")
        wanted = spec.options.get(definitions.BRIDGE_NAME, "")
        if wanted and wanted in {link.name for link in bridge.host_links()}:
            # Another network's, or somebody else's, which is not to be touched.
            raise forbidden(f"interface {wanted} exists already")

    def _define(self, spec: NetworkSpec) -> Definition:
        with self._ground.lock:
            others = [
                pool.subnet for one in self._ground.segments.values() for pool in one.pools.values()
            ]
            kept = [one.definition for one in self._ground.segments.values()]
        routes = self._foreign_routes(kept)
        seed = self._record.ids["host"]
        identity = secrets.token_hex(32)
        return Definition(
            identity, time.time_ns(), definitions.resolved(spec, others, routes, seed)
        )

    def _bring_up(self, segment: Segment) -> None:
        firewall = self._ground.ready_firewall()
        segment.wire.ensure()
        if segment.bridged:
            try:
                firewall.add_network(segment.rules())
                self._forward_on(segment, firewall)
            except (OSError, NftError, EngineError):
                self._take_down(segment)
                raise
        with self._ground.lock:
            self._ground.segments[segment.definition.id] = segment

    def _take_down(self, segment: Segment) -> None:
        if segment.bridged:
            self._ground.ready_firewall().drop_network(segment.definition.id[:12])
        index = segment.wire.retire()
        if index is None:
            return
        if not segment.bridged or segment.definition.spec.options.get(definitions.BRIDGE_NAME):
            bridge.cut(index)  # the next network may have the same one
        else:
            self._ground.behind.later(_RETIREMENT, bridge.cut_retired)

    def _busy(self, network_id: str) -> bool:
        with self._ground.lock:
            segment = self._ground.segments.get(network_id)
            return segment is not None and bool(segment.endpoints)


def open_network(settings: NetworkSettings) -> HostNetworks:
    """The networks of the calling thread's network namespace; call `setup` next.  Raises OSError."""
    return HostNetworks(settings, open_nft())


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
