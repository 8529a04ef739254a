"""The nftables rules as text, computed from a plan.  Pure.

One table `inet NAME`.  Ports are elements of two DNAT maps and one set, so publishing is adding
elements and never a new rule.  Everything in the text is a number, an IPv4 address, a word of a
closed set or a name that `agent.net.names` has checked: no name from a client gets here (case 114).
Text and not JSON because libnftables 1.0.6 dies with SIGSEGV on the JSON of a map with
concatenated data, which would take the agent with it.

The chain `user` belongs to the operator: it is the first thing a forwarded packet meets, it sees
published ports after DNAT (`meta l4proto tcp ct original proto-dst 80` is the host port), and it is
never flushed.

The ways of a packet (security.md C20, C35, C36; cases 100-106):
- from elsewhere to a container's address or to 127/8: dropped in raw_prerouting, before conntrack;
- from elsewhere or from a container to a published host port: prerouting, DNAT, forward accepts;
- from the host itself to a published port: output, DNAT; 127/8 as source is masqueraded;
- from a container back to its own bridge by a host port (hairpin): masqueraded, so that the answer
  comes back through the host without help from br_netfilter;
- from a container to the agent's port on any host address: dropped in input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from agent.net.names import checked_interface, checked_table

USER_CHAIN = "user"
METADATA_ADDRESS = IPv4Address("169.254.169.254")
_PROTOCOLS = ("tcp", "udp")
_MAP_TYPES = {
    "dnat_address": "map {name} {{ type ipv4_addr . inet_proto . inet_service "
    ": ipv4_addr . inet_service; }}",
    "dnat_any": "map {name} {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}",
    "published": "set {name} {{ type ipv4_addr . inet_proto . inet_service; }}",
}
_CHAIN_TYPES = {
    "raw_prerouting": "type filter hook prerouting priority -300; policy accept;",
    "prerouting": "type nat hook prerouting priority -100; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "input": "type filter hook input priority 0; policy accept;",
    "forward": "type filter hook forward priority 0; policy accept;",
    "postrouting": "type nat hook postrouting priority 100; policy accept;",
    "to_containers": "",
}


@dataclass(frozen=True)
class Forwarding:
    """A host port carried to a container.  `host_ip` 0.0.0.0 = every address of the host."""

    protocol: str
    host_ip: IPv4Address
    host_port: int
    address: IPv4Address
    container_port: int

    def __post_init__(self) -> None:
        ports = (self.host_port, self.container_port)
        if self.protocol not in _PROTOCOLS or not all(0 < port < 65536 for port in ports):
            raise ValueError(f"not a port forwarding: {self!r}")


@dataclass(frozen=True)
class Plan:
    """What the rules depend on, besides the published ports.

    `guarded` are interface indexes between which nothing is forwarded: those that were there when
    the agent turned forwarding on, so that this does not make a router of the host.
    """

    table: str
    bridge: str
    subnet: IPv4Network
    gateway: IPv4Address
    agent_ports: tuple[int, ...] = ()
    block_metadata: bool = False
    guarded: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        checked_table(self.table)
        checked_interface(self.bridge)
        if not all(0 < port < 65536 for port in self.agent_ports):
            raise ValueError(f"not ports: {self.agent_ports!r}")


def assertion(
    plan: Plan,
    forwardings: Iterable[Forwarding],
    *,
    user_rules: Iterable[str] = (),
    afresh: bool = False,
) -> str:
    """One transaction after which the table is exactly as planned, whatever it was before.

    The chain `user` keeps what it has; `user_rules` are added to it (for when the table was gone).
    `afresh` deletes the table first: for a table in which somebody made something else of ours.
    """
    table = f"inet {plan.table}"
    lines = [f"add table {table}"]
    if afresh:
        lines += [f"delete table {table}", f"add table {table}"]
    lines.append(f"add chain {table} {USER_CHAIN}")
    lines += [f"add rule {table} {USER_CHAIN} {rule}" for rule in user_rules]
    for name, shape in _MAP_TYPES.items():
        kind, _, rest = shape.format(name=name).partition(" ")
        lines.append(f"add {kind} {table} {rest}")
        lines.append(f"flush {kind} {table} {name}")
    for name, hook in _CHAIN_TYPES.items():
        lines.append(f"add chain {table} {name}" + (f" {{ {hook} }}" if hook else ""))
        lines.append(f"flush chain {table} {name}")
    for chain, rules in _rules(plan).items():
        lines += [f"add rule {table} {chain} {rule}" for rule in rules]
    lines += _elements("add", table, forwardings)
    return "\n".join(lines) + "\n"


def publish(plan: Plan, forwardings: Iterable[Forwarding]) -> str:
    """One transaction that adds ports; "" when there are none."""
    return _text(_elements("add", f"inet {plan.table}", forwardings))


def withdraw(plan: Plan, forwardings: Iterable[Forwarding]) -> str:
    """One transaction that takes all ports of one container address away; "" when none."""
    return _text(_elements("delete", f"inet {plan.table}", forwardings))


def removal(table: str) -> str:
    name = checked_table(table)
    return f"add table inet {name}\ndelete table inet {name}\n"


def user_rules_in(listing: str) -> tuple[str, ...]:
    """The rules in what `list chain` printed for the chain `user`."""
    body = listing.partition(f"chain {USER_CHAIN} {{")[2].rpartition("}")[0].rpartition("}")[0]
    return tuple(line.strip() for line in body.splitlines() if line.strip())


def _rules(plan: Plan) -> dict[str, list[str]]:
    bridge, subnet = f'"{plan.bridge}"', plan.subnet
    address_key = "ip daddr . meta l4proto . th dport"
    dnat = [
        f"fib daddr type local dnat ip to {address_key} map @dnat_address",
        "fib daddr type local dnat ip to meta l4proto . th dport map @dnat_any",
    ]
    agent_ports = ", ".join(str(port) for port in plan.agent_ports)
    guarded = ", ".join(str(index) for index in plan.guarded)
    return {
        "raw_prerouting": [
            'iifname != "lo" ip daddr 127.0.0.0/8 drop',
            'iifname != "lo" ip saddr 127.0.0.0/8 drop',
            f'iifname != {{ "lo", {bridge} }} ip daddr {subnet} ip daddr != {plan.gateway} drop',
        ],
        "prerouting": dnat,
        "output": dnat,
        "input": [f"iifname {bridge} tcp dport {{ {agent_ports} }} drop"] if agent_ports else [],
        "forward": [
            f"jump {USER_CHAIN}",
            f"iifname {bridge} meta nfproto ipv6 drop",
            f"oifname {bridge} meta nfproto ipv6 drop",
            *([f"iifname {bridge} ip daddr {METADATA_ADDRESS} drop"] * plan.block_metadata),
            f"oifname {bridge} jump to_containers",
            *([f"iif {{ {guarded} }} oif {{ {guarded} }} drop"] if guarded else []),
        ],
        "to_containers": [
            "ct state established,related accept",
            f"iifname {bridge} accept",
            f"{address_key} @published ct status dnat accept",
            "drop",
        ],
        "postrouting": [
            f"ip saddr {subnet} oifname != {bridge} masquerade",
            f"oifname {bridge} ip saddr {{ 127.0.0.0/8, {subnet} }} ct status dnat masquerade",
        ],
    }


def _elements(verb: str, table: str, forwardings: Iterable[Forwarding]) -> list[str]:
    found: dict[str, dict[str, None]] = {name: {} for name in _MAP_TYPES}  # ordered sets
    for one in forwardings:
        target = f"{one.address} . {one.container_port}"
        if one.host_ip == IPv4Address(0):
            found["dnat_any"][f"{one.protocol} . {one.host_port} : {target}"] = None
        else:
            key = f"{one.host_ip} . {one.protocol} . {one.host_port}"
            found["dnat_address"][f"{key} : {target}"] = None
        found["published"][f"{one.address} . {one.protocol} . {one.container_port}"] = None
    return [
        f"{verb} element {table} {name} {{ {', '.join(elements)} }}"
        for name, elements in found.items()
        if elements
    ]


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""
