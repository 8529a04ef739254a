"""Who has which name where."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address

from agent.engine.model import Endpoint
from agent.net.dnsnames import Names


def endpoint(
    number: int, *names: str, network: str = "front", six: bool = False, **more: object
) -> Endpoint:
    return Endpoint(
        network=network,
        network_id=f"{network}-id",
        endpoint_id=f"{network}{number}",
        mac="",
        address=f"10.0.0.{number}",
        prefix=24,
        gateway="",
        address6=f"fd00::{number}" if six else "",
        dns_names=names,
        **more,  # type: ignore[arg-type]
    )


def found(names: Names, container: str, name: str, version: int = 4) -> list[str] | None:
    hit = names.find(container, name, version)
    return None if hit is None else sorted(str(one) for one in hit.addresses)


def test_names_of_one_network() -> None:
    names = Names()
    names.add("a", endpoint(2, "web", "Site"))
    names.add("b", endpoint(3, "db", six=True))
    for name in ("web", "WEB", "web.", "site", "web.front", "WEB.Front."):
        assert found(names, "b", name) == ["10.0.0.2"], name
    assert found(names, "b", "web", 6) == []  # known, but no such address
    assert found(names, "a", "db", 6) == ["fd00::3"]
    assert found(names, "b", "web.back") is None
    assert found(names, "b", "nosuch") is None
    assert found(names, "stranger", "web") is None
    assert names.owner("b", ip_address("10.0.0.2")) == "web.front"
    assert names.owner("b", ip_address("fd00::3")) == "db.front"
    assert names.owner("b", ip_address("10.0.0.9")) is None
    assert names.owner("stranger", ip_address("10.0.0.2")) is None


def test_networks_do_not_know_each_other() -> None:
    names = Names()
    names.add("a", endpoint(2, "web"))
    names.add("b", endpoint(3, "web", network="back"))
    names.add("c", endpoint(4, "both"))
    names.add("c", endpoint(5, "both", network="back", way_out=False))
    assert found(names, "a", "web") == ["10.0.0.2"]
    assert found(names, "b", "web") == ["10.0.0.3"]
    assert found(names, "c", "web") == ["10.0.0.2"]  # the network that is its way out
    assert found(names, "c", "web.back") == ["10.0.0.3"]


def test_turns() -> None:
    names = Names()
    for number in (2, 3, 4):
        names.add(f"c{number}", endpoint(number, f"c{number}", "web"))
    firsts = []
    for _ in range(6):
        hit = names.find("c2", "web", 4)
        assert hit is not None
        assert len(hit.addresses) == 3
        firsts.append(str(hit.addresses[0]))
    assert sorted(firsts) == [
        "10.0.0.2",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.3",
        "10.0.0.4",
        "10.0.0.4",
    ]


def test_links_are_known_to_one_only() -> None:
    names = Names()
    names.add("a", endpoint(2, "web"))
    names.add("b", endpoint(3, "b", links=("web:shop",)))
    names.add("c", endpoint(4, "c"))
    assert found(names, "b", "shop") == ["10.0.0.2"]
    assert found(names, "c", "shop") is None


def test_going_and_renaming() -> None:
    names = Names()
    web = endpoint(2, "web")
    names.add("a", web, leads_out=False)
    names.add("b", endpoint(3, "b"))
    names.rename(dataclasses.replace(web, dns_names=("shop",)))
    assert found(names, "b", "web") is None
    assert found(names, "b", "shop") == ["10.0.0.2"]
    assert not names.leads_out("a")
    assert names.leads_out("b")
    names.drop(web)
    names.drop(web)
    assert found(names, "b", "shop") is None
    names.rename(web)  # gone: nothing
    assert found(names, "b", "web") is None
    names.drop(endpoint(3))
    assert names._networks == {}
    assert names._of == {}
    assert names._outward == set()
