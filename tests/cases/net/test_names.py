"""The embedded name server, with real sockets in namespaces."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from agent.engine.model import EndpointRequest, NetworkSpec
from agent.engine.ports import NameServers
from agent.net import dnswire
from tests.cases.net.world import HOST, NEIGHBOUR, Box, Namespace, World

RESOLVER = "127.0.0.11"


def question(name: str, kind: int = dnswire.A, identity: int = 77) -> bytes:
    head = struct.pack(">HHHHHH", identity, 0x0100, 1, 0, 0, 0)
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split(".") if one)
    return head + labels + b"\0" + struct.pack(">HH", kind, 1)


def ask(where: Namespace, data: bytes, *, tcp: bool = False, wait: float = 2.0) -> bytes:
    """The answer; b"" when none comes."""

    def probe() -> bytes:
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(wait)
            try:
                client.connect((RESOLVER, 53))
                client.send(struct.pack(">H", len(data)) + data if tcp else data)
                return client.recv(65535)[2 if tcp else 0 :]
            except OSError:
                return b""

    return where.do(probe)


def rcode(reply: bytes) -> int:
    return reply[3] & 15 if reply else -1


def addresses(reply: bytes) -> list[str]:
    """The A records of a reply without compression but for the owner's name."""
    count = struct.unpack_from(">H", reply, 6)[0]
    offset = dnswire.parse(
        bytes([reply[0], reply[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + reply[12:]
    ).end
    found = []
    for _ in range(count):
        found.append(socket.inet_ntoa(reply[offset + 12 : offset + 16]))
        offset += 16
    return found


def member(world: World, network: str, *names: str, upstream: NameServers | None = None) -> Box:
    """A container on that network, with a name server."""
    assert world.network is not None
    adapter, box = world.network, world.box()
    request = EndpointRequest(network, dns_names=names)
    box.endpoint = world.worker.do(lambda: adapter.reserve(box.id, (), [request]))[0]
    world.connect(box)
    servers = upstream or NameServers()
    world.worker.do(lambda: adapter.serve_names(box.id, box.namespace.pid, servers))
    return box


def made(world: World, name: str = "front", **more: object) -> str:
    network = world.network or world.setup()
    spec = NetworkSpec(name, **more)  # type: ignore[arg-type]
    return world.worker.do(lambda: network.create(spec)).id


class Elsewhere:
    """A name server of the neighbour: echoes questions as answers, by UDP and TCP."""

    def __init__(self, world: World) -> None:
        self.asked: list[bytes] = []
        self.silent = False
        self._udp = world.neighbour.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind(("0.0.0.0", 53))
        self._tcp = world.neighbour.do(socket.socket)
        self._tcp.bind(("0.0.0.0", 53))
        self._tcp.listen()
        for target in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=target, daemon=True).start()

    def _answer(self, data: bytes) -> bytes:
        self.asked.append(data)
        return data[:2] + b"\x81\x80" + data[4:] + b"opaque"

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(2048)
                if peer is None:
                    return
                answer = self._answer(data)
                if not self.silent:
                    self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._tcp.accept()
                with peer:
                    data = self._answer(peer.recv(2048)[2:])
                    framed = struct.pack(">H", len(data)) + data
                    peer.sendall(framed[:5])
                    peer.sendall(framed[5:])

    def close(self) -> None:
        for one in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def elsewhere(world: World) -> Iterator[Elsewhere]:
    made = Elsewhere(world)
    try:
        yield made
    finally:
        made.close()


def test_names_and_addresses(world: World) -> None:
    made(world)
    web, client = member(world, "front", "web", "site"), member(world, "front", "client")
    assert web.endpoint is not None
    for name in ("web", "WEB", "site", "web.front"):
        for tcp in (False, True):
            assert addresses(ask(client.namespace, question(name), tcp=tcp)) == [
                web.endpoint.address
            ], name
    reply = ask(client.namespace, question("web", dnswire.AAAA))
    assert (rcode(reply), reply[6:8]) == (dnswire.OK, b"\0\0")
    backwards = ".".join(reversed(web.endpoint.address.split("."))) + ".in-addr.arpa"
    assert b"\x03web\x05front\0" in ask(client.namespace, question(backwards, dnswire.PTR))
    other = member(world, "bridge")
    assert rcode(ask(other.namespace, question("web"))) == dnswire.SERVFAIL
    world.release(web)
    assert rcode(ask(client.namespace, question("web"))) == dnswire.SERVFAIL


def test_one_name_many_containers(world: World) -> None:
    made(world)
    webs = [member(world, "front", f"web{n}", "web") for n in range(3)]
    answers = [addresses(ask(webs[0].namespace, question("web"))) for _ in range(6)]
    expected = {one.endpoint.address for one in webs if one.endpoint}
    assert all(set(one) == expected for one in answers)
    assert {one[0] for one in answers} == expected


def test_other_names_go_elsewhere_untouched(world: World, elsewhere: Elsewhere) -> None:
    made(world)
    box = member(world, "front", "box", upstream=NameServers((NEIGHBOUR,)))
    for tcp in (False, True):
        data = question("example.com", 99) + b""
        assert ask(box.namespace, data, tcp=tcp) == data[:2] + b"\x81\x80" + data[4:] + b"opaque"
    assert len(elsewhere.asked) == 2
    # From the container's own namespace, and by its way out: the neighbour sees the host.
    second = member(world, "front", "b2", upstream=NameServers(("192.0.2.1", NEIGHBOUR)))
    elsewhere.silent = False
    assert ask(second.namespace, question("x.org"), wait=8) != b""


def test_case_108_internal_networks_never_ask_elsewhere(world: World, elsewhere: Elsewhere) -> None:
    made(world, "inner", internal=True)
    for upstream in (NameServers((NEIGHBOUR,)), NameServers((NEIGHBOUR,), from_host=True)):
        box = member(world, "inner", "box", upstream=upstream)
        for tcp in (False, True):
            reply = ask(box.namespace, question("example.com"), tcp=tcp)
            assert rcode(reply) == dnswire.SERVFAIL
    assert elsewhere.asked == []


def test_case_108_malformed_packets(world: World) -> None:
    made(world)
    box, web = member(world, "front", "box"), member(world, "front", "web")
    assert web.endpoint is not None
    good = question("web")

    def flood() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((RESOLVER, 53))
            client.setblocking(False)
            for number in range(50_000):
                data = bytearray(good)
                data[number % len(data)] ^= 1 << number % 8
                packet = secrets.token_bytes(number % 40) if number % 2 else bytes(data)
                with contextlib.suppress(OSError):
                    client.send(packet)
        return 0

    box.namespace.do(flood)
    loop = good[:12] + b"\xc0\x0c" + good[-4:]
    # what is left of the flood may fill the socket's queue: a resolver asks again, so do we
    answers = (ask(box.namespace, loop) for _ in range(10))
    assert rcode(next((answer for answer in answers if answer), b"")) == dnswire.FORMERR
    assert addresses(ask(box.namespace, good)) == [web.endpoint.address]


def test_case_108_ten_thousand_questions_a_second(world: World) -> None:
    made(world)
    box, web = member(world, "front", "box"), member(world, "front", "web")
    good = question("web")

    def many() -> float:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((RESOLVER, 53))
            client.settimeout(5)
            start = time.monotonic()
            for _ in range(200):
                for _ in range(10):
                    client.send(good)
                for _ in range(10):
                    client.recv(512)
            return 2000 / (time.monotonic() - start)

    assert web.endpoint is not None
    assert box.namespace.do(many) > 2000  # on a busy machine; about 20,000 alone


def test_names_are_back_with_the_next_agent(world: World) -> None:
    made(world)
    web, client = member(world, "front", "web"), member(world, "front", "client")
    first = world.network
    assert first is not None
    assert web.endpoint is not None
    assert client.endpoint is not None
    world.worker.do(first.close)
    assert ask(client.namespace, question("web"), wait=0.2) == b""
    live = ((web.id, web.endpoint), (client.id, client.endpoint))
    second = world.setup(live)
    world.worker.do(lambda: second.serve_names(client.id, client.namespace.pid, NameServers()))
    assert addresses(ask(client.namespace, question("web"))) == [web.endpoint.address]
    world.worker.do(lambda: second.serve_names(client.id, client.namespace.pid, NameServers()))
    assert addresses(ask(client.namespace, question("web"))) == [web.endpoint.address]


def test_a_container_may_be_a_name_server_itself(world: World) -> None:
    made(world)
    box = member(world, "front", "box")
    server = world.serve(box.namespace, "own", 53, "udp")
    assert server is not None
    assert addresses(ask(box.namespace, question("box")))
    assert HOST


def test_nothing_holds_the_namespace(world: World) -> None:
    made(world)
    box = member(world, "front", "box")
    network = world.network
    assert network is not None
    world.worker.do(lambda: network.silence_names(box.id))
    world.worker.do(lambda: network.silence_names(box.id))
    assert ask(box.namespace, question("box"), wait=0.2) == b""
