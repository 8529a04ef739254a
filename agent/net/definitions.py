"""Networks as made: what was asked for with every choice taken, checked as docker checks it.  Pure.

Nothing of a definition's names, labels or options gets into rule text or a path; interface names
pass `agent.net.names.checked_interface` first (case 114).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from agent.engine.model import IpamPool, NetworkSpec
from agent.engine.ports import NetworkInfo
from agent.errors import EngineError, Kind, conflict, forbidden, invalid, not_found, not_implemented
from agent.net import ipam
from agent.net.ipam import Address, Subnet
from agent.net.names import checked_interface
from agent.values import frozen

PREDEFINED: Final = ("bridge", "host", "none")
DRIVERS: Final = ("bridge", "macvlan", "ipvlan")
_NAME: Final = re.compile(
    r"[^\s/\\\x00-\x1f\x7f]([^/\\\x00-\x1f\x7f]{0,253}[^\s/\\\x00-\x1f\x7f])?"
)
_BRIDGE: Final = "com.docker.network.bridge."
BRIDGE_NAME: Final = f"{_BRIDGE}name"
MTU: Final = "com.docker.network.driver.mtu"
_FLAGS: Final = (f"{_BRIDGE}enable_icc", f"{_BRIDGE}enable_ip_masquerade")
_HOST_BINDINGS: Final = (f"{_BRIDGE}host_binding_ipv4", f"{_BRIDGE}host_binding_ipv6")
_HOST_IPV4: Final = "com.docker.network.host_ipv4"
_CONTAINER_PREFIX: Final = "com.docker.network.container_iface_prefix"
# For the operator who knows better: a subnet that the host already has a route to.
ALLOW_OVERLAP: Final = "machine.network.allow_overlap"
_GATEWAY_MODES: Final = (f"{_BRIDGE}gateway_mode_ipv4", f"{_BRIDGE}gateway_mode_ipv6")
_BRIDGE_OPTIONS: Final = frozenset(
    {BRIDGE_NAME, MTU, _HOST_IPV4, _CONTAINER_PREFIX, ALLOW_OVERLAP}
    | {*_FLAGS, *_HOST_BINDINGS, *_GATEWAY_MODES, f"{_BRIDGE}default_bridge"}
)
_VLAN_MODES: Final = {
    "macvlan": ("macvlan_mode", ("bridge", "private", "vepa", "passthru")),
    "ipvlan": ("ipvlan_mode", ("l2", "l3", "l3s")),
}


@frozen
class Definition:
    """`id` 64 hex, `created` ns; every pool of `spec` has its subnet, and a gateway if it can."""

    id: str
    created: int
    spec: NetworkSpec

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def bridge(self) -> str:
        """The interface's name."""
        return self.spec.options.get(BRIDGE_NAME) or f"br-{self.id[:12]}"

    def subnets(self) -> list[Subnet]:
        return [ip_network(pool.subnet) for pool in self.spec.pools]

    def flag(self, option: str, *, default: bool = True) -> bool:
        """A boolean option by its last word ("enable_icc")."""
        return _truth(self.spec.options.get(f"{_BRIDGE}{option}", ""), default=default)

    def mtu(self, default: int) -> int:
        return int(self.spec.options.get(MTU) or 0) or default

    def source_address(self) -> str:
        """What containers go out as, instead of the outgoing interface's address; "" = that."""
        return self.spec.options.get(_HOST_IPV4, "")

    def host_binding(self, version: int) -> str:
        """The host address of ports that are published without one; "" = any."""
        return self.spec.options.get(_HOST_BINDINGS[0 if version == 4 else 1], "")

    def interface_prefix(self) -> str:
        return self.spec.options.get(_CONTAINER_PREFIX, "") or "eth"


def info(one: Definition) -> NetworkInfo:
    """As the API shows it."""
    spec = one.spec
    first = next((pool for pool in spec.pools if ":" not in pool.subnet), IpamPool())
    return NetworkInfo(
        name=spec.name,
        id=one.id,
        driver=spec.driver,
        subnet=first.subnet,
        gateway=first.gateway,
        created=one.created,
        options=spec.options,
        pools=spec.pools,
        enable_ipv4=spec.enable_ipv4,
        enable_ipv6=spec.enable_ipv6,
        internal=spec.internal,
        attachable=spec.attachable,
        ipam_driver=spec.ipam_driver,
        ipam_options=spec.ipam_options,
        labels=spec.labels,
    )


