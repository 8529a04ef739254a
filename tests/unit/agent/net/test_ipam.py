from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from agent.errors import EngineError
from agent.net.ipam import DEFAULT_POOLS, Address, AddressPool, choose_subnet, conflicting

SMALL = IPv4Network("10.0.0.0/29")
GATEWAY = IPv4Address("10.0.0.1")


def test_lowest_free_and_full() -> None:
    pool = AddressPool(SMALL, GATEWAY)
    assert [str(pool.take("x")) for _ in range(5)] == [f"10.0.0.{last}" for last in range(2, 7)]
    with pytest.raises(EngineError, match="no available IPv4 addresses"):
        pool.take("x")
    pool.give_back(IPv4Address("10.0.0.3"), "y")  # not y's
    pool.give_back(IPv4Address("10.0.0.3"), "x")
    assert str(pool.take("z")) == "10.0.0.3"


def test_an_address_given_back_is_the_next_one_given() -> None:
    """Docker's order: what is restarted or recreated keeps its address."""
    pool = AddressPool(IPv4Network("172.17.0.0/16"), IPv4Address("172.17.0.1"))
    first, second, third = (pool.take(one) for one in "abc")
    pool.give_back(second, "b")
    pool.give_back(first, "a")
    assert [pool.take("d"), pool.take("e")] == [first, second]
    assert pool.take("f") == third + 1
    outside = AddressPool(SMALL, GATEWAY, within=IPv4Network("10.0.0.4/30"))
    assert outside.claim(IPv4Address("10.0.0.2"), "a")
    outside.give_back(IPv4Address("10.0.0.2"), "a")
    assert str(outside.take("b")) == "10.0.0.4"


def test_claim() -> None:
    pool = AddressPool(SMALL, GATEWAY)
    assert pool.claim(IPv4Address("10.0.0.2"), "a")
    assert pool.claim(IPv4Address("10.0.0.2"), "a")
    assert not pool.claim(IPv4Address("10.0.0.2"), "b")
    for never in ("10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.1.2"):
        assert not pool.claim(IPv4Address(never), "a"), never


class PoolMachine(RuleBasedStateMachine):
    """Never two owners of one address, never the gateway or the subnet's edges."""

    live: Bundle[tuple[Address, str]] = Bundle("live")

    def __init__(self) -> None:
        super().__init__()
        self.pool = AddressPool(IPv4Network("10.9.0.0/28"), IPv4Address("10.9.0.14"))
        self.model: dict[Address, str] = {}
        self.count = 0

    @rule(target=live)
    def take(self) -> tuple[Address, str]:
        self.count += 1
        owner = str(self.count)
        try:
            address = self.pool.take(owner)
        except EngineError:
            assert len(self.model) == 13
            return IPv4Address(0), owner
        assert address not in self.model
        self.model[address] = owner
        return address, owner

    @rule(one=consumes(live))
    def give_back(self, one: tuple[Address, str]) -> None:
        self.pool.give_back(*one)
        self.model.pop(one[0], None)

    @invariant()
    def same(self) -> None:
        assert self.pool.taken() == self.model.keys()
        assert IPv4Address("10.9.0.14") not in self.model


TestPool = PoolMachine.TestCase


def route(text: str, via: bool = False) -> tuple[IPv4Network, bool]:
    return IPv4Network(text), via


@pytest.mark.parametrize(
    ("routes", "chosen"),
    [
        ([], "172.17.0.0/16"),
        ([route("0.0.0.0/0", True)], "172.17.0.0/16"),
        ([route("0.0.0.0/1", True), route("128.0.0.0/1", True)], "172.17.0.0/16"),
        ([route("172.17.4.0/24")], "172.18.0.0/16"),
        ([route("172.16.0.0/12", True)], "192.168.0.0/20"),
        ([route("172.16.0.0/12"), route("192.168.1.0/24")], "192.168.16.0/20"),
    ],
)
def test_choose_subnet(routes: list[tuple[IPv4Network, bool]], chosen: str) -> None:
    assert choose_subnet(routes) == IPv4Network(chosen)


def test_no_subnet_left() -> None:
    with pytest.raises(EngineError, match="non-overlapping IPv4 address pool"):
        choose_subnet([route("172.16.0.0/12"), route("192.168.0.0/16")])


@given(st.lists(st.sampled_from(DEFAULT_POOLS), max_size=30))
def test_chosen_never_overlaps(pools: list[IPv4Network]) -> None:
    routes = [(pool, False) for pool in pools]
    assert conflicting(choose_subnet(routes), routes) is None
