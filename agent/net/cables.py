"""What is done inside a container's network namespace: interface, addresses, the way out."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.net import rtnetlink, sysctl
from agent.net.ipam import Address
from agent.net.namespaces import open_namespace, run_inside
from agent.net.netlink import Message, NetlinkError
from agent.net.rtnetlink import Interface, Rtnetlink
from agent.values import frozen

T = TypeVar("T")


@frozen
class Plug:
    """The container's end.  `gateways` are the default routes, when this is the way out;
    `on_link` = a default route without a gateway."""

    interface: str
    mac: str
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...] = ()
    on_link: bool = False

    @property
    def six(self) -> bool:
        return any(one.version == 6 for one in self.addresses)


@contextlib.contextmanager
def namespace_of(pid: int) -> Iterator[int]:
    """A descriptor of the process's network namespace.  Raises OSError."""
    namespace = open_namespace(pid)
    try:
        yield namespace
    finally:
        os.close(namespace)


def configure(namespace: int, plug: Plug) -> None:
    """Addresses, loopback, routes.  Raises OSError."""
    run_inside(namespace, lambda: _done(_configure, plug))


def take_way_out(pid: int, plug: Plug) -> None:
    """All default routes of that namespace are this plug's from now on.  Raises OSError."""
    with namespace_of(pid) as namespace:
        run_inside(namespace, lambda: _done(_take_way_out, plug))


def pull_out(pid: int, interface: str) -> None:
    """Delete an interface in there.  Idempotent; nothing when the process has ended."""

    def delete() -> bool:
        with Rtnetlink() as netlink:
            netlink.perform([rtnetlink.delete_link(interface)])
        return True

    with contextlib.suppress(FileNotFoundError, ProcessLookupError), namespace_of(pid) as namespace:
        run_inside(namespace, delete)


def _done(action: Callable[[Plug], None], plug: Plug) -> bool:
    action(plug)
    return True


def _configure(plug: Plug) -> None:
    name = plug.interface
    # Before it is up: no router solicitation, nothing a spoofed RA can do (case 105); without an
    # IPv6 address no link-local one either.
    sysctl.put(f"ipv6/conf/{name}/accept_ra", "0")
    sysctl.put(f"ipv6/conf/{name}/disable_ipv6", "0" if plug.six else "1")
    with Rtnetlink() as netlink:
        inside = netlink.link(name)
        if inside is None:
            raise NetlinkError(errno.ENODEV, f"find {name} in the container")
        netlink.perform(
            [
                rtnetlink.set_up_by_name("lo"),
                *(rtnetlink.add_address(inside.index, one) for one in plug.addresses),
                rtnetlink.set_up(inside.index),
                *_default_routes(plug, inside.index),
            ]
        )


def _take_way_out(plug: Plug) -> None:
    with Rtnetlink() as netlink:
        inside = netlink.link(plug.interface)
        if inside is None:
            raise NetlinkError(errno.ENODEV, f"find {plug.interface} in the container")
        former = [
            route
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in netlink.routes(family)
            if route.destination.prefixlen == 0
        ]
        netlink.perform([rtnetlink.delete_default_route(route) for route in former])
        netlink.perform(_default_routes(plug, inside.index))


def _default_routes(plug: Plug, index: int) -> list[Message]:
    if plug.on_link:
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        versions = {one.version for one in plug.addresses}
        return [rtnetlink.add_default_link(families[one], index) for one in sorted(versions)]
    return [rtnetlink.add_default_route(gateway) for gateway in plug.gateways]
