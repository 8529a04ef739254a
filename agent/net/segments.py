"""One network at work: its addresses, and what of it there is in the kernel."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Protocol

from agent.engine.model import Endpoint, EndpointRequest
from agent.errors import EngineError, forbidden, invalid
from agent.net import cables, rtnetlink
from agent.net.bridge import Bridge
from agent.net.cables import Plug
from agent.net.definitions import Definition, pool_of, vlan_parent
from agent.net.ipam import Address, AddressPool
from agent.net.names import checked_mac, mac_from, mac_of
from agent.net.rtnetlink import Interface, Rtnetlink
from agent.net.rules import NetworkRules


class Wire(Protocol):
    """A network's part in the kernel, of the namespace in which the calls are made.  OSError."""

    def ensure(self) -> None:
        """It exists.  Idempotent."""
        ...

    def plug(self, endpoint: str, pid: int, plug: Plug, /) -> None:
        """The container's interface; on failure nothing of it is left."""
        ...

    def unplug(self, endpoint: str, pid: int, interface: str, /) -> None:
        """Idempotent; gone on return."""
        ...

    def cable(self, endpoint: str, /) -> int | None:
        """A link on the host's side that outlives the container's namespace for a moment."""
        ...

    def retire(self) -> int | None:
        """Nobody notices it any more; the link that is still to be cut."""
        ...


class BridgeWire:
    """A bridge with a veth pair for each endpoint."""

    def __init__(self, bridge: Bridge, addresses: list[Interface]) -> None:
        self.bridge = bridge
        self._addresses = addresses

    def ensure(self) -> None:
        self.bridge.ensure(self._addresses)

    def plug(self, endpoint: str, pid: int, plug: Plug) -> None:
        self.bridge.plug(endpoint, pid, plug)

    def unplug(self, endpoint: str, _pid: int, _interface: str) -> None:
        self.bridge.unplug(endpoint)

    def cable(self, endpoint: str) -> int | None:
        return self.bridge.cable(endpoint)

    def retire(self) -> int | None:
        return self.bridge.retire()


class SubWire:
    """macvlan or ipvlan on a parent interface: a VLAN of it is made for "eth0.50", and an interface
    that leads nowhere where no parent is named."""

    def __init__(self, definition: Definition) -> None:
        spec = definition.spec
        self._kind = spec.driver
        default = "bridge" if spec.driver == "macvlan" else "l2"
        self._mode = spec.options.get(f"{spec.driver}_mode") or default
        self._parent, self._vlan = vlan_parent(spec.options.get("parent", ""))
        self._mtu = definition.mtu(0)
        self._dummy = f"dm-{definition.id[:12]}"

    @property
    def _name(self) -> str:
        if not self._parent:
            return self._dummy
        return f"{self._parent}.{self._vlan}" if self._vlan else self._parent

    def ensure(self) -> None:
        with Rtnetlink() as netlink:
            link = netlink.link(self._name)
            if link is None:
                self._make(netlink)
            elif not link.up:
                netlink.perform([rtnetlink.set_up(link.index)])

    def _make(self, netlink: Rtnetlink) -> None:
        if not self._parent:
            netlink.perform([rtnetlink.create_dummy(self._dummy)])
            return
        parent = netlink.link(self._parent)
        if parent is None or not self._vlan:
            raise OSError(
                errno.ENODEV, f"{self._kind} parent interface was not found: {self._parent}"
            )
        netlink.perform([rtnetlink.create_vlan(self._name, parent.index, self._vlan)])

    def plug(self, _endpoint: str, pid: int, plug: Plug) -> None:
        self.ensure()
        with cables.namespace_of(pid) as namespace, Rtnetlink() as netlink:
            parent = netlink.link(self._name)
            if parent is None:
                raise OSError(errno.ENODEV, f"parent interface was not found: {self._name}")
            request = rtnetlink.create_sub(
                self._kind,
                self._mode,
                parent=parent.index,
                name=plug.interface,
                mac=plug.mac,
                mtu=self._mtu,
                namespace=namespace,
            )
            netlink.perform([request])
            try:
                cables.configure(namespace, plug)
            except (OSError, RuntimeError):
                cables.pull_out(pid, plug.interface)
                raise

    def unplug(self, _endpoint: str, pid: int, interface: str) -> None:
        cables.pull_out(pid, interface)

    def cable(self, _endpoint: str) -> int | None:
        return None

    def retire(self) -> int | None:
        """A VLAN stays: whether it was us who made it is not known after a restart of the host."""
        if self._parent:
            return None
        with Rtnetlink() as netlink:
            link = netlink.link(self._dummy)
            return None if link is None else link.index


