"""The nftables rules as text, computed from a plan.  Pure.

One table `inet NAME`.  Ports are elements of DNAT maps and sets, networks are elements of verdict
maps with four chains each: publishing or making a network adds elements, never a rule to a chain
that others use, and a packet's way is as long with a hundred networks as with one.  Everything in
the text is a number, an address, a word of a closed set or a name that `agent.net.names` has
checked: no name from a client gets here (case 114).
Text and not JSON because libnftables 1.0.6 dies with SIGSEGV on the JSON of a map with
concatenated data, which would take the agent with it.

The chain `user` belongs to the operator: it is the first thing a forwarded packet meets, it sees
published ports after DNAT (`meta l4proto tcp ct original proto-dst 80` is the host port), and it is
never flushed.

The ways of a packet (security.md C20, C35, C36; cases 100-106):
- from elsewhere to a container's address or to 127/8: dropped in raw_prerouting, before conntrack
  (chain raw_KEY of the network; from another network of ours as well: isolation, case 102);
- from elsewhere or from a container to a published host port: prerouting, DNAT, forward accepts;
- from the host itself to a published port: output, DNAT; 127/8 as source is masqueraded;
- from a container back to its own bridge by a host port (hairpin): masqueraded, so that the answer
  comes back through the host without help from br_netfilter;
- from a container outwards: from_KEY (an internal network ends there), post_KEY masquerades;
- from a container to the agent's port on any host address: dropped in input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from agent.net.ipam import Address, Subnet
from agent.net.names import checked_interface, checked_table
from agent.values import frozen

USER_CHAIN = "user"
METADATA_ADDRESS = IPv4Address("169.254.169.254")
METADATA_ADDRESS6 = IPv6Address("fd00:ec2::254")
_PROTOCOLS = ("tcp", "udp", "sctp")
# Those of ports; `{}` is the address type.
_PORT_TYPES = {
    "dnat_address": "map {name} {{ type {ip} . inet_proto . inet_service : {ip} . inet_service; }}",
    "dnat_any": "map {name} {{ type inet_proto . inet_service : {ip} . inet_service; }}",
    "published": "set {name} {{ type {ip} . inet_proto . inet_service; }}",
}
_SUBNET_MAP = "map {name} {{ type {ip} : verdict; flags interval; }}"
_BRIDGE_MAP = "map {name} {{ type ifname : verdict; }}"
_FAMILIES = (("", "ipv4_addr"), ("6", "ipv6_addr"))
_MAP_TYPES = {
    **{f"{name}{six}": (shape, ip) for six, ip in _FAMILIES for name, shape in _PORT_TYPES.items()},
    **{
        f"{name}{six}": (_SUBNET_MAP, ip)
        for six, ip in _FAMILIES
        for name in ("raw_to", "post_from")
    },
    "from_bridge": (_BRIDGE_MAP, ""),
    "to_bridge": (_BRIDGE_MAP, ""),
    "bridges": ("set {name} {{ type ifname; }}", ""),
}
_CHAIN_TYPES = {
    "raw_prerouting": "type filter hook prerouting priority -300; policy accept;",
    "prerouting": "type nat hook prerouting priority -100; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "input": "type filter hook input priority 0; policy accept;",
    "forward": "type filter hook forward priority 0; policy accept;",
    "postrouting": "type nat hook postrouting priority 100; policy accept;",
}
_OF_NETWORK = ("raw", "from", "to", "post")
_KEY = re.compile(r"[0-9a-f]{12}")
_STALE = re.compile(rf"(?:{'|'.join(_OF_NETWORK)})_[0-9a-f]{{12}}|to_containers")


@frozen
class Forwarding:
    """A host port carried to a container.  `host_ip` 0.0.0.0 or :: = every address of the host."""

    protocol: str
    host_ip: Address
    host_port: int
    address: Address
    container_port: int

    def __post_init__(self) -> None:
        ports = (self.host_port, self.container_port)
        right = self.protocol in _PROTOCOLS and all(0 < port < 65536 for port in ports)
        if not right or self.host_ip.version != self.address.version:
            raise ValueError(f"not a port forwarding: {self!r}")


@frozen
class NetworkRules:
    """What the rules of one bridge depend on.  `key` is 12 hex digits of the network's id;
    `gateways` are the host's addresses on it; `source` what its containers go out as."""

    key: str
    bridge: str
    subnets: tuple[Subnet, ...]
    gateways: tuple[Address, ...] = ()
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    source: Address | None = None

    def __post_init__(self) -> None:
        checked_interface(self.bridge)
        if not _KEY.fullmatch(self.key):
            raise ValueError(f"not a network's key: {self.key!r}")

    @property
    def six(self) -> bool:
        return any(one.version == 6 for one in self.subnets)


@frozen
class Plan:
    """What the rules depend on, besides the published ports.

    `guarded` are interface indexes between which nothing is forwarded: those that were there when
    the agent turned forwarding on, so that this does not make a router of the host; `guarded6` the
    same for IPv6.
    """

    table: str
    networks: Mapping[str, NetworkRules]  # by key
    agent_ports: tuple[int, ...] = ()
    block_metadata: bool = False
    guarded: tuple[int, ...] = ()
    guarded6: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        checked_table(self.table)
        if not all(0 < port < 65536 for port in self.agent_ports):
            raise ValueError(f"not ports: {self.agent_ports!r}")


