from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Interface

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from agent.net import rtnetlink
from agent.net.netlink import Message, attribute, attributes, messages, nested, number, text
from agent.net.nfnetlink import RulesChanged, decode_event


def wire(message: Message) -> bytes:
    head = struct.pack("=IHHII", 16 + len(message.body), message.type, message.flags, 1, 0)
    return head + message.body


def test_attributes() -> None:
    data = text(3, "eth0") + number(4, 1500) + nested(18, attribute(1, b"x"))
    assert attributes(data) == {3: b"eth0\0", 4: struct.pack("=I", 1500), 18: attribute(1, b"x")}
    assert len(data) % 4 == 0


@given(st.binary(max_size=300))
def test_any_bytes_decode_to_something(data: bytes) -> None:
    attributes(data)
    for kind, _, _, _, body in messages(data):
        decode_event(kind, body)


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_come_back(found: dict[int, bytes]) -> None:
    assert attributes(b"".join(attribute(kind, data) for kind, data in found.items())) == found


def test_messages() -> None:
    one = Message(16, 0, b"abcdef", "x")
    data = wire(one) + b"\0\0" + wire(one)
    assert [body for _, _, _, _, body in messages(data)] == [b"abcdef", b"abcdef"]


def test_veth_against_the_oracle() -> None:
    request = rtnetlink.create_veth(
        "veth0", master=7, mtu=1400, peer="eth0", peer_mac="02:42:ac:11:00:02", peer_namespace=9
    )
    decoded = ifinfmsg(wire(request))
    decoded.decode()
    assert decoded.get_attr("IFLA_IFNAME") == "veth0"
    assert decoded.get_attr("IFLA_MASTER") == 7
    assert decoded.get_attr("IFLA_MTU") == 1400
    info = decoded.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "02:42:ac:11:00:02"
    assert peer.get_attr("IFLA_NET_NS_FD") == 9


def test_address_and_route_against_the_oracle() -> None:
    address = ifaddrmsg(wire(rtnetlink.add_address(3, IPv4Interface("172.17.0.2/16"))))
    address.decode()
    assert (address["index"], address["prefixlen"]) == (3, 16)
    assert address.get_attr("IFA_LOCAL") == "172.17.0.2"
    assert address.get_attr("IFA_BROADCAST") == "172.17.255.255"
    route = rtmsg(wire(rtnetlink.add_default_route(IPv4Address("172.17.0.1"))))
    route.decode()
    assert (route["dst_len"], route["table"], route.get_attr("RTA_GATEWAY")) == (
        0,
        254,
        "172.17.0.1",
    )


def test_events() -> None:
    genmsg = b"\1\0\0\0"
    rule = genmsg + text(1, "machine") + text(2, "user")
    assert decode_event(0x0A06, rule) == RulesChanged("machine", "user")
    assert decode_event(0x0A02, genmsg + text(1, "machine")) == RulesChanged("machine")
    assert decode_event(0x0A0F, genmsg + attribute(1, b"\0\0\1\0")) == RulesChanged(
        "", generation=256
    )
    assert decode_event(0x0100, b"") is None
