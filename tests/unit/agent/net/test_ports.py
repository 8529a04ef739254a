from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address

import pytest

from agent.engine.model import PortBinding, PublishedPort
from agent.errors import EngineError, Kind
from agent.net.ipam import Address
from agent.net.ports import (
    HostPorts,
    expand,
    local_port_range,
    parse_binding,
    parse_host_ip,
    parse_host_port,
)


class Socket:
    def __init__(self, owner: Host, key: tuple[str, Address, int]) -> None:
        self._owner, self._key = owner, key

    def close(self) -> None:
        self._owner.bound.discard(self._key)


class Host:
    """A host with some ports taken by processes."""

    def __init__(self, *busy: int) -> None:
        self.busy = busy
        self.bound: set[tuple[str, Address, int]] = set()

    def bind(self, protocol: str, address: Address, port: int) -> Socket:
        if port in self.busy:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.bound.add((protocol, address, port))
        return Socket(self, (protocol, address, port))


def ports(host: Host, first: int = 40000, last: int = 40003) -> HostPorts:
    return HostPorts(host.bind, lambda: (first, last))


def take(table: HostPorts, owner: str, *bindings: PortBinding) -> list[int]:
    wanted = [parse_binding(binding) for binding in bindings]
    return [port.host_port for port in table.allocate(owner, wanted)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", (0, 0)),
        ("0", (0, 0)),
        ("80", (80, 80)),
        ("8000-8010", (8000, 8010)),
        ("65535", (65535, 65535)),
    ],
)
def test_parse_host_port(given: str, expected: tuple[int, int]) -> None:
    assert parse_host_port(given) == expected


@pytest.mark.parametrize(
    "given", ["x", "-1", "65536", "10-5", "0-5", "80 ", "80\n", "1-2-3", "٨٠", "000080"]
)
def test_host_ports_that_are_none(given: str) -> None:
    with pytest.raises(EngineError, match="invalid port specification") as error:
        parse_host_port(given)
    assert error.value.kind is Kind.INVALID


def test_host_addresses() -> None:
    assert parse_host_ip("") == IPv4Address(0)
    assert parse_host_ip("127.0.0.1") == IPv4Address("127.0.0.1")
    assert parse_host_ip("::") == IPv6Address(0)
    assert parse_host_ip("[::1]") == IPv6Address("::1")
    with pytest.raises(EngineError) as error:
        parse_host_ip("x")
    assert error.value.kind is Kind.INVALID


def test_both_families_have_one_port() -> None:
    host = Host(40001)
    table = ports(host)
    wanted = expand([PortBinding(80, "tcp"), PortBinding(81, "tcp", "::1")], four=True, six=True)
    found = [(one.host_ip, one.host_port) for one in table.allocate("a", wanted)]
    assert found == [("0.0.0.0", 40000), ("::", 40000), ("::1", 40002)]
    with pytest.raises(EngineError, match="port is already allocated"):
        table.allocate("b", expand([PortBinding(80, "tcp", "", "40000")], four=False, six=True))
    table.allocate("c", expand([PortBinding(80, "tcp", "", "40003")], four=False, six=True))
    table.allocate("d", expand([PortBinding(80, "tcp", "", "40003")], four=True, six=False))
    with pytest.raises(EngineError, match="no IPv6 subnet"):
        expand([PortBinding(80, "tcp", "::1")], four=True, six=False)
    bound = expand([PortBinding(80, "tcp")], four=True, six=True, defaults=("127.0.0.1", "::1"))
    assert [str(one.address) for one in bound] == ["127.0.0.1", "::1"]


def test_protocols() -> None:
    assert parse_binding(PortBinding(80, "TCP")).protocol == "tcp"
    assert parse_binding(PortBinding(80, "sctp")).protocol == "sctp"
    with pytest.raises(EngineError) as error:
        parse_binding(PortBinding(80, "icmp"))
    assert error.value.kind is Kind.INVALID


def test_ephemeral_ports_go_round() -> None:
    host = Host(40001)
    table = ports(host)
    anything = PortBinding(80, "tcp")
    assert take(table, "a", anything) == [40000]
    assert take(table, "b", anything, anything) == [40002, 40003]
    table.release("a")
    assert take(table, "c", anything) == [40000]
    with pytest.raises(EngineError, match="all ports are allocated"):
        take(table, "d", anything)


def test_range_takes_the_first_free_one() -> None:
    table = ports(Host(8000))
    one_of = PortBinding(80, "tcp", "", "8000-8002")
    assert take(table, "a", one_of) == [8001]
    assert take(table, "b", one_of) == [8002]
    with pytest.raises(EngineError, match="all ports are allocated"):
        take(table, "c", one_of)


@pytest.mark.parametrize(
    ("first", "second", "free"),
    [
        (("tcp", ""), ("tcp", ""), False),
        (("tcp", ""), ("udp", ""), True),
        (("tcp", "10.0.0.1"), ("tcp", "10.0.0.2"), True),
        (("tcp", "10.0.0.1"), ("tcp", "10.0.0.1"), False),
        (("tcp", "10.0.0.1"), ("tcp", ""), False),
        (("tcp", ""), ("tcp", "10.0.0.1"), False),
    ],
)
def test_conflicts(first: tuple[str, str], second: tuple[str, str], free: bool) -> None:
    table = ports(Host())
    take(table, "a", PortBinding(80, *first, "80"))
    if free:
        assert take(table, "b", PortBinding(80, *second, "80")) == [80]
        return
    text = f"Bind for {second[1] or '0.0.0.0'}:80 failed: port is already allocated"
    with pytest.raises(EngineError) as error:
        take(table, "b", PortBinding(80, *second, "80"))
    assert error.value.message == text
    table.release("a")
    assert take(table, "b", PortBinding(80, *second, "80")) == [80]


def test_all_or_nothing() -> None:
    host = Host(81)
    table = ports(host)
    with pytest.raises(EngineError, match=r"listen udp4 1.2.3.4:81: bind: address already in use"):
        take(table, "a", PortBinding(80, "tcp", "", "80"), PortBinding(81, "udp", "1.2.3.4", "81"))
    assert host.bound == set()
    assert take(table, "b", PortBinding(80, "tcp", "", "80")) == [80]


def test_adopt_and_close() -> None:
    host = Host(81)
    table = ports(host)
    survivors = [PublishedPort(80, "tcp", "0.0.0.0", port) for port in (80, 81)]
    assert table.adopt("a", survivors) == ["0.0.0.0:81/tcp: Address already in use"]
    with pytest.raises(EngineError, match="already allocated"):
        take(table, "b", PortBinding(80, "tcp", "", "81"))
    table.close()
    assert host.bound == set()
    table.release("a")


def test_local_port_range() -> None:
    first, last = local_port_range()
    assert 0 < first < last < 65536
    assert local_port_range("/nowhere") == (49153, 65535)
