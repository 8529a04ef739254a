"""The default bridge network: `agent.engine.ports.Network` on netlink and nftables.

An endpoint's id owns its address, host ports and rules, and names its cable: a container that is
started again never waits for the kernel to finish with its former cable.
Nothing but the record of record.py outlives the process; all else comes from `setup`'s argument
and the kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, NetmaskValueError

from agent.engine.model import Endpoint, PortBinding
from agent.engine.ports import NetworkInfo
from agent.errors import EngineError, Kind, conflict, internal, invalid
from agent.net import ipam, record, sysctl
from agent.net.behind import Behind
from agent.net.bridge import Bridge
from agent.net.firewall import Firewall
from agent.net.ipam import AddressPool
from agent.net.names import checked_interface, checked_table, mac_of
from agent.net.nfnetlink import Flow, forget_flows
from agent.net.nftables import Nft, NftError, open_nft
from agent.net.ports import ANY, Binder, HostPorts, bind, parse_binding
from agent.net.rules import Forwarding, Plan
from agent.net.watcher import Watcher

_log = logging.getLogger(__name__)
_UDP = 17
_CABLE_DELAY = 0.2  # seconds; the kernel needs 10-50 ms after the container's last process


@dataclass(frozen=True)
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


class BridgeNetwork:
    """The default bridge of one network namespace: that of the thread that made this object.

    Threads may share it; calls for one container come one at a time (ports.py).
    """

    def __init__(self, settings: NetworkSettings, nft: Nft, binder: Binder = bind) -> None:
        self._settings = settings
        self._folder = os.path.join(settings.root, "network")
        self._record = record.load(self._folder, time.time_ns())
        self._nft = nft
        self._bridge = Bridge(checked_interface(settings.bridge), settings.mtu)
        self._lock = threading.Lock()  # the pool and the host ports
        self._ports = HostPorts(binder)
        self._binder = binder
        self._pool: AddressPool | None = None
        self._firewall: Firewall | None = None
        self._watcher: Watcher | None = None
        self._behind = Behind()

    # ------------------------------------------------------------------------------------ the port

    def setup(self, endpoints: Iterable[tuple[str, Endpoint]]) -> None:
        """See ports.Network.  Raises INVALID or CONFLICT for a subnet that cannot be used."""
        live = list(endpoints)
        self._stop()
        try:
            gateway = self._choose_gateway([endpoint for _, endpoint in live])
            self._remember(gateway)
            self._bridge.ensure(gateway)
            self._take_over(gateway, live)
            self._firewall = Firewall(self._nft, self._plan(gateway))
            self._firewall.assert_all(
                {endpoint.endpoint_id: forwardings(endpoint) for _, endpoint in live}
            )
            # Only now: the rules that keep loopback closed (raw_prerouting) are there.
            sysctl.put(f"ipv4/conf/{self._bridge.name}/route_localnet", "1")
            sysctl.put("ipv4/ip_forward", "1")
            self._bridge.adopt(endpoint.endpoint_id for _, endpoint in live)
            self._watcher = Watcher(self._firewall)
            self._warn()
        except (OSError, NftError) as error:
            raise internal(f"cannot set up the bridge network: {error}") from error

    def networks(self) -> list[NetworkInfo]:
        """bridge, host and none."""
        gateway = self._record.gateway
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.host_binding_ipv4": str(ANY),
            "com.docker.network.bridge.name": self._bridge.name,
            "com.docker.network.driver.mtu": str(self._settings.mtu),
        }
        ids, created = self._record.ids, self._record.created
        return [
            NetworkInfo(
                name="bridge",
                id=ids["bridge"],
                driver="bridge",
                subnet=str(gateway.network) if gateway else "",
                gateway=str(gateway.ip) if gateway else "",
                created=created,
                options=options,
            ),
            NetworkInfo(name="host", id=ids["host"], driver="host", created=created),
            NetworkInfo(name="none", id=ids["none"], driver="null", created=created),
        ]

    def reserve(self, container_id: str, ports: Sequence[PortBinding]) -> Endpoint:
        """See ports.Network."""
        wanted = [parse_binding(binding) for binding in ports]
        endpoint_id = secrets.token_hex(32)
        with self._lock:
            pool = self._ready_pool()
            address = self._take_address(pool, endpoint_id)
            try:
                published = self._ports.allocate(endpoint_id, wanted)
            except EngineError as error:
                pool.give_back(address, endpoint_id)
                raise EngineError(
                    error.kind,
                    "driver failed programming external connectivity on endpoint "
                    f"{container_id[:12]} ({endpoint_id}): {error.message}",
                ) from error
        return Endpoint(
            network="bridge",
            network_id=self._record.ids["bridge"],
            endpoint_id=endpoint_id,
            mac=mac_of(address),
            address=str(address),
            prefix=pool.subnet.prefixlen,
            gateway=str(pool.gateway),
            ports=published,
        )

    def connect(self, container_id: str, endpoint: Endpoint, pid: int) -> None:
        """See ports.Network.  On failure neither cable nor rules are left; the reservation is."""
        firewall = self._ready_firewall()
        address = IPv4Interface(f"{endpoint.address}/{endpoint.prefix}")
        gateway = IPv4Address(endpoint.gateway)
        try:
            self._bridge.plug(endpoint.endpoint_id, pid, address, endpoint.mac, gateway)
            try:
                firewall.publish(endpoint.endpoint_id, forwardings(endpoint))
            except (NftError, OSError):
                self._bridge.unplug(endpoint.endpoint_id)
                raise
        except (OSError, NftError) as error:
            raise internal(
                f"failed to set up container networking: endpoint {container_id[:12]} "
                f"({endpoint.endpoint_id}): {error}"
            ) from error
        self._forget_udp(endpoint, by_host_port=True)

    def release(self, container_id: str, endpoint: Endpoint) -> None:
        """See ports.Network."""
        firewall = self._ready_firewall()
        try:
            firewall.withdraw(endpoint.endpoint_id)
            cable = self._bridge.cable(endpoint.endpoint_id)
        except (OSError, NftError) as error:
            raise internal(
                f"failed to release the network of {container_id[:12]}: {error}"
            ) from error
        with self._lock:
            self._ports.release(endpoint.endpoint_id)
        if cable is None:
            self._give_back(endpoint)
        else:
            # The kernel takes the cable away with the container's namespace, many at a time and
            # without us; asked one by one it holds its link lock for 20 ms each.  The address
            # stays taken until the cable is gone.
            self._behind.later(_CABLE_DELAY, lambda: self._cut(cable, endpoint))
        self._forget_udp(endpoint, by_host_port=False)

    def close(self) -> None:
        """Threads and sockets end; bridge, cables and rules stay, containers run on."""
        self._stop()
        self._behind.close()
        self._nft.close()

    def teardown(self) -> None:
        """For uninstalling: bridge, cables and table go, then as `close`.  Idempotent.

        IPv4 forwarding stays on: by now something else may count on it.
        """
        self._stop()
        try:
            plan = self._plan(self._record.gateway or IPv4Interface("172.17.0.1/16"))
            with contextlib.closing(Firewall(self._nft, plan)) as firewall:
                firewall.remove()
            self._bridge.remove()
        except (OSError, NftError) as error:
            raise internal(f"cannot remove the bridge network: {error}") from error
        self._behind.close()
        self._nft.close()

    # ----------------------------------------------------------------------------------- its parts

    def _choose_gateway(self, live: Sequence[Endpoint]) -> IPv4Interface:
        if self._settings.bip:
            gateway = parse_bip(self._settings.bip)
            taken = ipam.conflicting(gateway.network, self._bridge.foreign_routes())
            if taken is not None:
                raise conflict(
                    f"bip {self._settings.bip} overlaps with the host's route to {taken}"
                )
            return gateway
        remembered = self._record.gateway
        if remembered is not None:
            # Running containers cannot move; else the host's routes go first.
            used = any(IPv4Address(one.address) in remembered.network for one in live)
            routes = self._bridge.foreign_routes()
            if used or ipam.conflicting(remembered.network, routes) is None:
                return remembered
        subnet = ipam.choose_subnet(self._bridge.foreign_routes())
        return IPv4Interface((subnet.network_address + 1, subnet.prefixlen))

    def _remember(self, gateway: IPv4Interface) -> None:
        links = self._record.guard_links
        boot = _boot_id()
        if sysctl.get("ipv4/ip_forward") == "0":  # it will be us who turn it on
            names = ("lo", self._bridge.name)
            links = tuple(link.index for link in self._bridge.links() if link.name not in names)
        elif boot != self._record.guard_boot:
            links = ()
        changed = dataclasses.replace(
            self._record, gateway=gateway, guard_boot=boot, guard_links=links
        )
        if changed != self._record:
            record.save(self._folder, changed)
            self._record = changed

    def _plan(self, gateway: IPv4Interface) -> Plan:
        guarded = self._record.guard_links if self._settings.guard_forwarding else ()
        return Plan(
            table=checked_table(self._settings.table),
            bridge=self._bridge.name,
            subnet=gateway.network,
            gateway=gateway.ip,
            agent_ports=self._settings.agent_ports,
            block_metadata=self._settings.block_metadata,
            guarded=guarded,
        )

    def _take_over(self, gateway: IPv4Interface, live: Sequence[tuple[str, Endpoint]]) -> None:
        """The survivors' addresses and host ports are taken."""
        pool = AddressPool(gateway.network, gateway.ip)
        ports = HostPorts(self._binder)
        for container, endpoint in live:
            if not pool.claim(IPv4Address(endpoint.address), endpoint.endpoint_id):
                _log.error("%s has the address %s of another", container, endpoint.address)
            for trouble in ports.adopt(endpoint.endpoint_id, endpoint.ports):
                _log.warning("%s: cannot hold the host port %s", container, trouble)
        with self._lock:
            self._pool, self._ports = pool, ports

    def _take_address(self, pool: AddressPool, owner: str) -> IPv4Address:
        """With the lock held.  A full pool may only be waiting for cables to go."""
        try:
            return pool.take(owner)
        except EngineError:
            self._lock.release()
            try:
                self._behind.flush()
            finally:
                self._lock.acquire()
            return pool.take(owner)

    def _cut(self, cable: int, endpoint: Endpoint) -> None:
        self._bridge.cut(cable)
        self._give_back(endpoint)

    def _give_back(self, endpoint: Endpoint) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.give_back(IPv4Address(endpoint.address), endpoint.endpoint_id)

    def _forget_udp(self, endpoint: Endpoint, *, by_host_port: bool) -> None:
        """Behind, since the kernel walks its whole flow table for it (10 ms)."""
        ports = {port.host_port for port in endpoint.ports if port.protocol == "udp"}
        address = IPv4Address(endpoint.address)

        def stale(flow: Flow) -> bool:
            chosen = flow.destination_port in ports if by_host_port else flow.answering == address
            return flow.protocol == _UDP and chosen

        if ports:
            self._behind.later(0, lambda: _forget(stale))

    def _warn(self) -> None:
        """Say what outside of our table will get in the containers' way (it always wins)."""
        for table in self._ready_firewall().foreign_drops():
            _log.warning(
                "the nftables table %s drops forwarded packets by policy: containers reach the "
                "outside only as far as it lets them",
                table,
            )

    def _stop(self) -> None:
        self._behind.flush()
        watcher, self._watcher = self._watcher, None
        firewall, self._firewall = self._firewall, None
        if watcher is not None:
            watcher.close()
        if firewall is not None:
            firewall.close()
        with self._lock:
            self._ports.close()

    def _ready_pool(self) -> AddressPool:
        if self._pool is None:
            raise EngineError(Kind.UNAVAILABLE, "the network is not set up")
        return self._pool

    def _ready_firewall(self) -> Firewall:
        if self._firewall is None:
            raise EngineError(Kind.UNAVAILABLE, "the network is not set up")
        return self._firewall


def open_network(settings: NetworkSettings) -> BridgeNetwork:
    """The network of the calling thread's network namespace; call `setup` next.  Raises OSError."""
    return BridgeNetwork(settings, open_nft())


def forwardings(endpoint: Endpoint) -> tuple[Forwarding, ...]:
    """The rules' view of an endpoint's published ports."""
    return tuple(
        Forwarding(
            port.protocol,
            IPv4Address(port.host_ip),
            port.host_port,
            IPv4Address(endpoint.address),
            port.container_port,
        )
        for port in endpoint.ports
    )


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


def _forget(stale: Callable[[Flow], bool]) -> None:
    forget_flows(stale)


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