def assertion(
    plan: Plan,
    forwardings: Iterable[Forwarding],
    *,
    user_rules: Iterable[str] = (),
    afresh: bool = False,
    present: Iterable[str] = (),
) -> str:
    """One transaction after which the table is exactly as planned, whatever it was before.

    The chain `user` keeps what it has; `user_rules` are added to it (for when the table was gone).
    `afresh` deletes the table first: for a table in which somebody made something else of ours.
    `present`: the chains that are there; those of networks that are no more go.
    """
    table = f"inet {plan.table}"
    lines = [f"add table {table}"]
    if afresh:
        lines += [f"delete table {table}", f"add table {table}"]
    lines.append(f"add chain {table} {USER_CHAIN}")
    lines += [f"add rule {table} {USER_CHAIN} {rule}" for rule in user_rules]
    # Chains before the elements that jump to them.
    for name, hook in _CHAIN_TYPES.items():
        lines.append(f"add chain {table} {name} {{ {hook} }}")
        lines.append(f"flush chain {table} {name}")
    for one in plan.networks.values():
        lines += _network_chains(plan, one)
    for name, (shape, ip) in _MAP_TYPES.items():
        kind, _, rest = shape.format(name=name, ip=ip).partition(" ")
        lines.append(f"add {kind} {table} {rest}")
        lines.append(f"flush {kind} {table} {name}")
    for chain, rules in _rules(plan).items():
        lines += [f"add rule {table} {chain} {rule}" for rule in rules]
    for one in plan.networks.values():
        lines += _network_chain_rules(plan, one)
        lines += _network_elements("add", table, one)
    lines += _elements("add", table, forwardings)
    if not afresh:
        lines += _drop_chains(table, stale_chains(plan, present))
    return "\n".join(lines) + "\n"


def publish(plan: Plan, forwardings: Iterable[Forwarding]) -> str:
    """One transaction that adds ports; "" when there are none."""
    return _text(_elements("add", f"inet {plan.table}", forwardings))


def withdraw(plan: Plan, forwardings: Iterable[Forwarding]) -> str:
    """One transaction that takes all ports of one container address away; "" when none."""
    return _text(_elements("delete", f"inet {plan.table}", forwardings))


def add_network(plan: Plan, one: NetworkRules) -> str:
    """One transaction that adds a network to a table that is as planned."""
    lines = [*_network_chains(plan, one), *_network_chain_rules(plan, one)]
    return _text([*lines, *_network_elements("add", f"inet {plan.table}", one)])


def drop_network(plan: Plan, one: NetworkRules) -> str:
    """One transaction that takes it away."""
    table = f"inet {plan.table}"
    chains = [f"{kind}_{one.key}" for kind in _OF_NETWORK]
    return _text([*_network_elements("delete", table, one), *_drop_chains(table, chains)])


def removal(table: str) -> str:
    name = checked_table(table)
    return f"add table inet {name}\ndelete table inet {name}\n"


def user_rules_in(listing: str) -> tuple[str, ...]:
    """The rules in what `list chain` printed for the chain `user`."""
    body = listing.partition(f"chain {USER_CHAIN} {{")[2].rpartition("}")[0].rpartition("}")[0]
    return tuple(line.strip() for line in body.splitlines() if line.strip())


def stale_chains(plan: Plan, present: Iterable[str]) -> list[str]:
    """Of the chains that are there, those of networks that are not in the plan."""
    wanted = {f"{kind}_{key}" for key in plan.networks for kind in _OF_NETWORK}
    return [one for one in present if _STALE.fullmatch(one) and one not in wanted]


def _drop_chains(table: str, chains: Iterable[str]) -> list[str]:
    names = list(chains)
    flushes = [f"flush chain {table} {name}" for name in names]
    return [*flushes, *(f"delete chain {table} {name}" for name in names)]


def _rules(plan: Plan) -> dict[str, list[str]]:
    address_key = "ip daddr . meta l4proto . th dport"
    any_key = "meta l4proto . th dport"
    dnat = [
        f"fib daddr type local dnat ip to {address_key} map @dnat_address",
        f"fib daddr type local dnat ip to {any_key} map @dnat_any",
        f"fib daddr type local dnat ip6 to ip6 daddr . {any_key} map @dnat_address6",
        f"fib daddr type local dnat ip6 to {any_key} map @dnat_any6",
    ]
    agent_ports = ", ".join(str(port) for port in plan.agent_ports)
    return {
        "raw_prerouting": [
            'iifname != "lo" ip daddr 127.0.0.0/8 drop',
            'iifname != "lo" ip saddr 127.0.0.0/8 drop',
            "ip daddr vmap @raw_to",
            "ip6 daddr vmap @raw_to6",
        ],
        "prerouting": dnat,
        "output": dnat,
        "input": [f"iifname @bridges tcp dport {{ {agent_ports} }} drop"] if agent_ports else [],
        "forward": [
            f"jump {USER_CHAIN}",
            "iifname vmap @from_bridge",
            "oifname vmap @to_bridge",
            *_guard("", plan.guarded),
            *_guard("meta nfproto ipv6 ", plan.guarded6),
        ],
        "postrouting": [
            "oifname @bridges ip saddr 127.0.0.0/8 ct status dnat masquerade",
            "ip saddr vmap @post_from",
            "ip6 saddr vmap @post_from6",
        ],
    }


