"""Networks of users: made, joined, left, removed; isolation between them; IPv6; macvlan."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from agent.engine.model import Endpoint, EndpointRequest, IpamPool, NetworkSpec, PortBinding
from agent.engine.ports import NetworkInfo
from agent.errors import EngineError, Kind
from agent.host.syscalls import CLONE_NEWNET, setns
from agent.net.network import HostNetworks
from tests.cases.net.test_traffic import eventually
from tests.cases.net.world import HOST, NEIGHBOUR, Box, Namespace, World, ask

WEB = PortBinding(80, "tcp", "", "8080")
_BRIDGE = "com.docker.network.bridge."


def network_of(world: World) -> HostNetworks:
    return world.network or world.setup()


def make(world: World, name: str, *pools: IpamPool, **more: object) -> NetworkInfo:
    network = network_of(world)
    spec = NetworkSpec(name, pools=pools, **more)  # type: ignore[arg-type]
    return world.worker.do(lambda: network.create(spec))


def drop(world: World, made: NetworkInfo) -> None:
    network = network_of(world)
    world.worker.do(lambda: network.remove(made.id))


def join(world: World, *networks: str, ports: tuple[PortBinding, ...] = ()) -> Box:
    """A container on these networks."""
    network, box = network_of(world), world.box()
    requests = [EndpointRequest(name) for name in networks]
    found = world.worker.do(lambda: network.reserve(box.id, ports, requests))
    for one in found:
        box.endpoint = one
        world.connect(box)
    box.endpoint = next(one for one in found if one.way_out)
    return box


def refused(world: World, name: str, *pools: IpamPool, **more: object) -> Kind:
    with pytest.raises(EngineError) as caught:
        make(world, name, *pools, **more)
    return caught.value.kind


def links(world: World) -> str:
    return world.host.command("ip", "-o", "link")


def test_made_and_removed_leaves_nothing(world: World) -> None:
    world.setup()
    rules = world.host.command("nft", "-s", "list", "ruleset")
    before = time.monotonic()
    made = make(world, "front", labels={"a": "b"})
    assert f"br-{made.id[:12]}" in links(world)
    assert (made.subnet, made.gateway) == ("172.18.0.0/16", "172.18.0.1")
    assert refused(world, "front") is Kind.CONFLICT
    drop(world, made)
    assert time.monotonic() - before < 2
    assert world.host.command("nft", "-s", "list", "ruleset") == rules
    eventually(lambda: "br-" not in links(world), 2)
    assert os.listdir(Path(world.root) / "network" / "networks") == []
    with pytest.raises(EngineError, match=f"network {made.id} not found"):
        drop(world, made)


def test_case_102_networks_do_not_reach_each_other(world: World) -> None:
    make(world, "front")
    make(world, "back")
    make(world, "inner", internal=True)
    web = join(world, "front", ports=(WEB,))
    inner = join(world, "inner", ports=(PortBinding(80, "tcp", "", "8090"),))
    world.serve(web.namespace, "web", 80)
    world.serve(inner.namespace, "inner", 80)
    world.serve(world.neighbour, "out", 7000)
    assert web.endpoint is not None
    assert inner.endpoint is not None
    front, back, plain = join(world, "front"), join(world, "back"), world.start()
    closed = join(world, "inner")
    assert ask(front.namespace, web.endpoint.address, 80).startswith("web")
    for other in (back, plain, closed):
        assert ask(other.namespace, web.endpoint.address, 80) in {"silence", "refused"}
        assert ask(world.neighbour, inner.endpoint.address, 80) in {"silence", "refused"}
    # Published ports follow docker's rules: any other bridge by any address of the host.
    for other in (front, back, plain):
        assert ask(other.namespace, HOST, 8080).startswith("web")
        assert ask(other.namespace, NEIGHBOUR, 7000) == f"out {HOST}"
    # internal: among themselves, nothing else; nothing is published.
    assert ask(closed.namespace, inner.endpoint.address, 80).startswith("inner")
    assert ask(closed.namespace, NEIGHBOUR, 7000) in {"silence", "refused"}
    assert ask(world.neighbour, HOST, 8090) == "refused"
    assert inner.endpoint.ports == ()


def test_case_102_without_icc(world: World) -> None:
    make(world, "apart", options={f"{_BRIDGE}enable_icc": "false"})
    one, two = join(world, "apart", ports=(WEB,)), join(world, "apart")
    world.serve(one.namespace, "one", 80)
    world.serve(world.neighbour, "out", 7000)
    assert one.endpoint is not None
    assert ask(two.namespace, one.endpoint.address, 80) in {"silence", "refused"}
    assert ask(two.namespace, NEIGHBOUR, 7000) == f"out {HOST}"
    assert ask(two.namespace, HOST, 8080).startswith("one")  # what is published is for all
    assert ask(world.neighbour, HOST, 8080).startswith("one")


def test_case_103_all_networks_come_back(world: World) -> None:
    make(world, "front")
    make(world, "inner", internal=True)
    web = join(world, "front", ports=(WEB,))
    closed = join(world, "inner")
    world.serve(web.namespace, "web", 80)
    world.serve(world.neighbour, "out", 7000)
    before = sorted(world.host.command("nft", "-s", "list", "ruleset").splitlines())
    for _ in range(3):
        world.host.command("nft", "flush", "ruleset")
        eventually(lambda: ask(world.neighbour, HOST, 8080, wait=0.2).startswith("web"), 2)
        assert ask(closed.namespace, NEIGHBOUR, 7000, wait=0.2) in {"silence", "refused"}
    assert sorted(world.host.command("nft", "-s", "list", "ruleset").splitlines()) == before


def attach(world: World, box: Box, endpoints: tuple[Endpoint, ...], name: str,
           ports: tuple[PortBinding, ...] = ()) -> tuple[Endpoint, ...]:  # fmt: skip
    network, pid = network_of(world), box.namespace.pid
    request = EndpointRequest(name)
    return world.worker.do(lambda: network.attach(box.id, pid, endpoints, request, ports))


def detach(world: World, box: Box, endpoints: tuple[Endpoint, ...], name: str,
           ports: tuple[PortBinding, ...] = ()) -> tuple[Endpoint, ...]:  # fmt: skip
    network, pid = network_of(world), box.namespace.pid
    one = next(one for one in endpoints if one.network == name)
    return world.worker.do(lambda: network.detach(box.id, pid, endpoints, one, ports))


def test_the_way_out_moves(world: World) -> None:
    for name in ("m", "a", "z"):
        make(world, name)
    box = join(world, "m", ports=(WEB,))
    world.serve(box.namespace, "box", 80)
    world.serve(world.neighbour, "out", 7000)
    assert box.endpoint is not None

    def works() -> bool:
        return ask(world.neighbour, HOST, 8080) == f"box {NEIGHBOUR}" and ask(
            box.namespace, NEIGHBOUR, 7000
        ) == (f"out {HOST}")

    eventually(works, 5)
    found = attach(world, box, (box.endpoint,), "z", (WEB,))
    assert [one.way_out for one in found] == [True, False]
    assert [one.interface for one in found] == ["eth0", "eth1"]
    eventually(works, 5)
    found = attach(world, box, found, "a", (WEB,))
    assert [one.network for one in found if one.way_out] == ["a"]
    assert [bool(one.ports) for one in found] == [False, False, True]
    eventually(works, 5)
    found = detach(world, box, found, "a", (WEB,))
    assert [one.network for one in found if one.way_out] == ["m"]
    eventually(works, 5)
    found = detach(world, box, found, "m", (WEB,))
    eventually(works, 5)
    found = detach(world, box, found, "z", (WEB,))
    assert found == ()
    assert ask(world.neighbour, HOST, 8080) == "refused"
    found = attach(world, box, found, "z", (WEB,))
    assert [one.interface for one in found] == ["eth0"]
    eventually(works, 5)
    with pytest.raises(EngineError, match="already exists"):
        attach(world, box, found, "z")


def test_gateway_priority_and_internal(world: World) -> None:
    make(world, "a", internal=True)
    make(world, "b")
    make(world, "c")
    network, box = network_of(world), world.box()
    requests = [EndpointRequest("a"), EndpointRequest("b"), EndpointRequest("c", gw_priority=1)]
    found = world.worker.do(lambda: network.reserve(box.id, (WEB,), requests))
    assert [one.way_out for one in found] == [False, False, True]
    assert [len(one.ports) for one in found] == [0, 0, 1]
    found = world.worker.do(lambda: network.reserve(world.box().id, (), requests[:2]))
    assert [one.way_out for one in found] == [False, True]


def test_all_networks_come_back_with_the_next_agent(world: World) -> None:
    front, inner = make(world, "front"), make(world, "inner", internal=True)
    web, closed = join(world, "front", ports=(WEB,)), join(world, "inner")
    assert web.endpoint is not None
    assert closed.endpoint is not None
    world.serve(web.namespace, "web", 80)
    first = network_of(world)
    world.worker.do(first.close)
    assert ask(world.neighbour, HOST, 8080).startswith("web")
    for info in (front, inner):  # a reboot, but for the containers
        world.host.command("ip", "link", "delete", f"br-{info.id[:12]}")
    second = world.setup(((web.id, web.endpoint), (closed.id, closed.endpoint)))
    assert [one.name for one in second.networks()] == ["bridge", "host", "none", "front", "inner"]
    assert [one.id for one in second.networks()][3:] == [front.id, inner.id]
    assert ask(world.neighbour, HOST, 8080, wait=3).startswith("web")
    with pytest.raises(EngineError, match="has active endpoints"):
        drop(world, front)
    box = join(world, "front")
    assert box.endpoint is not None
    assert box.endpoint.address != web.endpoint.address


def test_case_126_a_damaged_definition_is_put_aside(world: World) -> None:
    front, back = make(world, "front"), make(world, "back")
    network = network_of(world)
    world.worker.do(network.close)
    path = Path(world.root) / "network" / "networks" / f"{front.id}.json"
    path.write_text(path.read_text()[:100])
    second = world.setup()
    assert [one.id for one in second.networks()][3:] == [back.id]
    assert path.with_suffix(".json.bad").exists()


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        (IpamPool("10.77.0.0/24"), Kind.CONFLICT),  # the host's own network
        (IpamPool("10.0.0.0/8"), Kind.CONFLICT),
        (IpamPool("172.17.0.0/24"), Kind.FORBIDDEN),  # the default bridge's
        (IpamPool("0.0.0.0/0"), Kind.INVALID),
        (IpamPool("127.0.0.0/8"), Kind.INVALID),
        (IpamPool("10.5.0.1/24"), Kind.INVALID),
        (IpamPool("10.5.0.0/24", gateway="10.6.0.1"), Kind.INVALID),
        (IpamPool("10.5.0.0/24", gateway="10.5.0.0"), Kind.INVALID),
        (IpamPool("10.5.0.0/24", ip_range="10.5.0.0/16"), Kind.INVALID),
        (IpamPool("10.5.0.0/24", aux_addresses={"x": "10.6.0.1"}), Kind.INVALID),
        (IpamPool("10.5.0.0/31"), Kind.INVALID),
        (IpamPool("fd00::/64"), Kind.INVALID),  # IPv6 is not enabled
        (IpamPool("x; flush ruleset"), Kind.INVALID),
    ],
)
def test_case_112_subnets_that_are_refused(world: World, pool: IpamPool, kind: Kind) -> None:
    world.setup()
    before = world.host.command("nft", "-s", "list", "ruleset")
    assert refused(world, "front", pool) is kind
    assert len(network_of(world).networks()) == 3
    assert world.host.command("nft", "-s", "list", "ruleset") == before
    assert "br-" not in links(world)


def test_case_112_unless_forced(world: World) -> None:
    made = make(world, "front", IpamPool("10.77.0.0/25"),
                options={"machine.network.allow_overlap": "true"})  # fmt: skip
    assert made.gateway == "10.77.0.1"


def test_case_114_names_reach_no_rule(world: World) -> None:
    network = network_of(world)
    for name in ('x"; flush ruleset; #', "a b", "it's"):
        make(world, name, labels={"x": '"; drop'})
    rules = world.host.command("nft", "list", "ruleset")
    assert "flush" not in rules
    assert "it's" not in rules
    for option in ('a"; drop', "x" * 16, "../x"):
        assert refused(world, "n", options={f"{_BRIDGE}name": option}) is Kind.INVALID
    assert refused(world, "a/b") is Kind.INVALID
    assert refused(world, "n", options={f"{_BRIDGE}name": "eth0"}) is Kind.FORBIDDEN
    assert len(network.networks()) == 6


def test_options(world: World) -> None:
    made = make(world, "front", options={
        f"{_BRIDGE}name": "special0", "com.docker.network.driver.mtu": "1400",
        f"{_BRIDGE}host_binding_ipv4": "127.0.0.1", f"{_BRIDGE}enable_ip_masquerade": "false",
        "com.docker.network.container_iface_prefix": "net",
    })  # fmt: skip
    assert "special0" in links(world)
    box = join(world, "front", ports=(PortBinding(80, "tcp", "", "8080"),))
    assert box.endpoint is not None
    assert box.endpoint.interface == "net0"
    assert box.endpoint.ports[0].host_ip == "127.0.0.1"
    assert "mtu 1400" in box.namespace.command("ip", "link", "show", "net0")
    world.serve(box.namespace, "box", 80)
    assert ask(world.host, "127.0.0.1", 8080).startswith("box")
    assert ask(world.neighbour, HOST, 8080) == "refused"
    world.serve(world.neighbour, "out", 7000)
    world.neighbour.command("ip", "route", "add", made.subnet, "via", HOST)
    assert ask(box.namespace, NEIGHBOUR, 7000) == f"out {box.endpoint.address}"
    world.release(box)
    box.namespace.close()
    eventually(lambda: _dropped(world, made), 3)
    assert "special0" not in links(world)
    assert refused(world, "n", options={"com.example.x": "1"}) is Kind.NOT_IMPLEMENTED


def _dropped(world: World, made: NetworkInfo) -> bool:
    with contextlib.suppress(EngineError):  # its cable is about to go
        drop(world, made)
        return True
    return False


def test_case_105_ipv6(world: World) -> None:
    world.setup()
    six = make(world, "six", IpamPool("fd00:77::/64"), enable_ipv6=True)
    world.host.command("ip", "-6", "addr", "add", "fd00:1::1/64", "dev", "eth0", "nodad")
    world.neighbour.command("ip", "-6", "addr", "add", "fd00:1::2/64", "dev", "up0", "nodad")
    assert [pool.gateway for pool in six.pools] == ["172.18.0.1", "fd00:77::1"]
    web, other = join(world, "six", ports=(WEB,)), join(world, "six")
    plain = world.start()
    assert web.endpoint is not None
    assert [(one.host_ip, one.host_port) for one in web.endpoint.ports] == [
        ("0.0.0.0", 8080), ("::", 8080),
    ]  # fmt: skip
    assert web.endpoint.address6 == "fd00:77::2"
    server = subprocess.Popen(
        ["nsenter", f"--net=/proc/{web.namespace.pid}/ns/net", "python3", "-S", "-c", _SERVE6],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        assert fetch6(other.namespace, web.endpoint.address6, 80) == "six fd00:77::3"
        for where, address in ((world.neighbour, "fd00:1::1"), (world.host, "fd00:1::1"),
                               (other.namespace, "fd00:77::1")):  # fmt: skip
            # The kernel takes a second for its link-local addresses.
            eventually(functools.partial(_is_six, where, address), 6)
        # Not from outside, but by the published port.
        world.neighbour.command("ip", "-6", "route", "add", "fd00:77::/64", "via", "fd00:1::1")
        assert fetch6(world.neighbour, web.endpoint.address6, 80) == ""
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
    _check_outwards6(world, other)
    # Spoofed router advertisements change nothing: nobody takes them.
    for name in ("machine0", f"br-{six.id[:12]}"):
        assert world.host.command("sysctl", "-n", f"net.ipv6.conf.{name}.accept_ra").strip() == "0"
    assert world.host.command("sysctl", "-n", "net.ipv6.conf.machine0.disable_ipv6").strip() == "1"
    assert plain.namespace.command("sysctl", "-n", "net.ipv6.conf.eth0.disable_ipv6").strip() == "1"


def fetch6(where: Namespace, address: str, port: int) -> str:
    def probe() -> str:
        try:
            with socket.create_connection((address, port), 1) as client:
                return client.recv(99).decode()
        except OSError:
            return ""

    return where.do(probe)


def _is_six(where: Namespace, address: str) -> bool:
    return fetch6(where, address, 8080).startswith("six")


def _check_outwards6(world: World, box: Box) -> None:
    """By way of the host, with its address."""
    out = world.neighbour.do(lambda: socket.create_server(("::", 7006), family=socket.AF_INET6))
    with out:
        out.settimeout(2)

        def call() -> None:
            with socket.create_connection(("fd00:1::2", 7006), 2):
                pass

        box.namespace.do(call)
        peer, address = out.accept()
        peer.close()
        assert address[0] == "fd00:1::1"


_SERVE6 = """
import socket
s = socket.create_server(("::", 80), family=socket.AF_INET6)
print("up", flush=True)
while True:
    c, a = s.accept(); c.sendall(b"six " + a[0].encode()); c.close()
