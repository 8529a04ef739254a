"""Published ports and isolation, with real sockets in namespaces of the test's own."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable

from agent.engine.model import PortBinding
from tests.cases.net.world import (
    HOST,
    NEIGHBOUR,
    SECOND_HOST,
    SECOND_NEIGHBOUR,
    World,
    ask,
)

WEB = PortBinding(80, "tcp", "", "8080")
DNS = PortBinding(53, "udp", "", "5353")
LOCAL = PortBinding(80, "tcp", "127.0.0.1", "8081")


def eventually(check: Callable[[], bool], limit: float) -> float:
    """Seconds until `check` holds; fails after `limit`."""
    start = time.monotonic()
    while not check():
        assert time.monotonic() - start < limit, "not in time"
    return time.monotonic() - start


def table(world: World) -> list[str]:
    """Our table's lines, in an order of their own: objects made again are listed last."""
    listing = world.host.command("nft", "-s", "list", "table", "inet", "machine", check=False)
    blocks = listing.replace("\n\n", "\n").split("\n\t}\n")
    return sorted(block.removeprefix("table inet machine {\n").strip() for block in blocks)


def test_published_ports_from_everywhere(world: World) -> None:
    world.setup()
    one, two = world.start(WEB, DNS), world.start()
    assert one.endpoint is not None
    world.serve(one.namespace, "one", 80)
    world.serve(one.namespace, "one", 53, "udp")

    # another machine, whose address the container sees
    assert ask(world.neighbour, HOST, 8080) == f"one {NEIGHBOUR}"
    assert ask(world.neighbour, HOST, 5353, "udp") == f"one {NEIGHBOUR}"
    # the host itself, by loopback and by each own address
    for address in ("127.0.0.1", HOST, SECOND_HOST, "172.17.0.1"):
        assert ask(world.host, address, 8080).startswith("one "), address
        assert ask(world.host, address, 5353, "udp").startswith("one "), address
    # another container, and the container itself, through the host (hairpin)
    for address in (HOST, "172.17.0.1"):
        assert ask(two.namespace, address, 8080) == "one 172.17.0.1"
        assert ask(one.namespace, address, 8080) == "one 172.17.0.1"
        assert ask(two.namespace, address, 5353, "udp") == "one 172.17.0.1"
    # containers directly, and outwards with the host's address
    assert two.endpoint is not None
    assert ask(two.namespace, one.endpoint.address, 80) == f"one {two.endpoint.address}"
    world.serve(world.neighbour, "out", 7000)
    assert ask(one.namespace, NEIGHBOUR, 7000) == f"out {HOST}"

    world.release(one)
    assert ask(world.neighbour, HOST, 8080) == "refused"
    assert ask(world.host, "127.0.0.1", 8080) == "refused"


def test_port_of_one_address_only(world: World) -> None:
    world.setup()
    box = world.start(PortBinding(80, "tcp", SECOND_HOST, "80"))
    world.serve(box.namespace, "box", 80)
    assert ask(world.second, SECOND_HOST, 80) == f"box {SECOND_NEIGHBOUR}"
    assert ask(world.neighbour, HOST, 80) == "refused"


def test_udp_follows_a_new_container(world: World) -> None:
    """A sender that keeps its port must not stay with the flow of before."""
    world.setup()
    world.serve(world.host, "host", 5353, "udp")
    sender = world.neighbour.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.settimeout(0.1)

    def says(expected: str) -> bool:
        try:
            sender.send(b"x")
            return sender.recv(100).decode() == expected
        except OSError:
            return not expected

    with sender:
        sender.connect((HOST, 6000))
        for name in ("first", "second"):
            eventually(functools.partial(says, ""), 2.0)  # makes a flow that goes nowhere
            box = world.start(PortBinding(53, "udp", "", "6000"))
            world.serve(box.namespace, name, 53, "udp")
            expected = f"{name} {NEIGHBOUR}"
            eventually(functools.partial(says, expected), 2.0)
            world.release(box)


