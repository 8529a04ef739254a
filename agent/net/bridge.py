"""The bridge and the containers' cables on it: what is done to links, by netlink."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Iterable, Sequence

from agent.net import cables, rtnetlink, sysctl
from agent.net.cables import Plug
from agent.net.ipam import Subnet
from agent.net.names import is_veth_name, veth_name
from agent.net.netlink import Message, NetlinkError
from agent.net.rtnetlink import Interface, Link, Rtnetlink

# The link group of bridges that are about to go; ours alone, by its odd number.
_RETIRED = 0x6D616368
_log = logging.getLogger(__name__)


class Bridge:
    """One bridge of the network namespace in which the calls are made.  Raises OSError.

    `isolated`: its ports do not reach each other (icc=false).  Where br_netfilter hands bridged
    packets to the rules, these do it (and let published ports through, which the kernel then
    bridges); elsewhere the ports themselves are isolated.
    """

    def __init__(self, name: str, mtu: int, mac: str, *, isolated: bool = False) -> None:
        self.name = name
        self._mtu = mtu
        self._mac = mac
        self._apart = isolated
        self._index = 0

    def ensure(self, addresses: Sequence[Interface]) -> None:
        """The bridge exists, is up, and has exactly these addresses.  Idempotent."""
        with Rtnetlink() as netlink:
            link = netlink.link(self.name)
            if link is None:
                netlink.perform([rtnetlink.create_bridge(self.name, self._mac, self._mtu)])
                link = netlink.link(self.name)
            if link is None or link.kind != "bridge":
                raise FileExistsError(errno.EEXIST, f"interface {self.name} is not a bridge")
            self._index = link.index
            six = any(one.version == 6 for one in addresses)
            sysctl.put(f"ipv6/conf/{self.name}/accept_ra", "0")
            sysctl.put(f"ipv6/conf/{self.name}/disable_ipv6", "0" if six else "1")
            netlink.perform(self._changes(link, netlink.addresses(link.index), addresses))

    def _changes(
        self, link: Link, present: Sequence[Interface], wanted: Sequence[Interface]
    ) -> list[Message]:
        changes = [
            rtnetlink.delete_address(link.index, one) for one in present if one not in wanted
        ]
        changes += [rtnetlink.add_address(link.index, one) for one in wanted]
        if link.mac != self._mac:
            changes.append(rtnetlink.set_mac(link.index, self._mac))
        if link.mtu != self._mtu:
            changes.append(rtnetlink.set_mtu(link.index, self._mtu))
        changes.append(rtnetlink.set_up(link.index))
        return changes

    @property
    def _isolated(self) -> bool:
        seen = all(sysctl.get(f"bridge/bridge-nf-call-{one}tables") == "1" for one in ("ip", "ip6"))
        return self._apart and not seen

    def adopt(self, endpoints: Iterable[str]) -> None:
        """The live endpoints' cables are on the bridge; what looks like ours and is nobody's goes."""
        wanted = {veth_name(endpoint) for endpoint in endpoints}
        with Rtnetlink() as netlink:
            for link in netlink.links():
                if link.kind != "veth" or not is_veth_name(link.name):
                    continue
                if link.name in wanted:
                    if link.master != self._index:
                        netlink.perform(
                            [
                                rtnetlink.set_master(link.index, self._index),
                                rtnetlink.enable_port(link.name, isolated=self._isolated),
                            ]
                        )
                elif link.master == self._index:
                    _log.warning("removing %s: its endpoint is gone", link.name)
                    netlink.perform([rtnetlink.delete_link(link.name)])

    def plug(self, endpoint: str, pid: int, plug: Plug) -> None:
        """A cable from the bridge into that process's namespace, ready for traffic.

        On failure nothing of it is left.
        """
        name = veth_name(endpoint)
        with cables.namespace_of(pid) as namespace, Rtnetlink() as netlink:
            request = rtnetlink.create_veth(
                name,
                master=self._index,
                mtu=self._mtu,
                peer=plug.interface,
                peer_mac=plug.mac,
                peer_namespace=namespace,
            )
            try:
                netlink.perform([request])
            except NetlinkError as error:
                if error.errno != errno.EEXIST or not self._is_stale(netlink, name):
                    raise
                netlink.perform([rtnetlink.delete_link(name), request])
            try:
                # A bridge port needs no address of its own.
                sysctl.put(f"ipv6/conf/{name}/disable_ipv6", "1")
                netlink.perform([rtnetlink.enable_port(name, isolated=self._isolated)])
                cables.configure(namespace, plug)
            except (OSError, RuntimeError):
                with contextlib.suppress(OSError):
                    netlink.perform([rtnetlink.delete_link(name)])
                raise

    def unplug(self, endpoint: str) -> None:
        """Idempotent.  Takes 20 ms and holds the kernel's link lock (RCU): see `cable`, `cut`."""
        with Rtnetlink() as netlink:
            netlink.perform([rtnetlink.delete_link(veth_name(endpoint))])

    def cable(self, endpoint: str) -> int | None:
        """The index of that endpoint's cable, None when it has none."""
        with Rtnetlink() as netlink:
            link = netlink.link(veth_name(endpoint))
            return None if link is None else link.index

    def remove(self) -> None:
        """Idempotent.  The bridge, and every cable of ours on it."""
        with Rtnetlink() as netlink:
            link = netlink.link(self.name)
            if link is None or link.kind != "bridge":
                return
            self._index = link.index
            self.adopt(())
            netlink.perform([rtnetlink.delete_link_by_index(link.index)])

    def retire(self) -> int | None:
        """Takes its addresses away, and so its routes: all of it that others notice.  `cut_retired`
        takes the rest, or `cut` with the index that comes back (None = it is not there)."""
        with Rtnetlink() as netlink:
            link = netlink.link(self.name)
            if link is None or link.kind != "bridge":
                return None
            present = netlink.addresses(link.index)
            changes = [rtnetlink.delete_address(link.index, one) for one in present]
            netlink.perform([*changes, rtnetlink.set_group(link.index, _RETIRED)])
            return link.index

    def _is_stale(self, netlink: Rtnetlink, name: str) -> bool:
        """Whether that cable was left by an earlier try for the same endpoint, or has just gone."""
        link = netlink.link(name)
        return link is None or (link.kind == "veth" and link.master in (0, self._index))


def foreign_routes(own: Iterable[str]) -> list[tuple[Subnet, bool]]:
    """(destination, has a gateway) of the host's routes that are not over `own` interfaces."""
    with Rtnetlink() as netlink:
        names = set(own)
        indexes = {link.index for link in netlink.links() if link.name in names}
        return [
            (route.destination, route.gateway is not None)
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in netlink.routes(family)
            if route.link not in indexes or route.link == 0
        ]


def host_links() -> list[Link]:
    with Rtnetlink() as netlink:
        return netlink.links()


def cut_retired() -> None:
    """The end of all retired bridges.  Idempotent.  Each end holds the kernel's link lock for 20 to
    70 ms, and so does the end of many: that is what the group is for."""
    with Rtnetlink() as netlink:
        netlink.perform([rtnetlink.delete_group(_RETIRED)])


def cut(index: int) -> None:
    """Deletes a link.  Idempotent.  By index, which the kernel does not give twice."""
    with Rtnetlink() as netlink:
        netlink.perform([rtnetlink.delete_link_by_index(index)])
