"""Networks' use cases on fakes: who is on what, and what is said about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from agent.api.backend import CreateRequest
from agent.engine import hostsfile
from agent.engine.model import (
    ContainerConfig,
    EndpointRequest,
    HostConfig,
    NetworkSpec,
    PortBinding,
)
from agent.errors import EngineError, Kind
from tests.support.fakes import World, world


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with world() as made:
        yield made


def make(world: World, name: str = "front", **more: object) -> str:
    return world.engine.networking.create(NetworkSpec(name, **more)).id  # type: ignore[arg-type]


def run(
    world: World, name: str, *networks: EndpointRequest, mode: str = "front", **host: object
) -> str:
    config = ContainerConfig(image="busybox", cmd=("true",))
    request = CreateRequest(
        name,
        config,
        HostConfig(network_mode=mode, **host),  # type: ignore[arg-type]
        "",
        {},
        {},
        networks,
    )
    identity = world.engine.containers.create(request).id
    world.engine.containers.start(identity)
    return identity


def refusal(world: World, action: str, *arguments: object, **more: object) -> tuple[Kind, str]:
    with pytest.raises(EngineError) as caught:
        getattr(world.engine.networking, action)(*arguments, **more)
    return caught.value.kind, caught.value.message


def on(world: World, identity: str) -> list[str]:
    return [one.network for one in world.engine.containers.get(identity).state.endpoints]


def events(world: World) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    with_all = world.engine.subscribe(0, None, lambda _: True)
    while (one := with_all.next()) is not None:
        if one.type == "network":
            found.append((one.action, one.attributes.get("name", "")))
    with_all.close()
    return found


def etc(world: World, identity: str, name: str) -> str:
    return (world.root / "containers" / identity / name).read_text()


def test_a_container_on_several_networks(world: World) -> None:
    make(world, "front")
    make(world, "back")
    identity = run(
        world,
        "web",
        EndpointRequest("back", aliases=("site",)),
        EndpointRequest("front", address="172.18.0.77"),
        port_bindings=(PortBinding(80, "tcp", "", "8080"),),
    )
    assert on(world, identity) == ["front", "back"]
    front, back = world.engine.containers.get(identity).state.endpoints
    assert front.address == "172.18.0.77"
    assert front.ports[0].host_port == 8080
    assert back.dns_names == ("web", "site", identity[:12])
    assert "nameserver 127.0.0.11" in etc(world, identity, "resolv.conf")
    assert "172.18.0.77\t" in etc(world, identity, "hosts")
    assert back.address + "\t" in etc(world, identity, "hosts")
    assert identity in world.network.name_servers
    world.end(identity)
    assert identity not in world.network.name_servers
    assert world.network.by_endpoint == {}


def test_an_unknown_network_fails_the_start(world: World) -> None:
    with pytest.raises(EngineError) as caught:
        run(world, "web", mode="nosuch")
    assert caught.value.kind is Kind.NOT_FOUND
    assert caught.value.message == (
        "failed to set up container networking: network nosuch not found"
    )
    make(world, "nosuch")
    world.engine.containers.start("web")
    assert on(world, world.engine.containers.get("web").id) == ["nosuch"]


def test_network_mode_by_id_and_prefix(world: World) -> None:
    identity = make(world)
    assert on(world, run(world, "aa", mode=identity)) == ["front"]
    make(world, "other")
    assert "is ambiguous (3 matches" in refusal(world, "get", "0000")[1]
    assert world.engine.networking.get(identity).name == "front"


def test_connect_and_disconnect(world: World) -> None:
    make(world, "front")
    make(world, "back")
    identity = run(world, "web", mode="default")
    assert identity not in world.network.name_servers
    assert "127.0.0.11" not in etc(world, identity, "resolv.conf")
    world.engine.networking.connect("front", "web", EndpointRequest("", aliases=("site",)))
    assert on(world, identity) == ["bridge", "front"]
    assert identity in world.network.name_servers
    assert "nameserver 127.0.0.11" in etc(world, identity, "resolv.conf")
    address = world.engine.containers.get("web").state.endpoints[1].address
    assert f"{address}\t" in etc(world, identity, "hosts")
    kind, text = refusal(world, "connect", "front", "web", EndpointRequest(""))
    assert (kind, "already exists in network front" in text) == (Kind.FORBIDDEN, True)
    world.engine.networking.disconnect("front", "web", force=False)
    assert on(world, identity) == ["bridge"]
    assert f"{address}\t" not in etc(world, identity, "hosts")
    kind, text = refusal(world, "disconnect", "front", "web", force=False)
    assert (kind, "is not connected to" in text) == (Kind.FORBIDDEN, True)
    world.engine.networking.disconnect("bridge", "web", force=False)
    assert on(world, identity) == []
    world.engine.networking.connect("back", "web", EndpointRequest(""))
    world.end(identity)
    world.engine.containers.start("web")
    assert on(world, identity) == ["back"]


def test_stopped_containers_are_on_a_network_from_their_next_start(world: World) -> None:
    make(world)
    identity = world.make("true", name="web")
    world.engine.networking.connect("front", "web", EndpointRequest(""))
    world.engine.networking.disconnect("bridge", "web", force=False)
    assert world.network.by_endpoint == {}
    world.engine.containers.start("web")
    assert on(world, identity) == ["front"]
    world.end(identity)
    world.engine.networking.disconnect("front", "web", force=False)
    world.engine.containers.start("web")
    assert on(world, identity) == []


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("host", "connected to host network"),
        ("none", "private (none) mode"),
        ("container:other", "sharing network namespace"),
    ],
)
def test_modes_that_rule_out_networks(world: World, mode: str, says: str) -> None:
    make(world)
    world.run("true", name="other")
    world.run("true", name="web", host=HostConfig(network_mode=mode))
    kind, text = refusal(world, "connect", "front", "web", EndpointRequest(""))
    assert (kind, says in text) == (Kind.FORBIDDEN, True)
    request = CreateRequest(
        "xx", ContainerConfig(image="busybox", cmd=("a",)), HostConfig(network_mode=mode), "", {},
        {}, (EndpointRequest("front"),),
    )  # fmt: skip
    with pytest.raises(EngineError, match="conflicting options"):
        world.engine.containers.create(request)


def test_remove_and_prune(world: World) -> None:
    make(world, "front")
    make(world, "back", labels={"keep": "1"})
    make(world, "idle")
    identity = run(world, "web")
    kind, text = refusal(world, "remove", "front")
    assert kind is Kind.FORBIDDEN
    assert 'network front has active endpoints (name:"web" id:"' in text
    for name in ("bridge", "host", "none"):
        assert refusal(world, "remove", name) == (
            Kind.FORBIDDEN,
            f"{name} is a pre-defined network and cannot be removed",
        )
    assert refusal(world, "remove", "nosuch") == (Kind.NOT_FOUND, "network nosuch not found")
    assert world.engine.networking.prune(lambda one: "keep" not in one.labels) == ["idle"]
    world.end(identity)
    world.engine.networking.remove("front")
    assert events(world) == [
        ("create", "front"),
        ("create", "back"),
        ("create", "idle"),
        ("connect", "front"),
        ("destroy", "idle"),
        ("prune", ""),
        ("disconnect", "front"),
        ("destroy", "front"),
    ]


def test_renamed(world: World) -> None:
    make(world)
    identity = run(world, "web", EndpointRequest("front", aliases=("site",)))
    world.engine.containers.rename("web", "shop")
    endpoint = world.engine.containers.get("shop").state.endpoints[0]
    assert endpoint.dns_names == ("shop", "site", identity[:12])
    assert world.network.by_endpoint[endpoint.endpoint_id] == endpoint


def test_the_next_agent_serves_names_again(world: World) -> None:
    make(world)
    named = run(world, "web")
    plain = world.run("true")
    world.restarted()
    assert list(world.network.name_servers) == [named]
    assert on(world, named) == ["front"]
    assert on(world, plain) == ["bridge"]


def test_links(world: World) -> None:
    target = world.run("true", name="db")
    address = world.engine.containers.get("db").state.endpoints[0].address
    identity = world.run("true", name="web", host=HostConfig(links=("db:store",)))
    world.run("true", name="user", host=HostConfig(links=("db:store",)))
    assert f"{address}\tstore {target[:12]} db\n" in etc(world, identity, "hosts")
    world.end(target)
    holder = world.run("true", name="holder")  # it gets the address that was free
    world.engine.containers.start("db")
    moved = world.engine.containers.get("db").state.endpoints[0].address
    lines = etc(world, world.engine.containers.get("user").id, "hosts").splitlines()
    assert [one for one in lines if "store" in one] == [f"{moved}\tstore {target[:12]} db"]
    assert (moved != address, bool(holder)) == (True, True)
    world.end(target)
    world.make("true", name="late", host=HostConfig(links=("db",)))
    with pytest.raises(EngineError, match="Cannot link to a non running container: /db AS /late"):
        world.engine.containers.start("late")
    with pytest.raises(EngineError, match="could not get container for nosuch"):
        world.make("true", host=HostConfig(links=("nosuch:x",)))
    make(world)
    custom = run(world, "custom", links=("anything:x",))
    assert world.engine.containers.get(custom).state.endpoints[0].links == ("anything:x",)


@pytest.mark.parametrize(
    ("own", "dns", "servers", "from_host"),
    [
        (("192.0.2.1",), (), ("192.0.2.1",), False),
        (("127.0.0.53",), (), ("127.0.0.53",), True),
        (("127.0.0.1", "192.0.2.1"), (), ("192.0.2.1",), False),
        ((), (), hostsfile.FALLBACK_NAMESERVERS, False),
        (("127.0.0.1",), ("127.0.0.1",), ("127.0.0.1",), False),  # the container's own loopback
        (("192.0.2.1",), ("127.0.0.11", "192.0.2.2"), ("192.0.2.2",), False),
    ],
)
def test_whom_the_name_server_asks(
    own: tuple[str, ...], dns: tuple[str, ...], servers: tuple[str, ...], from_host: bool
) -> None:
    found = hostsfile.upstream(hostsfile.Resolver(own), HostConfig(dns=dns))
    assert found == (servers, from_host)


def test_embedded_resolv_conf() -> None:
    parts = hostsfile.Resolver(("192.0.2.1",), ("a.org",), ("edns0",))
    assert hostsfile.embedded_resolv_conf(parts).splitlines()[2:] == [
        "nameserver 127.0.0.11",
        "search a.org",
        "options edns0 ndots:0",
    ]
    given = dataclasses.replace(parts, options=("ndots:2",))
    assert "options ndots:2\n" in hostsfile.embedded_resolv_conf(given)
