"""Addresses, host ports, subnets and restarts, against the kernel."""

from __future__ import annotations

import functools
import socket
import threading
import time

import pytest
from pyroute2 import NDB, IPRoute

from agent.engine.model import Endpoint, PortBinding
from agent.errors import EngineError, Kind
from agent.net.names import veth_name
from agent.net.network import HostNetworks, NetworkSettings, open_network
from agent.net.nftables import ProgramNft
from tests.cases.net.world import HOST, NEIGHBOUR, World, ask

assert NDB  # the oracle's import must not fail half-way


def cables(world: World) -> set[str]:
    listing = world.host.command("ip", "-o", "link", "show", "master", "machine0")
    return {line.split()[1].split("@")[0] for line in listing.splitlines()}


def gone(world: World, wanted: int = 0) -> None:
    deadline = time.monotonic() + 2
    while len(cables(world)) != wanted:
        assert time.monotonic() < deadline, cables(world)


def test_link_as_the_oracle_sees_it(world: World) -> None:
    world.setup(mtu=1400)
    box = world.start()
    assert box.endpoint is not None

    def look() -> tuple[object, ...]:
        with IPRoute() as ip:
            index = ip.link_lookup(ifname="eth0")[0]
            link = ip.get_links(index)[0]
            address = ip.get_addr(index=index)[0]
            route = ip.get_default_routes(family=socket.AF_INET)[0]
            return (
                link.get_attr("IFLA_ADDRESS"),
                link.get_attr("IFLA_MTU"),
                link["state"],
                address.get_attr("IFA_LOCAL"),
                address["prefixlen"],
                address.get_attr("IFA_BROADCAST"),
                route.get_attr("RTA_GATEWAY"),
            )

    endpoint = box.endpoint
    assert box.namespace.do(look) == (
        endpoint.mac,
        1400,
        "up",
        endpoint.address,
        16,
        "172.17.255.255",
        "172.17.0.1",
    )
    assert endpoint.mac == "02:42:ac:11:00:02"
    assert cables(world) == {veth_name(endpoint.endpoint_id)}


def test_release_is_idempotent_and_leaves_nothing(world: World) -> None:
    world.setup()
    before = world.host.command("nft", "-s", "list", "ruleset")
    box = world.start(PortBinding(80, "tcp", "", "8080"), PortBinding(53, "udp", "127.0.0.1", "53"))
    assert "8080" in world.host.command("nft", "list", "map", "inet", "machine", "dnat_any")
    world.release(box)
    world.release(box)
    assert world.host.command("nft", "-s", "list", "ruleset") == before
    gone(world)


def test_restart_finds_the_living_and_removes_orphans(world: World) -> None:
    network = world.setup()
    ids = [info.id for info in network.networks()]
    living = world.start(PortBinding(80, "tcp", "", "8080"))
    orphan = world.start(PortBinding(80, "tcp", "", "8081"))
    assert living.endpoint is not None
    assert orphan.endpoint is not None
    world.serve(living.namespace, "living", 80)
    world.worker.do(network.close)
    assert ask(world.neighbour, HOST, 8080) == f"living {NEIGHBOUR}"  # with no agent at all
    network = world.setup(((living.id, living.endpoint),))
    assert [info.id for info in network.networks()] == ids
    assert ask(world.neighbour, HOST, 8080) == f"living {NEIGHBOUR}"
    assert ask(world.neighbour, HOST, 8081) == "refused"
    assert cables(world) == {veth_name(living.endpoint.endpoint_id)}
    assert world.reserve(orphan).address != living.endpoint.address
    with pytest.raises(EngineError, match="port is already allocated"):
        world.reserve(orphan, PortBinding(80, "tcp", "", "8080"))


def test_cables_return_to_a_bridge_that_was_deleted(world: World) -> None:
    network = world.setup()
    box = world.start(PortBinding(80, "tcp", "", "8080"))
    assert box.endpoint is not None
    world.serve(box.namespace, "box", 80)
    world.worker.do(network.close)
    world.host.command("ip", "link", "delete", "machine0")
    world.setup(((box.id, box.endpoint),))
    assert ask(world.neighbour, HOST, 8080, wait=3) == f"box {NEIGHBOUR}"


def test_teardown_leaves_the_host_as_it_was(world: World) -> None:
    network = world.setup()
    world.start(PortBinding(80, "tcp", "", "8080"))
    world.worker.do(network.teardown)
    assert world.host.command("nft", "list", "ruleset") == ""
    assert "machine0" not in world.host.command("ip", "-o", "link")
    assert "veth" not in world.host.command("ip", "-o", "link", "show", "up")