def check(spec: NetworkSpec) -> None:
    """What can be refused without a look at the host.  Raises INVALID, FORBIDDEN, NOT_FOUND."""
    if spec.name in {*PREDEFINED, "default"} or spec.name.startswith("container:"):
        raise forbidden(f"operation is not permitted on predefined {spec.name} network")
    if not _NAME.fullmatch(spec.name):
        raise invalid(f"invalid network name: {spec.name!r}")
    if spec.driver in {"host", "null"}:
        raise forbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.driver == "overlay":
        raise EngineError(
            Kind.UNAVAILABLE,
            "This node is not a swarm manager. Overlay networks need a swarm, which this engine "
            "does not serve",
        )
    if spec.driver not in DRIVERS:
        raise not_found(
            f'could not find plugin {spec.driver} in v1 plugin registry: plugin "{spec.driver}" not found'
        )
    if spec.ipam_driver not in {"", "default"}:
        raise not_found(f'invalid ipam driver: plugin "{spec.ipam_driver}" not found')
    if not spec.enable_ipv4 and not spec.enable_ipv6:
        raise invalid("IPv4 or IPv6 must be enabled")
    _check_options(spec)


def _check_options(spec: NetworkSpec) -> None:
    try:
        if spec.driver == "bridge":
            _check_bridge_options(spec.options)
        else:
            _check_vlan_options(spec)
        mtu = int(spec.options.get(MTU) or 1500)
    except ValueError as error:
        raise invalid(f"invalid network option: {error}") from error
    if not 68 <= mtu <= 65535:
        raise invalid(f"invalid MTU: {mtu}")


def _check_bridge_options(options: Mapping[str, str]) -> None:
    """Raises ValueError, NOT_IMPLEMENTED."""
    for name in options:
        if name not in _BRIDGE_OPTIONS:
            raise not_implemented(f"the network option {name!r} is not served by this engine")
    for name in _GATEWAY_MODES:
        if options.get(name, "nat") not in {"", "nat"}:
            raise not_implemented(f"{name} other than nat is not served by this engine")
    for name in _FLAGS:
        _truth(options.get(name, ""), default=True)
    for name in (*_HOST_BINDINGS, _HOST_IPV4):
        if options.get(name):
            ip_address(options[name])
    for name in (BRIDGE_NAME, _CONTAINER_PREFIX):
        if options.get(name):
            checked_interface(options[name])


def _check_vlan_options(spec: NetworkSpec) -> None:
    """Raises ValueError, NOT_IMPLEMENTED."""
    mode, modes = _VLAN_MODES[spec.driver]
    for name, value in spec.options.items():
        if name == mode:
            if value not in {"", *modes}:
                raise ValueError(f"unknown {spec.driver} mode {value!r}")
        elif name == "parent":
            vlan_parent(value)
        elif name not in {MTU, ALLOW_OVERLAP}:
            raise not_implemented(f"the network option {name!r} is not served by this engine")


def vlan_parent(text: str) -> tuple[str, int]:
    """ "eth0.50" -> ("eth0", 50), "eth0" -> ("eth0", 0), "" -> ("", 0).  Raises ValueError."""
    if not text:
        return "", 0
    name, dot, number = text.partition(".")
    checked_interface(name)
    if not dot:
        return name, 0
    if not number.isascii() or not number.isdigit() or not 0 < int(number) < 4095:
        raise ValueError(f"not a VLAN of a parent interface: {text!r}")
    if len(text) > 15:
        raise ValueError(f"interface name too long: {text!r}")
    return name, int(number)


def resolved(
    spec: NetworkSpec,
    others: Sequence[Subnet],
    routes: Iterable[tuple[Subnet, bool]],
    seed: str,
) -> NetworkSpec:
    """The specification with a subnet and a gateway for every family that it has.

    `others` are the subnets of our other networks, `routes` the host's (destination, has a
    gateway).  Raises INVALID, FORBIDDEN (overlap with a network), CONFLICT (with a route).
    """
    known = list(routes)
    pools = [_checked_pool(pool, spec) for pool in spec.pools if pool.subnet]
    _check_families(pools, spec)
    for pool in pools:
        _check_free(ip_network(pool.subnet), others, known, spec)
    if spec.enable_ipv4 and not any(":" not in one.subnet for one in pools):
        taken = [*known, *((one, False) for one in others)]
        pools.insert(0, IpamPool(subnet=str(ipam.choose_subnet(taken))))
    if spec.enable_ipv6 and not any(":" in one.subnet for one in pools):
        pools.append(IpamPool(subnet=str(ipam.choose_subnet6(seed, others))))
    return dataclasses.replace(spec, pools=tuple(_with_gateway(one, spec) for one in pools))


