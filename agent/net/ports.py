"""Host ports: parse what was asked for, find free ones, and hold them.

A published port has no proxy process: rules carry its traffic.  What reserves it on the host is a
bound socket that never listens: another host process gets EADDRINUSE, and a connection that comes
while the rules are being put back is refused at once instead of hanging in a backlog.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Protocol

from agent.engine.model import PortBinding, PublishedPort
from agent.errors import EngineError, Kind, internal, invalid
from agent.net.ipam import Address
from agent.values import frozen

ANY = IPv4Address(0)
ANY6 = IPv6Address(0)
_HOST_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_PROTOCOLS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_RANGE_FILE = "/proc/sys/net/ipv4/ip_local_port_range"
_DEFAULT_RANGE = (49153, 65535)  # moby's, when the kernel's cannot be read


class Held(Protocol):
    """What keeps a port: closing it gives the port back."""

    def close(self) -> None: ...


Binder = Callable[[str, Address, int], Held]


@frozen
class Wanted:
    """A port binding, parsed.  `first` 0 = any port; else one of first..last.

    `follows`: the very port that the wanted one before it has got.
    """

    container_port: int
    protocol: str
    address: Address
    first: int
    last: int
    follows: bool = False


def parse_binding(binding: PortBinding, default: str = "") -> Wanted:
    """Check one binding.  `default` is the host address when none is given.  Raises INVALID with
    docker's texts."""
    protocol = binding.protocol.lower()
    if protocol not in _PROTOCOLS:
        raise invalid(f"invalid protocol: {binding.protocol}")
    if not 0 < binding.container_port < 65536:
        raise invalid(f"invalid port specification: {binding.container_port!r}")
    first, last = parse_host_port(binding.host_port)
    address = parse_host_ip(binding.host_ip or default)
    return Wanted(binding.container_port, protocol, address, first, last)


def expand(
    bindings: Iterable[PortBinding], *, four: bool, six: bool, defaults: tuple[str, str] = ("", "")
) -> list[Wanted]:
    """What to take for an endpoint that has these address families: a binding without a host
    address is wanted in both, on one port.  Raises as parse_binding, INVALID for a family that
    the network does not have."""
    found: list[Wanted] = []
    for binding in bindings:
        if binding.host_ip:
            want = parse_binding(binding)
            if not (four if want.address.version == 4 else six):
                raise invalid(
                    f"cannot publish on {binding.host_ip}: the network has no "
                    f"IPv{want.address.version} subnet"
                )
            found.append(want)
            continue
        if four:
            found.append(parse_binding(binding, defaults[0]))
        if six:
            want = parse_binding(binding, defaults[1] or "::")
            found.append(dataclasses.replace(want, follows=four))
    return found


def parse_host_port(given: str) -> tuple[int, int]:
    """ "" and "0" -> (0, 0); "80" -> (80, 80); "8000-8010" -> (8000, 8010).  Raises INVALID."""
    if given in ("", "0"):
        return 0, 0
    found = _HOST_PORT.fullmatch(given)
    if found is None:
        raise invalid(f"invalid port specification: {given!r}")
    first = int(found[1])
    last = int(found[2] or first)
    if not 0 < first <= last < 65536:
        raise invalid(f"invalid port specification: {given!r}")
    return first, last


def parse_host_ip(given: str) -> Address:
    """ "" is every IPv4 address, "::" every IPv6 one.  Raises INVALID."""
    if given == "":
        return ANY
    try:
        return ip_address(given.strip("[]"))
    except (AddressValueError, ValueError):
        raise invalid(f"invalid IP address: {given}") from None


def local_port_range(path: str = _RANGE_FILE) -> tuple[int, int]:
    """The kernel's range for ephemeral ports, both ends included."""
    try:
        with open(path, encoding="ascii") as file:
            first, last = (int(word) for word in file.read().split())
    except (OSError, ValueError):
        return _DEFAULT_RANGE
    return (first, last) if 0 < first <= last < 65536 else _DEFAULT_RANGE


class _Nothing:
    """Holds nothing."""

    def close(self) -> None:
        return None


