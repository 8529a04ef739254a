"""A lab's network: a bridge in a namespace of its own, hosts plugged into it, one veth to the root.

The bridge is not in the root namespace: a Docker Engine there would make iptables eat what passes
(FORWARD DROP with br_netfilter). The root namespace gets one interface with one address, no more.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.process import run

_NETNS = Path("/run/netns")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def check_name(name: str) -> str:
    """`name` itself; raises LabError when it is not fit for a lab or host."""
    if not _NAME.fullmatch(name):
        raise LabError(f"bad name {name!r}: lower-case letters, digits and '-', at most 31")
    return name


@dataclass(frozen=True)
class Subnet:
    """The network of lab `lab`: 10.77.`index`.0/24."""

    lab: str
    index: int

    @property
    def gateway(self) -> str:
        """The root namespace's address."""
        return self.address(1)

    @property
    def uplink(self) -> str:
        """The interface in the root namespace."""
        return f"mlab{self.index}"

    @property
    def switch(self) -> str:
        """The namespace that holds the bridge."""
        return netns_name(self.lab, "switch")

    def address(self, number: int) -> str:
        """Host `number`'s IPv4 address."""
        return f"10.77.{self.index}.{number}"


@dataclass(frozen=True)
class Plug:
    """One host's cable: its namespace, address and port on the bridge.

    With `tap` the namespace is a virtual machine's emulator's: that device is joined to the cable,
    and the address and hardware address are the guest's.
    """

    switch: str
    netns: str
    ip: str
    gateway: str
    tap: str = ""

    @property
    def port(self) -> str:
        """The bridge's end."""
        return f"port{self.ip.rpartition('.')[2]}"

    @property
    def mac(self) -> str:
        """From the address: a new host at a known address must not wait for stale ARP (8-23 s)."""
        return "02:77:" + ":".join(f"{int(x):02x}" for x in self.ip.split("."))

    def to_json(self) -> dict[str, object]:
        """Plain JSON; Plug(**it) is the inverse."""
        return asdict(self)


def netns_name(lab: str, host: str) -> str:
    """The name of a host's network namespace; '.' cannot be in either part."""
    return f"mlab.{lab}.{host}"


def raise_switch(subnet: Subnet) -> None:
    """Make the lab's bridge and the root's interface, if they are not there yet."""
    switch = subnet.switch
    if Path("/sys/class/net", subnet.uplink).exists():
        return
    run(["ip", "netns", "del", switch], check=False)
    run(["ip", "netns", "add", switch])
    inner = "link add br0 type bridge forward_delay 0\nlink set br0 up\nlink set lo up\n"
    run(["ip", "-n", switch, "-batch", "-"], text=inner)
    new = ["ip", "link", "add", subnet.uplink, "type", "veth", "peer", "name", "up0"]
    run([*new, "netns", switch])
    run(["ip", "-n", switch, "link", "set", "up0", "master", "br0", "up"])
    outer = (
        f"addr add {subnet.gateway}/24 dev {subnet.uplink}\n"
        f"link set {subnet.uplink} addrgenmode none\nlink set {subnet.uplink} up\n"
    )
    run(["ip", "-batch", "-"], text=outer)


def connect(plug: Plug) -> None:
    """Give the host a new, empty network namespace on the bridge (each boot does: as hardware does)."""
    disconnect(plug)
    run(["ip", "netns", "add", plug.netns])
    mac = "" if plug.tap else f" address {plug.mac}"
    cable = (
        f"link add {plug.port} type veth peer name eth0{mac} netns {plug.netns}\n"
        f"link set {plug.port} master br0 up\n"
    )
    run(["ip", "-n", plug.switch, "-batch", "-"], text=cable)
    run(["ip", "-n", plug.netns, "-batch", "-"], text=_joined(plug) if plug.tap else _own(plug))


def _own(plug: Plug) -> str:
    return (
        f"link set lo up\naddr add {plug.ip}/24 brd + dev eth0\nlink set eth0 up\n"
        f"route add default via {plug.gateway}\n"
    )


def _joined(plug: Plug) -> str:
    return (
        "link add joint type bridge forward_delay 0\n"
        f"tuntap add dev {plug.tap} mode tap\nlink set eth0 master joint up\n"
        f"link set {plug.tap} master joint up\nlink set joint up\n"
    )


def disconnect(plug: Plug) -> None:
    """Remove the host's namespace and cable; nothing happens when they are gone."""
    if (_NETNS / plug.netns).exists():
        run(["ip", "-n", plug.switch, "link", "del", plug.port], check=False)
        run(["ip", "netns", "del", plug.netns])


def remove_all(lab: str) -> None:
    """Remove every network namespace of the lab; the root's interface goes with the switch."""
    for path in sorted(_NETNS.glob(f"mlab.{lab}.*")):
        run(["ip", "netns", "del", path.name], check=False)