def test_case_100_loopback_port_is_closed_to_the_outside(world: World) -> None:
    world.setup()
    box = world.start(LOCAL)
    world.serve(box.namespace, "box", 80)
    world.serve(world.host, "secret", 9999)
    assert ask(world.host, "127.0.0.1", 8081) == "box 172.17.0.1"
    assert ask(world.neighbour, HOST, 8081) == "refused"
    # a neighbour that sends 127/8 out on its link, and one that forges 127/8 as source
    world.neighbour.command("ip", "route", "del", "local", "127.0.0.0/8", "table", "local")
    world.neighbour.command("ip", "route", "del", "local", "127.0.0.1", "table", "local")
    world.neighbour.command("ip", "route", "add", "127.0.0.0/8", "via", HOST, "src", NEIGHBOUR)
    world.neighbour.command("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    assert ask(world.neighbour, "127.0.0.1", 8081) == "silence"
    assert ask(world.neighbour, "127.0.0.1", 9999) == "silence"
    # route_localnet on the bridge does not open the host's loopback to containers
    evil = world.start()
    evil.namespace.command("ip", "route", "del", "local", "127.0.0.0/8", "table", "local")
    evil.namespace.command("ip", "route", "del", "local", "127.0.0.1", "table", "local")
    evil.namespace.command("ip", "route", "add", "127.0.0.0/8", "via", "172.17.0.1")
    evil.namespace.command("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    assert evil.endpoint is not None
    assert ask(evil.namespace, "127.0.0.1", 9999) == "silence"


def test_case_101_unpublished_ports_are_closed_to_the_outside(world: World) -> None:
    world.setup()
    box = world.start(WEB)
    assert box.endpoint is not None
    world.serve(box.namespace, "box", 80)
    world.serve(box.namespace, "box", 81)
    # the neighbour routes to the bridge's subnet through the host
    assert ask(world.neighbour, box.endpoint.address, 81) == "silence"
    assert ask(world.neighbour, box.endpoint.address, 80) == "silence"
    assert ask(world.neighbour, HOST, 8080) == f"box {NEIGHBOUR}"


def test_host_does_not_become_a_router(world: World) -> None:
    world.serve(world.second, "second", 7000)
    assert ask(world.neighbour, SECOND_NEIGHBOUR, 7000) == "silence"
    network = world.setup()
    assert world.host.command("sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
    assert ask(world.neighbour, SECOND_NEIGHBOUR, 7000) == "silence"
    # and it is so again after a restart, when forwarding is already on
    world.worker.do(network.close)
    world.setup()
    assert ask(world.neighbour, SECOND_NEIGHBOUR, 7000) == "silence"


def test_forwarding_that_was_on_stays_open(world: World) -> None:
    world.host.command("sysctl", "-qw", "net.ipv4.ip_forward=1")
    world.serve(world.second, "second", 7000)
    world.setup()
    assert ask(world.neighbour, SECOND_NEIGHBOUR, 7000) == f"second {NEIGHBOUR}"


def test_case_103_flushed_rules_come_back(world: World) -> None:
    world.setup()
    box = world.start(WEB)
    assert box.endpoint is not None
    address = box.endpoint.address
    world.serve(box.namespace, "box", 80)
    world.host.command(
        "nft", "add", "rule", "inet", "machine", "user", "tcp", "dport", "81", "drop"
    )
    before = table(world)
    for damage in (
        "flush ruleset",
        "delete table inet machine",
        "flush chain inet machine prerouting",
        "flush map inet machine dnat_any",
        "add rule inet machine forward accept",
        "flush ruleset; add table inet foreign; add chain inet foreign x",
        "flush chain inet machine input; delete chain inet machine input; add chain inet machine input",
    ):
        world.host.command("nft", damage)
        eventually(lambda: table(world) == before, 2.0)
        assert ask(world.neighbour, HOST, 8080) == f"box {NEIGHBOUR}", damage
        assert ask(world.neighbour, address, 80, wait=0.1) == "silence", damage
    # foreign tables are never touched
    assert "table inet foreign" in world.host.command("nft", "list", "tables")
    # own changes are no reason to start anew, and are possible right after a flush
    world.host.command("nft", "flush", "ruleset")
    world.release(box)
    assert ask(world.neighbour, HOST, 8080) == "refused"
    again = world.start(WEB)
    world.serve(again.namespace, "again", 80)
    assert ask(world.neighbour, HOST, 8080) == f"again {NEIGHBOUR}"


def test_case_104_operator_rules_come_first_and_stay(world: World) -> None:
    network = world.setup()
    box = world.start(WEB)
    world.serve(box.namespace, "box", 80)
    rule = "ip saddr 10.77.0.2 meta l4proto tcp ct original proto-dst 8080 drop"
    world.host.command("nft", f"add rule inet machine user {rule}")
    assert ask(world.neighbour, HOST, 8080, wait=0.2) == "silence"
    assert ask(world.second, SECOND_HOST, 8080) == f"box {SECOND_NEIGHBOUR}"
    assert box.endpoint is not None
    world.worker.do(network.close)
    world.setup(((box.id, box.endpoint),))
    assert ask(world.neighbour, HOST, 8080, wait=0.2) == "silence"
    assert ask(world.second, SECOND_HOST, 8080) == f"box {SECOND_NEIGHBOUR}"
    assert rule in world.host.command("nft", "list", "chain", "inet", "machine", "user")


def test_case_105_no_ipv6_on_the_bridge(world: World) -> None:
    world.setup()
    box = world.start()
    show = ("ip", "-6", "-o", "address", "show")
    assert world.host.command(*show, "dev", "machine0") == ""
    assert box.namespace.command(*show, "dev", "eth0") == ""
    for line in world.host.command(*show).splitlines():
        assert "veth" not in line


def test_case_106_containers_cannot_reach_the_agent(world: World) -> None:
    world.setup(agent_ports=(2376, 2377))
    box = world.start()
    world.serve(world.host, "agent", 2376)
    world.serve(world.host, "agent", 2377)
    world.serve(world.host, "other", 3000)
    for address in (HOST, SECOND_HOST, "172.17.0.1"):
        assert ask(box.namespace, address, 2376, wait=0.2) == "silence"
        assert ask(box.namespace, address, 2377, wait=0.2) == "silence"
        assert ask(box.namespace, address, 3000).startswith("other ")
    assert ask(world.neighbour, HOST, 2376) == f"agent {NEIGHBOUR}"


def test_case_107_metadata_service(world: World) -> None:
    address = "169.254.169.254"
    world.neighbour.command("ip", "address", "add", f"{address}/32", "dev", "up0")
    world.host.command("ip", "route", "add", address, "via", NEIGHBOUR)
    world.serve(world.neighbour, "imds", 80)
    network = world.setup(block_metadata=True)
    box = world.start()
    assert box.endpoint is not None
    assert ask(box.namespace, address, 80, wait=0.2) == "silence"
    assert ask(world.host, address, 80).startswith("imds")
    world.worker.do(network.close)
    world.setup(((box.id, box.endpoint),))
    assert ask(box.namespace, address, 80) == f"imds {HOST}"
