"""Four network namespaces and real sockets: host, neighbour, and containers on the host's bridge.

Each namespace is held by one process, and by nothing else: when these end, links, addresses, rules
and sysctls are gone with them, whatever a test did.  The adapter runs in a thread of this process
that lives in the host's namespace (threads that it starts live there too).
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.engine.model import Endpoint, PortBinding
from agent.host.syscalls import CLONE_NEWNET, setns
from agent.net.namespaces import open_namespace, run_inside
from agent.net.network import HostNetworks, NetworkSettings, open_network

T = TypeVar("T")
HOST, NEIGHBOUR = "10.77.0.1", "10.77.0.2"
SECOND_HOST, SECOND_NEIGHBOUR = "10.78.0.1", "10.78.0.2"
_HELD = "import sys; print('up', flush=True); sys.stdin.read()"


class Namespace:
    """A network namespace, held by a process that waits for its stdin to close."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--net", "python3", "-S", "-c", _HELD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"up\n"
        self.pid = self._process.pid
        self.fd = open_namespace(self.pid)

    def command(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=20,
        )
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.stderr}")
        return done.stdout

    def do(self, action: Callable[[], T]) -> T:
        return run_inside(self.fd, action)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Worker:
    """A thread that lives in a namespace and does what it is given, in order."""

    def __init__(self, namespace: Namespace) -> None:
        self._queue: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None] = queue.Queue()
        self._fd = namespace.fd
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def do(self, action: Callable[[], T]) -> T:
        future: Future[T] = Future()
        self._queue.put((future, action))
        return future.result(timeout=30)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        setns(self._fd, CLONE_NEWNET)
        while (item := self._queue.get()) is not None:
            future, action = item
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)


class Server:
    """Answers each TCP connection or datagram with its name and the peer's address."""

    def __init__(self, namespace: Namespace, name: str, port: int, kind: str = "tcp") -> None:
        self._name = name
        stream = kind == "tcp"
        self._socket = namespace.do(
            lambda: socket.socket(
                socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
            )
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("0.0.0.0", port))
        if stream:
            self._socket.listen(64)
        self._thread = threading.Thread(target=self._tcp if stream else self._udp, daemon=True)
        self._thread.start()

    def _tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, address = self._socket.accept()
                with peer:
                    peer.sendall(f"{self._name} {address[0]}".encode())

    def _udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                address = self._socket.recvfrom(2048)[1]
                if address is None:  # shut down
                    return
                self._socket.sendto(f"{self._name} {address[0]}".encode(), address)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@dataclass
class Box:
    """A container: a namespace with an id, and its endpoint while it is connected."""

    namespace: Namespace
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    endpoint: Endpoint | None = None


class World:
    """The namespaces, the adapter in the host's, and the servers."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._open: list[Any] = []
        self.host, self.neighbour = self._keep(Namespace()), self._keep(Namespace())
        self.second = self._keep(Namespace())
        self._cable(self.neighbour, "eth0", HOST, NEIGHBOUR)
        self._cable(self.second, "eth1", SECOND_HOST, SECOND_NEIGHBOUR)
        self.host.command("ip", "link", "set", "lo", "up")
        # a new namespace has it as the computer's first one has
        self.host.command("sysctl", "-qw", "net.ipv4.ip_forward=0")
        self.worker = self._keep(Worker(self.host))
        self.network: HostNetworks | None = None

    def _keep(self, thing: T) -> T:
        self._open.append(thing)
        return thing

    def _cable(self, other: Namespace, name: str, here: str, there: str) -> None:
        self.host.command(
            *("ip", "link", "add", name, "type", "veth", "peer"),
            *("name", "up0", "netns", str(other.pid)),
        )
        self.host.command("ip", "address", "add", f"{here}/24", "dev", name)
        self.host.command("ip", "link", "set", name, "up")
        other.command("ip", "address", "add", f"{there}/24", "dev", "up0")
        other.command("ip", "link", "set", "up0", "up")
        other.command("ip", "link", "set", "lo", "up")
        other.command("ip", "route", "add", "default", "via", here)

    def open(self, **settings: Any) -> HostNetworks:
        given = NetworkSettings(root=self.root, **settings)
        self.network = self.worker.do(lambda: open_network(given))
        return self.network

    def setup(self, live: tuple[tuple[str, Endpoint], ...] = (), **settings: Any) -> HostNetworks:
        network = self.open(**settings)
        self.worker.do(lambda: network.setup(live))
        return network

    def box(self) -> Box:
        return Box(self._keep(Namespace()))

    def reserve(self, box: Box, *ports: PortBinding) -> Endpoint:
        network = self.network
        assert network is not None
        return self.worker.do(lambda: network.reserve(box.id, ports))[0]

    def start(self, *ports: PortBinding) -> Box:
        """A container that is on the bridge."""
        box = self.box()
        box.endpoint = self.reserve(box, *ports)
        self.connect(box)
        return box

    def connect(self, box: Box) -> None:
        network, endpoint = self.network, box.endpoint
        assert network is not None
        assert endpoint is not None
        self.worker.do(lambda: network.connect(box.id, endpoint, box.namespace.pid))

    def release(self, box: Box) -> None:
        network, endpoint = self.network, box.endpoint
        assert network is not None
        assert endpoint is not None
        self.worker.do(lambda: network.release(box.id, endpoint))

    def serve(self, where: Namespace, name: str, port: int, kind: str = "tcp") -> Server:
        return self._keep(Server(where, name, port, kind))

    def close(self) -> None:
        network = self.network
        if network is not None:
            with contextlib.suppress(BaseException):
                self.worker.do(network.close)
        for thing in reversed(self._open):
            with contextlib.suppress(Exception):
                thing.close()


def ask(where: Namespace, address: str, port: int, kind: str = "tcp", wait: float = 0.5) -> str:
    """What a server there answers; "refused", or "silence" when nothing comes."""

    def probe() -> str:
        stream = kind == "tcp"
        with socket.socket(
            socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        ) as client:
            client.settimeout(wait)
            try:
                client.connect((address, port))
                if not stream:
                    client.send(b"hello")
                return client.recv(200).decode()
            except TimeoutError:
                return "silence"
            except OSError:
                return "refused"

    return where.do(probe)
