from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.net.names import checked_interface, checked_table, is_veth_name, mac_of, veth_name
from agent.net.rules import (
    Forwarding,
    NetworkRules,
    Plan,
    add_network,
    assertion,
    drop_network,
    publish,
    removal,
    user_rules_in,
    withdraw,
)

GOLDEN = Path(__file__).parent / "golden"
BRIDGE = NetworkRules(
    "0123456789ab",
    "machine0",
    (IPv4Network("172.17.0.0/16"),),
    (IPv4Address("172.17.0.1"),),
)
CLOSED = NetworkRules(
    "cdef01234567",
    "br-cdef01234567",
    (IPv4Network("10.0.0.0/24"), IPv6Network("fd00:1::/64")),
    (IPv4Address("10.0.0.1"), IPv6Address("fd00:1::1")),
    internal=True,
    icc=False,
)
SOURCED = NetworkRules(
    "00aa00aa00aa",
    "br-x",
    (IPv4Network("10.0.1.0/24"), IPv6Network("fd00:2::/64")),
    source=IPv4Address("192.0.2.7"),
)
PLAN = Plan(
    "machine",
    {BRIDGE.key: BRIDGE},
    agent_ports=(2376,),
    block_metadata=True,
    guarded=(2, 3),
)
WEB = Forwarding("tcp", IPv4Address(0), 8080, IPv4Address("172.17.0.2"), 80)
ALSO = Forwarding("tcp", IPv4Address(0), 8081, IPv4Address("172.17.0.2"), 80)
LOCAL = Forwarding("udp", IPv4Address("127.0.0.1"), 53, IPv4Address("172.17.0.3"), 5353)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("assertion", assertion(PLAN, [WEB, ALSO, LOCAL], user_rules=["tcp dport 81 drop"])),
        (
            "bare",
            assertion(Plan("m2", {}), []),
        ),
        ("closed", add_network(PLAN, CLOSED)),
        ("sourced", add_network(PLAN, SOURCED)),
        ("drop", drop_network(PLAN, CLOSED)),
        (
            "stale",
            assertion(Plan("m2", {}), [], present=["to_000000000000", "user", "to_it", "forward"]),
        ),
        ("publish", publish(PLAN, [WEB, ALSO, LOCAL])),
        ("withdraw", withdraw(PLAN, [WEB])),
    ],
)
def test_golden(name: str, text: str) -> None:
    assert text == (GOLDEN / f"{name}.nft").read_text()


def test_nothing_to_do_is_no_text() -> None:
    assert publish(PLAN, []) == ""
    assert withdraw(PLAN, []) == ""


def test_afresh_deletes_first() -> None:
    lines = assertion(PLAN, [], afresh=True).splitlines()
    assert lines[:3] == [
        "add table inet machine",
        "delete table inet machine",
        "add table inet machine",
    ]
    assert removal("x") == "add table inet x\ndelete table inet x\n"


def test_user_rules() -> None:
    listing = (
        "table inet machine {\n\tchain user {\n\t\ttcp dport { 80, 443 } drop\n"
        '\t\tip saddr 10.0.0.1 accept comment "a { b }"\n\t}\n}\n'
    )
    assert user_rules_in(listing) == (
        "tcp dport { 80, 443 } drop",
        'ip saddr 10.0.0.1 accept comment "a { b }"',
    )
    assert user_rules_in("table inet machine {\n\tchain user {\n\t}\n}\n") == ()


@given(st.text(max_size=20))
def test_case_114_only_plain_names_are_names(name: str) -> None:
    for check in (checked_interface, checked_table):
        try:
            found = check(name)
        except ValueError:
            continue
        assert found.isascii()
        assert all(letter.isalnum() or letter in "_-" for letter in found)


@pytest.mark.parametrize("name", ['a"; flush ruleset', "a\n", "", "a" * 16, "../x", "a b", "ä"])
def test_case_114_names_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not an"):
        checked_interface(name)
    with pytest.raises(ValueError, match="not an"):
        NetworkRules("0" * 12, name, BRIDGE.subnets, BRIDGE.gateways)


def test_case_114_forwardings_hold_only_numbers() -> None:
    with pytest.raises(ValueError, match="not a port forwarding"):
        Forwarding("tcp; drop", IPv4Address(0), 80, IPv4Address(1), 80)
    with pytest.raises(ValueError, match="not a port forwarding"):
        Forwarding("tcp", IPv4Address(0), 0, IPv4Address(1), 80)
    with pytest.raises(ValueError, match="not ports"):
        Plan("machine", {}, agent_ports=(0,))
    with pytest.raises(ValueError, match="not a network's key"):
        NetworkRules("0; drop", "b0", ())
    with pytest.raises(ValueError, match="not a port forwarding"):
        Forwarding("tcp", IPv6Address(0), 80, IPv4Address(1), 80)


def test_names_of_kernel_objects() -> None:
    name = veth_name("0123456789abcdef" * 4)
    assert name == "veth0123456789a"
    assert len(name) == 15
    assert is_veth_name(name)
    assert not is_veth_name("veth0")
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
    with pytest.raises(ValueError, match="not an endpoint id"):
        veth_name("../x")
