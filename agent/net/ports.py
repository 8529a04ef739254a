"""Host ports: parse what was asked for, find free ones, and hold them.

A published port has no proxy process: rules carry its traffic.  What reserves it on the host is a
bound socket that never listens: another host process gets EADDRINUSE, and a connection that comes
while the rules are being put back is refused at once instead of hanging in a backlog.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Protocol

from agent.engine.model import PortBinding, PublishedPort
from agent.errors import EngineError, Kind, internal, invalid, not_implemented

ANY = IPv4Address(0)
_HOST_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_RANGE_FILE = "/proc/sys/net/ipv4/ip_local_port_range"
_DEFAULT_RANGE = (49153, 65535)  # moby's, when the kernel's cannot be read


class Held(Protocol):
    """What keeps a port: closing it gives the port back."""

    def close(self) -> None: ...


Binder = Callable[[str, IPv4Address, int], Held]


@dataclass(frozen=True)
class Wanted:
    """A port binding, parsed.  `first` 0 = any port; else one of first..last."""

    container_port: int
    protocol: str
    address: IPv4Address
    first: int
    last: int


def parse_binding(binding: PortBinding) -> Wanted:
    """Check one binding.  Raises INVALID with docker's texts, NOT_IMPLEMENTED for IPv6 and SCTP."""
    protocol = binding.protocol.lower()
    if protocol == "sctp":
        raise not_implemented(
            "publishing SCTP ports (PortBindings protocol sctp) is not served yet"
        )
    if protocol not in _PROTOCOLS:
        raise invalid(f"invalid protocol: {binding.protocol}")
    if not 0 < binding.container_port < 65536:
        raise invalid(f"invalid port specification: {binding.container_port!r}")
    first, last = parse_host_port(binding.host_port)
    return Wanted(binding.container_port, protocol, parse_host_ip(binding.host_ip), first, last)


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


def parse_host_ip(given: str) -> IPv4Address:
    """ "" is every IPv4 address.  Raises INVALID, or NOT_IMPLEMENTED for IPv6."""
    if given == "":
        return ANY
    try:
        address = ip_address(given.strip("[]"))
    except (AddressValueError, ValueError):
        raise invalid(f"invalid IP address: {given}") from None
    if isinstance(address, IPv6Address):
        raise not_implemented(f"publishing ports on IPv6 (HostIp {given}) is not served yet")
    return address


def local_port_range(path: str = _RANGE_FILE) -> tuple[int, int]:
    """The kernel's range for ephemeral ports, both ends included."""
    try:
        with open(path, encoding="ascii") as file:
            first, last = (int(word) for word in file.read().split())
    except (OSError, ValueError):
        return _DEFAULT_RANGE
    return (first, last) if 0 < first <= last < 65536 else _DEFAULT_RANGE


def bind(protocol: str, address: IPv4Address, port: int) -> socket.socket:
    """Reserve a port with a bound, never listening socket.  Raises OSError as bind(2)."""
    kind = _PROTOCOLS[protocol]
    held = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
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


def _bind_over_closing(held: socket.socket, address: IPv4Address, port: int) -> None:
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
        self._held: dict[str, dict[tuple[str, IPv4Address, int], Held | None]] = {}
        self._users: dict[tuple[str, int], set[IPv4Address]] = {}

    def allocate(self, owner: str, wanted: Sequence[Wanted]) -> tuple[PublishedPort, ...]:
        """Take all of them or none.  Raises INTERNAL with docker's texts."""
        published: list[PublishedPort] = []
        try:
            for want in wanted:
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
        if users and (want.address == ANY or ANY in users or want.address in users):
            raise internal(f"Bind for {want.address}:{port} failed: port is already allocated")
        try:
            held = self._binder(want.protocol, want.address, port)
        except OSError as error:
            raise internal(_bind_text(want, port, error)) from error
        self._note(owner, (want.protocol, want.address, port), held)

    def _note(self, owner: str, key: tuple[str, IPv4Address, int], held: Held | None) -> None:
        self._held.setdefault(owner, {})[key] = held
        self._users.setdefault((key[0], key[2]), set()).add(key[1])


def _bind_text(want: Wanted, port: int, error: OSError) -> str:
    words = (error.strerror or str(error)).lower()
    return f"listen {want.protocol}4 {want.address}:{port}: bind: {words}"