def _guard(family: str, links: tuple[int, ...]) -> list[str]:
    shown = ", ".join(str(index) for index in links)
    return [f"{family}iif {{ {shown} }} oif {{ {shown} }} drop"] if links else []


def _network_chains(plan: Plan, one: NetworkRules) -> list[str]:
    """Empty ones: before the maps whose elements jump to them, which come before the rules that
    look into them."""
    names = [f"inet {plan.table} {kind}_{one.key}" for kind in _OF_NETWORK]
    return [f"{verb} chain {name}" for name in names for verb in ("add", "flush")]


def _network_chain_rules(plan: Plan, one: NetworkRules) -> list[str]:
    return [
        f"add rule inet {plan.table} {kind}_{one.key} {rule}"
        for kind, rules in _network_rules(plan, one).items()
        for rule in rules
    ]


def _network_rules(plan: Plan, one: NetworkRules) -> dict[str, list[str]]:
    bridge = f'"{one.bridge}"'
    closed = [] if one.six else ["meta nfproto ipv6 drop"]
    metadata = [f"ip daddr {METADATA_ADDRESS} drop", f"ip6 daddr {METADATA_ADDRESS6} drop"]
    return {
        "raw": [
            f'iifname {{ "lo", {bridge} }} return',
            *(f"{_word(gateway)} daddr {gateway} return" for gateway in one.gateways),
            # Answers come to the container's own address where nothing is masqueraded: then it is
            # to_KEY alone that keeps the rest out.
            *(["drop"] * (one.masquerade or one.internal)),
        ],
        "from": [
            *closed,
            *(metadata * plan.block_metadata),
            *([f"oifname != {bridge} drop"] * one.internal),
        ],
        "to": [
            *closed,
            *([f"iifname != {bridge} drop"] * one.internal),
            "ct state established,related accept",
            *([f"iifname {bridge} accept"] * one.icc),
            "ip daddr . meta l4proto . th dport @published ct status dnat accept",
            "ip6 daddr . meta l4proto . th dport @published6 ct status dnat accept",
            # Neighbour discovery of the bridge itself is input and output, never forwarded.
            "drop",
        ],
        "post": [
            *([_outwards(one)] * (one.masquerade and not one.internal)),
            *([_outwards6(one)] * bool(one.masquerade and not one.internal and one.source)),
            f"oifname {bridge} ct status dnat masquerade",
        ],
    }


def _outwards(one: NetworkRules) -> str:
    if one.source is None:
        return f'oifname != "{one.bridge}" masquerade'
    return f'oifname != "{one.bridge}" meta nfproto ipv4 snat ip to {one.source}'


def _outwards6(one: NetworkRules) -> str:
    return f'oifname != "{one.bridge}" meta nfproto ipv6 masquerade'


def _network_elements(verb: str, table: str, one: NetworkRules) -> list[str]:
    bridge = f'"{one.bridge}"'
    lines = [
        f"{verb} element {table} from_bridge {{ {bridge} : jump from_{one.key} }}",
        f"{verb} element {table} to_bridge {{ {bridge} : jump to_{one.key} }}",
        f"{verb} element {table} bridges {{ {bridge} }}",
    ]
    for subnet in one.subnets:
        six = "" if subnet.version == 4 else "6"
        for name, kind in (("raw_to", "raw"), ("post_from", "post")):
            target = f"jump {kind}_{one.key}"
            lines.append(f"{verb} element {table} {name}{six} {{ {subnet} : {target} }}")
    return lines


def _word(address: Address) -> str:
    return "ip" if address.version == 4 else "ip6"


def _elements(verb: str, table: str, forwardings: Iterable[Forwarding]) -> list[str]:
    found: dict[str, dict[str, None]] = {}  # ordered sets
    for one in forwardings:
        six = "" if one.address.version == 4 else "6"
        target = f"{one.address} . {one.container_port}"
        if int(one.host_ip) == 0:
            name, key = f"dnat_any{six}", f"{one.protocol} . {one.host_port}"
        else:
            name = f"dnat_address{six}"
            key = f"{one.host_ip} . {one.protocol} . {one.host_port}"
        found.setdefault(name, {})[f"{key} : {target}"] = None
        allowed = f"{one.address} . {one.protocol} . {one.container_port}"
        found.setdefault(f"published{six}", {})[allowed] = None
    return [
        f"{verb} element {table} {name} {{ {', '.join(elements)} }}"
        for name, elements in sorted(found.items())
    ]


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""