def _check_families(pools: Sequence[IpamPool], spec: NetworkSpec) -> None:
    for version, enabled in ((4, spec.enable_ipv4), (6, spec.enable_ipv6)):
        mine = [one for one in pools if (":" in one.subnet) == (version == 6)]
        if mine and not enabled:
            raise _wrong(
                f"invalid subnet {mine[0].subnet}: IPv{version} has not been enabled for this network"
            )
        if len(mine) > 1:
            raise invalid(f"{spec.driver} driver doesn't support multiple subnets of a family")
    for pool in spec.pools:
        if not pool.subnet and (pool.gateway or pool.ip_range or pool.aux_addresses):
            raise _wrong(f"no matching subnet for {pool.gateway or pool.ip_range or 'aux-address'}")


def _checked_pool(pool: IpamPool, spec: NetworkSpec) -> IpamPool:
    """Raises INVALID with docker's words."""
    subnet = _network(pool.subnet, "subnet")
    least = 8 if subnet.version == 4 else 16
    host_bits = subnet.max_prefixlen - subnet.prefixlen
    if subnet.prefixlen < least or host_bits < 2 or subnet.is_loopback or subnet.is_multicast:
        raise _wrong(f"invalid subnet {subnet}: not usable for a network")
    if pool.ip_range:
        part = _network(pool.ip_range, "ip-range")
        if part.version != subnet.version or not _contains(subnet, part):
            raise _wrong(f"invalid ip-range {pool.ip_range}: it is not within {subnet}")
    for name, text in {"gateway": pool.gateway, **pool.aux_addresses}.items():
        if text and _address(text, name) not in subnet:
            raise _wrong(f"invalid {name} {text}: parent subnet is {subnet}")
    if pool.gateway and spec.driver == "bridge":
        edges = {subnet.network_address} | (
            {subnet.broadcast_address} if subnet.version == 4 else set()
        )
        if _address(pool.gateway, "gateway") in edges:
            raise _wrong(f"invalid gateway {pool.gateway}: it is no host address")
    return pool


def _contains(outer: Subnet, inner: Subnet) -> bool:
    return int(outer.network_address) <= int(inner.network_address) and int(
        inner.broadcast_address
    ) <= int(outer.broadcast_address)


def _network(text: str, what: str) -> Subnet:
    try:
        found = ip_network(text, strict=False)
    except ValueError as error:
        raise _wrong(f"invalid {what} {text}: {error}") from error
    if found.network_address != ip_address(text.partition("/")[0]):
        raise _wrong(f"invalid {what} {text}: it should be {found}")
    return found


def _address(text: str, what: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise _wrong(f"invalid {what} {text}: {error}") from error


def _wrong(text: str) -> EngineError:
    return invalid(f"invalid network config:\n{text}")


def _check_free(
    subnet: Subnet,
    others: Iterable[Subnet],
    routes: Sequence[tuple[Subnet, bool]],
    spec: NetworkSpec,
) -> None:
    if any(ipam.overlapping(subnet, one) for one in others):
        raise forbidden("invalid pool request: Pool overlaps with other one on this address space")
    # The subnet of a macvlan or ipvlan is the parent's own.
    if spec.driver != "bridge" or _truth(spec.options.get(ALLOW_OVERLAP, ""), default=False):
        return
    taken = ipam.conflicting(subnet, routes)
    if taken is not None:
        raise conflict(
            f"subnet {subnet} overlaps with the host's route to {taken} (option "
            f"{ALLOW_OVERLAP}=true makes the network nevertheless)"
        )


def _with_gateway(pool: IpamPool, spec: NetworkSpec) -> IpamPool:
    """docker's: the first address, of the range where there is one; none where nothing is routed."""
    if pool.gateway or (spec.internal and spec.driver != "bridge"):
        return pool
    if spec.driver == "ipvlan" and spec.options.get("ipvlan_mode", "l2") in {"l3", "l3s"}:
        return pool
    subnet = ip_network(pool.subnet)
    within = ip_network(pool.ip_range) if pool.ip_range else None
    aux = [ip_address(one) for one in pool.aux_addresses.values()]
    chooser = ipam.AddressPool(subnet, None, within=within, reserved=aux)
    return dataclasses.replace(pool, gateway=str(chooser.take("gateway")))


def pool_of(pool: IpamPool) -> ipam.AddressPool:
    """The addresses that containers get."""
    return ipam.AddressPool(
        ip_network(pool.subnet),
        ip_address(pool.gateway) if pool.gateway else None,
        within=ip_network(pool.ip_range) if pool.ip_range else None,
        reserved=[ip_address(one) for one in pool.aux_addresses.values()],
    )


def _truth(text: str, *, default: bool) -> bool:
    """Go's strconv.ParseBool.  Raises ValueError."""
    if not text:
        return default
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise ValueError(f"not a boolean: {text!r}")