def test_two_agents_in_one_namespace(world: World) -> None:
    first = world.setup()
    one = world.start(PortBinding(80, "tcp", "", "8080"))
    world.serve(one.namespace, "one", 80)
    other = NetworkSettings(root=f"{world.root}/2", bridge="other0", table="other")
    second = world.worker.do(lambda: open_network(other))
    try:
        world.worker.do(lambda: second.setup(()))
        assert {info.name: info.subnet for info in second.networks()}["bridge"] == "172.18.0.0/16"
        two = world.box()
        two.endpoint = world.worker.do(lambda: second.reserve(two.id, ()))[0]
        world.network = second
        world.connect(two)
        assert one.endpoint is not None
        # case 102: two bridges do not talk, but by published ports
        assert ask(two.namespace, one.endpoint.address, 80, wait=0.2) == "silence"
        assert ask(two.namespace, HOST, 8080).startswith("one ")
    finally:
        world.worker.do(second.close)
        world.network = first


def test_a_pid_that_is_gone(world: World) -> None:
    network = world.setup()
    box = world.box()
    endpoint = world.reserve(box, PortBinding(80, "tcp", "", "8080"))
    with pytest.raises(EngineError) as error:
        world.worker.do(lambda: network.connect(box.id, endpoint, 2**22 - 1))
    assert error.value.kind is Kind.INTERNAL
    assert cables(world) == set()
    assert "8080" not in world.host.command("nft", "list", "ruleset")


def test_case_110_port_conflicts(world: World) -> None:
    network = world.setup()
    one, two = world.box(), world.box()
    web = PortBinding(80, "tcp", "", "8080")
    outcomes: list[Endpoint | EngineError] = []

    def reserve(container: str) -> None:
        try:
            outcomes.append(network.reserve(container, [web])[0])
        except EngineError as error:
            outcomes.append(error)

    def both() -> None:
        threads = [threading.Thread(target=reserve, args=(box.id,)) for box in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    world.worker.do(both)
    lost = [outcome for outcome in outcomes if isinstance(outcome, EngineError)]
    assert len(lost) == 1
    assert lost[0].kind is Kind.INTERNAL
    assert lost[0].message.endswith("Bind for 0.0.0.0:8080 failed: port is already allocated")
    # the loser has left nothing: its address is the next one's
    addresses = {outcome.address for outcome in outcomes if isinstance(outcome, Endpoint)}
    assert addresses <= {"172.17.0.2", "172.17.0.3"}

    world.serve(world.host, "process", 9000)
    with pytest.raises(EngineError) as error:
        world.reserve(two, PortBinding(80, "tcp", "", "9000"))
    assert error.value.message.endswith("listen tcp4 0.0.0.0:9000: bind: address already in use")
    with pytest.raises(EngineError, match="all ports are allocated"):
        world.reserve(two, *[PortBinding(80, "tcp", "127.0.0.1", "9100-9101") for _ in range(3)])


def test_a_published_port_is_held_against_host_processes(world: World) -> None:
    world.setup()
    box = world.start(PortBinding(80, "tcp", "", "8080"), PortBinding(53, "udp", "", "8080"))
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with world.host.do(functools.partial(socket.socket, socket.AF_INET, kind)) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="already in use"):
                other.bind(("0.0.0.0", 8080))
    world.release(box)
    with world.host.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as other:
        other.bind(("0.0.0.0", 8080))


def test_a_port_with_connections_in_time_wait_can_be_published(world: World) -> None:
    """A host's server that has just ended leaves TIME_WAIT behind: no reason to refuse its port."""
    world.setup()
    server = world.serve(world.host, "process", 8080)
    assert ask(world.neighbour, HOST, 8080).startswith("process")  # the server closes first
    server.close()
    box = world.start(PortBinding(80, "tcp", "", "8080"))
    world.serve(box.namespace, "box", 80)
    with world.host.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="already in use"):
            other.bind(("0.0.0.0", 8080))
            other.listen(1)
    assert ask(world.neighbour, HOST, 8080) == f"box {NEIGHBOUR}"