def bind(protocol: str, address: Address, port: int) -> Held:
    """Reserve a port with a bound, never listening socket.  Raises OSError as bind(2)."""
    kind, number = _PROTOCOLS[protocol]
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        held = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if protocol != "sctp" or error.errno != errno.EPROTONOSUPPORT:
            raise
        return _Nothing()  # no process of a kernel without SCTP can take such a port
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            held.bind((str(address), port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or kind != socket.SOCK_STREAM:
                raise
            _bind_over_closing(held, address, port)
        if kind == socket.SOCK_DGRAM:  # nobody reads it: keep the least that the kernel allows
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    except OSError:
        held.close()
        raise
    return held


def _bind_over_closing(held: socket.socket, address: Address, port: int) -> None:
    """Bind where only old connections in TIME_WAIT stand in the way.

    SO_REUSEADDR passes over them and over other such bound sockets, not over listeners.  It is
    taken away after the bind, else any process with that option (all servers have it) could
    listen on the port beside us.
    """
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((str(address), port))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


class HostPorts:
    """Who holds which host port.  Not thread-safe: its owner holds a lock."""

    def __init__(
        self, binder: Binder = bind, ephemeral: Callable[[], tuple[int, int]] = local_port_range
    ) -> None:
        self._binder = binder
        self._ephemeral = ephemeral
        self._last_ephemeral = 0
        self._held: dict[str, dict[tuple[str, Address, int], Held | None]] = {}
        self._users: dict[tuple[str, int], set[Address]] = {}

    def allocate(self, owner: str, wanted: Sequence[Wanted]) -> tuple[PublishedPort, ...]:
        """Take all of them or none.  Raises INTERNAL with docker's texts."""
        published: list[PublishedPort] = []
        try:
            for want in wanted:
                if want.follows:
                    port = published[-1].host_port
                    self._take(owner, want, port)
                else:
                    port = self._allocate_one(owner, want)
                published.append(
                    PublishedPort(want.container_port, want.protocol, str(want.address), port)
                )
        except EngineError:
            self.release(owner)
            raise
        return tuple(published)

    def adopt(self, owner: str, ports: Iterable[PublishedPort]) -> list[str]:
        """Hold a survivor's ports again.  Returns a line for each that a host process has taken
        meanwhile: the rules still carry that port's traffic to the container."""
        troubles: list[str] = []
        for port in ports:
            address = parse_host_ip(port.host_ip)
            try:
                held: Held | None = self._binder(port.protocol, address, port.host_port)
            except OSError as error:
                troubles.append(f"{address}:{port.host_port}/{port.protocol}: {error.strerror}")
                held = None
            self._note(owner, (port.protocol, address, port.host_port), held)
        return troubles

    def release(self, owner: str) -> None:
        """Idempotent."""
        for (protocol, address, port), held in self._held.pop(owner, {}).items():
            users = self._users.get((protocol, port), set())
            users.discard(address)
            if not users:
                self._users.pop((protocol, port), None)
            if held is not None:
                with contextlib.suppress(OSError):
                    held.close()

    def close(self) -> None:
        """Give every port back."""
        for owner in list(self._held):
            self.release(owner)

    def _allocate_one(self, owner: str, want: Wanted) -> int:
        if want.first == want.last != 0:
            self._take(owner, want, want.first)
            return want.first
        for port in self._candidates(want):
            try:
                self._take(owner, want, port)
            except EngineError as error:
                if error.kind is not Kind.INTERNAL:
                    raise
                continue
            if want.first == 0:
                self._last_ephemeral = port
            return port
        raise internal(f"Bind for {want.address}:{want.first} failed: all ports are allocated")

    def _candidates(self, want: Wanted) -> Iterable[int]:
        if want.first:
            return range(want.first, want.last + 1)
        first, last = self._ephemeral()
        count = last - first + 1
        start = self._last_ephemeral + 1 - first if first <= self._last_ephemeral <= last else 0
        return (first + (start + step) % count for step in range(count))

    def _take(self, owner: str, want: Wanted, port: int) -> None:
        users = self._users.get((want.protocol, port), set())
        users = {one for one in users if one.version == want.address.version}
        anywhere = ANY if want.address.version == 4 else ANY6
        if users and (want.address == anywhere or anywhere in users or want.address in users):
            raise internal(f"Bind for {want.address}:{port} failed: port is already allocated")
        try:
            held = self._binder(want.protocol, want.address, port)
        except OSError as error:
            raise internal(_bind_text(want, port, error)) from error
        self._note(owner, (want.protocol, want.address, port), held)

    def _note(self, owner: str, key: tuple[str, Address, int], held: Held | None) -> None:
        self._held.setdefault(owner, {})[key] = held
        self._users.setdefault((key[0], key[2]), set()).add(key[1])


def _bind_text(want: Wanted, port: int, error: OSError) -> str:
    words = (error.strerror or str(error)).lower()
    return f"listen {want.protocol}{want.address.version} {want.address}:{port}: bind: {words}"