"""


def test_ipv6_subnets_are_chosen(world: World) -> None:
    one = make(world, "one", enable_ipv6=True)
    two = make(world, "two", enable_ipv4=False, enable_ipv6=True)
    assert one.pools[1].subnet.startswith("fd")
    assert len(two.pools) == 1
    assert two.pools[0].subnet != one.pools[1].subnet
    box = join(world, "two")
    assert box.endpoint is not None
    assert (box.endpoint.address, box.endpoint.prefix6) == ("", 64)


def test_macvlan(world: World) -> None:
    lan = make(world, "lan", IpamPool("10.77.0.0/24", ip_range="10.77.0.64/26", gateway=NEIGHBOUR),
               driver="macvlan", options={"parent": "eth0"})  # fmt: skip
    box, other = join(world, "lan", ports=(WEB,)), join(world, "lan")
    assert box.endpoint is not None
    assert box.endpoint.address == "10.77.0.64"
    assert box.endpoint.ports == ()
    world.serve(box.namespace, "box", 80)
    assert ask(world.neighbour, box.endpoint.address, 80) == f"box {NEIGHBOUR}"
    assert ask(other.namespace, box.endpoint.address, 80).startswith("box")
    assert f"default via {NEIGHBOUR}" in box.namespace.command("ip", "route")
    with pytest.raises(EngineError, match="has active endpoints"):
        drop(world, lan)
    world.release(box)
    world.release(other)
    drop(world, lan)
    with pytest.raises(EngineError, match="parent interface was not found"):
        make(world, "nolan", driver="macvlan", options={"parent": "nosuch0"})
    assert [one.name for one in network_of(world).networks()] == ["bridge", "host", "none"]


def test_case_111_a_full_network(world: World) -> None:
    make(world, "small", IpamPool("10.9.0.0/29", aux_addresses={"x": "10.9.0.6"}))
    network = network_of(world)
    requests = [EndpointRequest("small")]
    taken = [
        world.worker.do(lambda: network.reserve(world.box().id, (), requests))[0] for _ in range(4)
    ]
    assert sorted(one.address for one in taken) == [f"10.9.0.{n}" for n in range(2, 6)]
    with pytest.raises(EngineError, match="no available IPv4 addresses"):
        world.worker.do(lambda: network.reserve("a" * 64, (), requests))
    world.worker.do(lambda: network.release("a" * 64, taken[0]))
    wanted = [EndpointRequest("small", address="10.9.0.3")]
    with pytest.raises(EngineError, match="Address already in use"):
        world.worker.do(lambda: network.reserve("a" * 64, (), wanted))
    again = world.worker.do(lambda: network.reserve("a" * 64, (), requests))[0]
    assert again.address == taken[0].address


def test_what_is_taken_when_one_network_fails_is_given_back(world: World) -> None:
    make(world, "front")
    network = network_of(world)
    requests = [EndpointRequest("front"), EndpointRequest("nosuch")]
    with pytest.raises(EngineError, match="network nosuch not found"):
        world.worker.do(lambda: network.reserve("a" * 64, (), requests))
    drop(world, next(one for one in network.networks() if one.name == "front"))


def test_restarted_ones_find_their_address_free(world: World) -> None:
    """Docker's order, the lowest free one, also while the kernel has not taken the cable away:
    proxies that look names up once go on reaching what is restarted or recreated."""
    make(world, "named")
    box, peer = join(world, "named"), join(world, "named")
    before = box.endpoint
    assert before is not None
    network = network_of(world)

    def again() -> tuple[Endpoint, ...]:
        return network.reserve(box.id, (), [EndpointRequest("named")])

    for _ in range(3):
        world.release(box)
        box.endpoint = world.worker.do(again)[0]
        assert box.endpoint.address == before.address
        world.connect(box)
    assert peer.endpoint is not None
    world.release(peer)
    world.release(box)


def test_case_106_no_network_reaches_the_agent(world: World) -> None:
    world.setup(agent_ports=(2376,))
    six = make(world, "six", enable_ipv6=True)
    make(world, "inner", internal=True)
    world.serve(world.host, "agent", 2376)
    world.serve(world.host, "other", 2377)
    for name in ("six", "inner", "bridge"):
        box = join(world, name)
        assert box.endpoint is not None
        gateway = box.endpoint.gateway
        assert ask(box.namespace, gateway, 2377, wait=5).startswith("other"), name
        assert ask(box.namespace, gateway, 2376) == "silence", name
        assert ask(box.namespace, HOST, 2376) in {"silence", "refused"}, name
    assert six.enable_ipv6


def test_many_networks_at_once(world: World) -> None:
    """In parallel: no subnet twice, nothing left."""
    world.setup()
    rules = world.host.command("nft", "-s", "list", "ruleset")
    network = network_of(world)
    made: list[NetworkInfo] = []

    def one(number: int) -> None:
        setns(world.host.fd, CLONE_NEWNET)  # where the agent's threads are
        made.append(network.create(NetworkSpec(f"n{number}")))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({info.subnet for info in made}) == 12
    for info in made:
        drop(world, info)
    assert world.host.command("nft", "-s", "list", "ruleset") == rules
    eventually(lambda: "br-" not in links(world), 4)
