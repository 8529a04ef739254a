"""The bridge and the containers' cables on it: what is done to links, by netlink."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from agent.net import rtnetlink, sysctl
from agent.net.names import is_veth_name, mac_of, veth_name
from agent.net.namespaces import open_namespace, run_inside
from agent.net.netlink import NetlinkError
from agent.net.rtnetlink import Link, Rtnetlink

_log = logging.getLogger(__name__)
_INSIDE = "eth0"


class Bridge:
    """One bridge of the network namespace in which the calls are made.  Raises OSError."""

    def __init__(self, name: str, mtu: int) -> None:
        self.name = name
        self._mtu = mtu
        self._index = 0

    def foreign_routes(self) -> list[tuple[IPv4Network, bool]]:
        """(destination, has a gateway) of the routes that are not the bridge's own."""
        with Rtnetlink() as netlink:
            own = netlink.link(self.name)
            index = own.index if own else 0
            return [
                (route.destination, route.gateway is not None)
                for route in netlink.routes()
                if route.link != index or route.link == 0
            ]

    def links(self) -> list[Link]:
        with Rtnetlink() as netlink:
            return netlink.links()

    def ensure(self, gateway: IPv4Interface) -> None:
        """The bridge exists, is up, and has exactly this address.  Idempotent."""
        with Rtnetlink() as netlink:
            link = netlink.link(self.name)
            if link is None:
                netlink.perform([rtnetlink.create_bridge(self.name, mac_of(gateway.ip), self._mtu)])
                link = netlink.link(self.name)
            if link is None or link.kind != "bridge":
                raise FileExistsError(errno.EEXIST, f"interface {self.name} is not a bridge")
            self._index = link.index
            sysctl.put(f"ipv6/conf/{self.name}/accept_ra", "0")
            sysctl.put(f"ipv6/conf/{self.name}/disable_ipv6", "1")
            changes = [
                rtnetlink.delete_address(link.index, address)
                for address in netlink.addresses(link.index)
                if address != gateway
            ]
            changes.append(rtnetlink.add_address(link.index, gateway))
            if link.mac != mac_of(gateway.ip):
                changes.append(rtnetlink.set_mac(link.index, mac_of(gateway.ip)))
            if link.mtu != self._mtu:
                changes.append(rtnetlink.set_mtu(link.index, self._mtu))
            changes.append(rtnetlink.set_up(link.index))
            netlink.perform(changes)

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
                                rtnetlink.enable_port(link.name),
                            ]
                        )
                elif link.master == self._index:
                    _log.warning("removing %s: its endpoint is gone", link.name)
                    netlink.perform([rtnetlink.delete_link(link.name)])

    def plug(
        self, endpoint: str, pid: int, address: IPv4Interface, mac: str, gateway: IPv4Address
    ) -> None:
        """A cable from the bridge to eth0 in that process's namespace, ready for traffic.

        On failure nothing of it is left.
        """
        name = veth_name(endpoint)
        with contextlib.ExitStack() as opened:
            namespace = open_namespace(pid)
            opened.callback(os.close, namespace)
            netlink = opened.enter_context(Rtnetlink())
            request = rtnetlink.create_veth(
                name,
                master=self._index,
                mtu=self._mtu,
                peer=_INSIDE,
                peer_mac=mac,
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
                netlink.perform([rtnetlink.enable_port(name)])
                run_inside(namespace, lambda: _configure(address, gateway))
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

    def cut(self, index: int) -> None:
        """Idempotent.  By index, which the kernel does not give twice."""
        with Rtnetlink() as netlink:
            netlink.perform([rtnetlink.delete_link_by_index(index)])

    def remove(self) -> None:
        """Idempotent.  The bridge, and every cable of ours on it."""
        self.adopt(())
        with Rtnetlink() as netlink:
            netlink.perform([rtnetlink.delete_link(self.name)])

    def _is_stale(self, netlink: Rtnetlink, name: str) -> bool:
        """Whether that cable was left by an earlier try for the same endpoint, or has just gone."""
        link = netlink.link(name)
        return link is None or (link.kind == "veth" and link.master in (0, self._index))


def _configure(address: IPv4Interface, gateway: IPv4Address) -> bool:
    """In the container's namespace: addresses, loopback, the way out."""
    # Before it is up: no link-local address, no router solicitation, nothing a spoofed RA can do.
    sysctl.put(f"ipv6/conf/{_INSIDE}/disable_ipv6", "1")
    with Rtnetlink() as netlink:
        inside = netlink.link(_INSIDE)
        if inside is None:
            raise NetlinkError(errno.ENODEV, f"find {_INSIDE} in the container")
        netlink.perform(
            [
                rtnetlink.set_up_by_name("lo"),
                rtnetlink.add_address(inside.index, address),
                rtnetlink.set_up(inside.index),
                rtnetlink.add_default_route(gateway),
            ]
        )
    return True