def test_case_111_small_pool(world: World) -> None:
    world.setup(bip="172.30.0.1/29")
    boxes = [world.start() for _ in range(5)]
    addresses = {box.endpoint.address for box in boxes if box.endpoint}
    assert addresses == {f"172.30.0.{last}" for last in range(2, 7)}
    sixth = world.box()
    with pytest.raises(EngineError, match="no available IPv4 addresses"):
        world.reserve(sixth)
    world.release(boxes[2])
    # at once, though the kernel has not taken the cable away yet
    assert world.reserve(sixth).address == "172.30.0.4"
    assert len(cables(world)) == 4


def test_case_112_overlapping_subnets(world: World) -> None:
    world.host.command("ip", "route", "add", "172.17.128.0/24", "via", NEIGHBOUR)
    network = world.setup()
    assert network.networks()[0].subnet == "172.18.0.0/16"
    world.worker.do(network.close)
    # the choice is kept, while nothing stands against it
    world.host.command("ip", "route", "delete", "172.17.128.0/24")
    network = world.setup()
    assert network.networks()[0].subnet == "172.18.0.0/16"
    world.worker.do(network.close)
    # a wide VPN route is none; a new LAN is, unless containers run
    world.host.command("ip", "route", "add", "0.0.0.0/1", "via", NEIGHBOUR)
    world.host.command("ip", "route", "add", "172.18.4.0/24", "dev", "eth0")
    box = world.box()
    old = Endpoint("bridge", "", "ab" * 32, "02:42:ac:12:00:02", "172.18.0.2", 16, "172.18.0.1")
    network = world.setup(((box.id, old),))
    assert network.networks()[0].subnet == "172.18.0.0/16"
    world.worker.do(network.close)
    network = world.setup()
    assert network.networks()[0].subnet == "172.17.0.0/16"
    world.worker.do(network.close)
    for bip in ("10.77.0.9/24", "10.0.0.1/8"):
        network = world.open(bip=bip)
        with pytest.raises(EngineError, match="overlaps") as error:
            world.worker.do(functools.partial(network.setup, ()))
        assert error.value.kind is Kind.CONFLICT
        world.worker.do(network.close)


@pytest.mark.parametrize(
    "binding",
    [
        PortBinding(80, "tcp }", "", "80"),
        PortBinding(80, "tcp", "0.0.0.0 }; flush ruleset", "80"),
        PortBinding(80, "tcp", "", "80 }\nflush ruleset"),
        PortBinding(80, "tcp", "", "\u0668\u0660"),
        PortBinding(70000, "tcp", "", "80"),
    ],
)
def test_case_114_port_specifications_never_reach_rules(world: World, binding: PortBinding) -> None:
    world.setup()
    before = world.host.command("nft", "list", "ruleset")
    with pytest.raises(EngineError) as error:
        world.reserve(world.box(), binding)
    assert error.value.kind is Kind.INVALID
    assert world.host.command("nft", "list", "ruleset") == before


def test_without_the_library(world: World) -> None:
    """The program `nft` does the same, more slowly."""
    settings = NetworkSettings(root=world.root)
    network = world.worker.do(lambda: HostNetworks(settings, ProgramNft()))
    world.network = network
    world.worker.do(lambda: network.setup(()))
    box = world.start(PortBinding(80, "tcp", "", "8080"))
    world.serve(box.namespace, "box", 80)
    assert ask(world.neighbour, HOST, 8080) == f"box {NEIGHBOUR}"
    world.release(box)
    assert ask(world.neighbour, HOST, 8080) == "refused"


def test_many_at_once(world: World) -> None:
    """Connects and releases from many threads; afterwards nothing is left (R-goals: no leak)."""
    network = world.setup()
    boxes = [world.box() for _ in range(8)]
    before = world.host.command("nft", "-s", "list", "ruleset")
    failures: list[BaseException] = []

    def cycle(index: int) -> None:
        box = boxes[index]
        try:
            for _ in range(5):
                ports = [PortBinding(80, "tcp"), PortBinding(53, "udp", "", "20000-20100")]
                endpoint = network.reserve(box.id, ports)[0]
                network.connect(box.id, endpoint, box.namespace.pid)
                network.release(box.id, endpoint)
                box.namespace.command("ip", "link", "delete", "eth0", check=False)
        except BaseException as error:
            failures.append(error)

    def everyone() -> None:
        threads = [threading.Thread(target=cycle, args=(index,)) for index in range(len(boxes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    world.worker.do(everyone)
    assert failures == []
    gone(world)
    assert world.host.command("nft", "-s", "list", "ruleset") == before