class Segment:
    """A definition with its addresses.  Not thread-safe: its owner holds a lock around all but
    `wire`."""

    def __init__(self, definition: Definition, default_mtu: int, *, builtin: bool = False) -> None:
        self.definition = definition
        self.builtin = builtin
        self.endpoints: dict[str, str] = {}  # endpoint -> container
        self.pools: dict[int, AddressPool] = {}
        for pool in definition.spec.pools:
            made = pool_of(pool)
            self.pools[made.subnet.version] = made
        self.wire: Wire
        if self.bridged:
            isolated = not definition.flag("enable_icc")
            bridge = Bridge(
                definition.bridge,
                definition.mtu(default_mtu),
                self._bridge_mac(),
                isolated=isolated,
            )
            self.wire = BridgeWire(bridge, self._host_addresses())
        else:
            self.wire = SubWire(definition)

    @property
    def bridged(self) -> bool:
        return self.definition.spec.driver == "bridge"

    @property
    def on_link(self) -> bool:
        """Whether containers reach everything without a gateway."""
        spec = self.definition.spec
        return spec.driver == "ipvlan" and spec.options.get("ipvlan_mode") in {"l3", "l3s"}

    @property
    def leads_out(self) -> bool:
        """Whether a default route over it makes sense."""
        spec = self.definition.spec
        return not spec.internal and (self.on_link or any(p.gateway for p in self.pools.values()))

    def rules(self) -> NetworkRules:
        """What the firewall has to know; bridges only."""
        one = self.definition
        source = one.source_address()
        return NetworkRules(
            key=one.id[:12],
            bridge=one.bridge,
            subnets=tuple(pool.subnet for pool in self.pools.values()),
            gateways=tuple(pool.gateway for pool in self.pools.values() if pool.gateway),
            internal=one.spec.internal,
            icc=one.flag("enable_icc"),
            masquerade=one.flag("enable_ip_masquerade"),
            source=ip_address(source) if source else None,
        )

    def take(self, container: str, endpoint_id: str, request: EndpointRequest) -> Endpoint:
        """Addresses for a new endpoint; `interface` and ports are still to come.  Raises EngineError,
        nothing is taken then."""
        addresses: dict[int, Address] = {}
        try:
            for version, pool in self.pools.items():
                wanted = request.address if version == 4 else request.address6
                addresses[version] = self._take_one(pool, endpoint_id, wanted)
        except EngineError:
            for version, address in addresses.items():
                self.pools[version].give_back(address, endpoint_id)
            raise
        self.endpoints[endpoint_id] = container
        return self._endpoint(endpoint_id, addresses, request)

    def _take_one(self, pool: AddressPool, endpoint_id: str, wanted: str) -> Address:
        if not wanted:
            return pool.take(endpoint_id)
        address = ip_address(wanted)
        if address not in pool.subnet:
            raise invalid(
                f"invalid endpoint settings:\nno configured subnet contains IP address {wanted}"
            )
        if not pool.claim(address, endpoint_id):
            raise forbidden("Address already in use")
        return address

    def _endpoint(
        self, endpoint_id: str, addresses: dict[int, Address], request: EndpointRequest
    ) -> Endpoint:
        four, six = addresses.get(4), addresses.get(6)
        mac = ""
        if self.definition.spec.driver == "ipvlan":
            pass  # it is its parent's
        elif request.mac:
            mac = checked_mac(request.mac)
        else:
            mac = mac_of(four) if isinstance(four, IPv4Address) else mac_from(endpoint_id)
        return Endpoint(
            network=self.definition.name,
            network_id=self.definition.id,
            endpoint_id=endpoint_id,
            mac=mac,
            address=str(four or ""),
            prefix=self.pools[4].subnet.prefixlen if four else 0,
            gateway=self._gateway(4),
            address6=str(six or ""),
            prefix6=self.pools[6].subnet.prefixlen if six else 0,
            gateway6=self._gateway(6),
            driver=self.definition.spec.driver,
            gw_priority=request.gw_priority,
            dns_names=request.dns_names,
            links=request.links,
        )

    def _gateway(self, version: int) -> str:
        pool = self.pools.get(version)
        return str(pool.gateway or "") if pool else ""

    def claim(self, container: str, endpoint: Endpoint) -> list[str]:
        """A survivor's addresses; those that are another's come back."""
        self.endpoints[endpoint.endpoint_id] = container
        return [
            text
            for version, text in ((4, endpoint.address), (6, endpoint.address6))
            if text
            and not (
                version in self.pools
                and self.pools[version].claim(ip_address(text), endpoint.endpoint_id)
            )
        ]

    def give_back(self, endpoint: Endpoint) -> None:
        """Idempotent."""
        self.endpoints.pop(endpoint.endpoint_id, None)
        for version, text in ((4, endpoint.address), (6, endpoint.address6)):
            if text and version in self.pools:
                self.pools[version].give_back(ip_address(text), endpoint.endpoint_id)

    def _host_addresses(self) -> list[Interface]:
        return [
            ip_interface(f"{pool.gateway}/{pool.subnet.prefixlen}")
            for pool in self.pools.values()
            if pool.gateway is not None
        ]

    def _bridge_mac(self) -> str:
        four = self.pools.get(4)
        if four is not None and isinstance(four.gateway, IPv4Address):
            return mac_of(four.gateway)
        return mac_from(self.definition.id)


def plug_of(endpoint: Endpoint, *, on_link: bool, leads_out: bool) -> Plug:
    """The container's end of an endpoint."""
    addresses: list[Interface] = []
    if endpoint.address:
        addresses.append(IPv4Interface(f"{endpoint.address}/{endpoint.prefix}"))
    if endpoint.address6:
        addresses.append(IPv6Interface(f"{endpoint.address6}/{endpoint.prefix6}"))
    out = endpoint.way_out and leads_out
    gateways = [ip_address(one) for one in (endpoint.gateway, endpoint.gateway6) if one]
    return Plug(
        interface=endpoint.interface,
        mac=endpoint.mac,
        addresses=tuple(addresses),
        gateways=tuple(gateways) if out and not on_link else (),
        on_link=out and on_link,
    )
