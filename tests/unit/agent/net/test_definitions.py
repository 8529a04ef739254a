"""Networks as asked for, checked and completed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from agent.engine.codec import dumps, loads
from agent.engine.model import IpamPool, NetworkSpec
from agent.errors import EngineError, Kind
from agent.net.definitions import Definition, check, info, pool_of, resolved, vlan_parent
from agent.net.ipam import AddressPool, choose_subnet6


def kind_of(spec: NetworkSpec) -> Kind | None:
    try:
        check(spec)
        resolved(spec, [ip_network("172.17.0.0/16")], [(ip_network("10.1.0.0/16"), False)], "seed")
    except EngineError as error:
        return error.kind
    return None


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (NetworkSpec("front"), None),
        (NetworkSpec("my front_1.x"), None),
        (NetworkSpec("bridge"), Kind.FORBIDDEN),
        (NetworkSpec("default"), Kind.FORBIDDEN),
        (NetworkSpec("container:x"), Kind.FORBIDDEN),
        (NetworkSpec("a\nb"), Kind.INVALID),
        (NetworkSpec(" a"), Kind.INVALID),
        (NetworkSpec("a" * 256), Kind.INVALID),
        (NetworkSpec("x", driver="host"), Kind.FORBIDDEN),
        (NetworkSpec("x", driver="overlay"), Kind.UNAVAILABLE),
        (NetworkSpec("x", driver="weave"), Kind.NOT_FOUND),
        (NetworkSpec("x", ipam_driver="dhcp"), Kind.NOT_FOUND),
        (NetworkSpec("x", enable_ipv4=False), Kind.INVALID),
        (NetworkSpec("x", options={"com.docker.network.driver.mtu": "20"}), Kind.INVALID),
        (NetworkSpec("x", options={"com.docker.network.driver.mtu": "big"}), Kind.INVALID),
        (NetworkSpec("x", options={"com.docker.network.bridge.enable_icc": "maybe"}), Kind.INVALID),
        (NetworkSpec("x", options={"com.docker.network.bridge.gateway_mode_ipv4": "routed"}),
         Kind.NOT_IMPLEMENTED),
        (NetworkSpec("x", options={"com.docker.network.host_ipv4": "x"}), Kind.INVALID),
        (NetworkSpec("x", driver="macvlan", options={"parent": "eth0.50"}), None),
        (NetworkSpec("x", driver="macvlan", options={"parent": "eth0.5000"}), Kind.INVALID),
        (NetworkSpec("x", driver="macvlan", options={"parent": "../x"}), Kind.INVALID),
        (NetworkSpec("x", driver="macvlan", options={"macvlan_mode": "l2"}), Kind.INVALID),
        (NetworkSpec("x", driver="ipvlan", options={"ipvlan_mode": "l3"}), None),
        (NetworkSpec("x", driver="ipvlan", options={"macvlan_mode": "bridge"}),
         Kind.NOT_IMPLEMENTED),
        (NetworkSpec("x", pools=(IpamPool("10.1.2.0/24"),)), Kind.CONFLICT),
        (NetworkSpec("x", driver="macvlan", pools=(IpamPool("10.1.2.0/24"),)), None),
        (NetworkSpec("x", pools=(IpamPool("172.17.1.0/24"),)), Kind.FORBIDDEN),
        (NetworkSpec("x", pools=(IpamPool("10.2.0.0/24"), IpamPool("10.3.0.0/24"))), Kind.INVALID),
        (NetworkSpec("x", pools=(IpamPool(gateway="10.2.0.1"),)), Kind.INVALID),
    ],
)  # fmt: skip
def test_what_is_refused(spec: NetworkSpec, kind: Kind | None) -> None:
    assert kind_of(spec) is kind


def complete(spec: NetworkSpec) -> list[IpamPool]:
    return list(resolved(spec, [ip_network("172.17.0.0/16")], [], "seed").pools)


def test_what_is_chosen() -> None:
    assert complete(NetworkSpec("x")) == [IpamPool("172.18.0.0/16", gateway="172.18.0.1")]
    both = complete(NetworkSpec("x", enable_ipv6=True))
    assert both[1].subnet == str(choose_subnet6("seed", []))
    assert both[1].gateway.endswith("::1")
    pool = IpamPool("10.0.0.0/24", ip_range="10.0.0.128/25", aux_addresses={"r": "10.0.0.128"})
    assert complete(NetworkSpec("x", pools=(pool,)))[0].gateway == "10.0.0.129"
    lan = IpamPool("10.0.0.0/24")
    assert complete(NetworkSpec("x", driver="macvlan", internal=True, pools=(lan,))) == [lan]
    l3 = NetworkSpec("x", driver="ipvlan", options={"ipvlan_mode": "l3"}, pools=(lan,))
    assert complete(l3) == [lan]


def test_addresses_of_a_range() -> None:
    pool = pool_of(IpamPool("10.0.0.0/24", "10.0.0.252/30", "10.0.0.253", {"router": "10.0.0.252"}))
    assert str(pool.take("a")) == "10.0.0.254"
    with pytest.raises(EngineError, match="no available IPv4"):
        pool.take("b")
    assert pool.claim(ip_network("10.0.0.7/32").network_address, "b")
    assert not pool.claim(ip_network("10.0.0.252/32").network_address, "b")
    six = AddressPool(ip_network("fd00::/64"), ip_network("fd00::1/128").network_address)
    assert [str(six.take(one)) for one in "abc"] == ["fd00::2", "fd00::3", "fd00::4"]


def test_a_definition_survives_its_file() -> None:
    spec = NetworkSpec("x", pools=(IpamPool("10.0.0.0/24", gateway="10.0.0.1"),), labels={"a": "b"})
    one = Definition("ab" * 32, 7, spec)
    assert loads(Definition, dumps(one)) == one
    shown = info(one)
    assert (shown.subnet, shown.gateway, shown.labels) == ("10.0.0.0/24", "10.0.0.1", {"a": "b"})
    assert one.bridge == "br-abababababab"
    assert one.mtu(1400) == 1400


def test_parents() -> None:
    assert vlan_parent("") == ("", 0)
    assert vlan_parent("eth0") == ("eth0", 0)
    assert vlan_parent("eth0.50") == ("eth0", 50)
    for wrong in ("eth0.", "eth0.0", "eth0.x", "a b", "eth0.1.2", "averyverylongif.100"):
        with pytest.raises(ValueError, match=r"not a|too long"):
            vlan_parent(wrong)
