"""A small application with every kind of answer, and a server that runs it in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Self

from agent.errors import EngineError, Kind, invalid, not_found
from agent.server.limits import Limits
from agent.server.listeners import Listener
from agent.server.serve import Server
from agent.wire.frames import SYSTEM_ERROR, encode
from agent.wire.http import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    BlockingStream,
    Body,
    BodyKind,
    Handling,
    Hijack,
    Reply,
    Request,
    Stream,
    json_reply,
)
from agent.wire.streams import STDERR, STDOUT


class QueueStream:
    """A PullStream that a test pushes into."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._items: list[bytes] = []
        self._lock = threading.Lock()
        self.closed = threading.Event()

    def push(self, data: bytes) -> None:
        with self._lock:
            self._items.append(data)
            if not self.closed.is_set():
                os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes | None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        with self._lock:
            return self._items.pop(0) if self._items else None

    def close(self) -> None:
        assert not self.closed.is_set(), "closed twice"
        with self._lock:
            self.closed.set()
            os.close(self._fd)


class SocketDuplex:
    """A Duplex over a socket pair; `behave` runs at the other end in a thread."""

    def __init__(self, *, tty: bool, behave, stream: int = STDOUT) -> None:
        self._here, there = socket.socketpair()
        self._here.setblocking(False)
        self._tty = tty
        self._stream = stream
        self.closed = threading.Event()
        self.input_ended = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(behave, there), daemon=True)
        self.thread.start()

    def _run(self, behave, there: socket.socket) -> None:
        with there, contextlib.suppress(OSError):
            behave(there)

    @property
    def tty(self) -> bool:
        return self._tty

    def fileno(self) -> int:
        return self._here.fileno()

    def read(self) -> list[tuple[int, bytes]] | None:
        try:
            data = self._here.recv(65536)
        except BlockingIOError:
            return None
        return [(self._stream, data)] if data else []

    def write(self, data: bytes) -> int:
        try:
            return self._here.send(data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            return len(data)

    def write_fileno(self) -> int | None:
        return self._here.fileno()

    def close_write(self) -> None:
        self.input_ended.set()
        self._here.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        assert not self.closed.is_set(), "closed twice"
        self.closed.set()
        self._here.close()


def cat(there: socket.socket) -> None:
    while data := there.recv(65536):
        there.sendall(data)


def checksum(there: socket.socket) -> None:
    """Answers only after the end of input, and some time later."""
    digest = hashlib.sha256()
    while data := there.recv(65536):
        digest.update(data)
    threading.Event().wait(0.3)
    there.sendall(digest.hexdigest().encode() + b"\n")


def silent(there: socket.socket) -> None:
    there.recv(1)
    threading.Event().wait(30)


def deaf(there: socket.socket) -> None:
    """Reads nothing."""
    threading.Event().wait(8)


def flood(there: socket.socket) -> None:
    """Writes without end; ends when nobody is attached any more."""
    while True:
        there.sendall(bytes(65536))


BEHAVIOURS = {"cat": cat, "sum": checksum, "silent": silent, "deaf": deaf, "flood": flood}
STALL_NOTICE = b"you read nothing"


class FakeApplication:
    def __init__(self) -> None:
        self.common_headers = [("Api-Version", "1.51"), ("Server", "fake")]
        self.calls: list[tuple[str, str, bytes]] = []
        self.clients: list[str] = []
        self.streams: list[QueueStream] = []
        self.duplexes: list[SocketDuplex] = []
        self.released = threading.Event()
        self.produced = 0
        self.generator_closed = threading.Event()
        self.waiting = threading.Event()
        self.saw_gone = threading.Event()

    def resolve(self, request: Request) -> Handling:
        path = request.path
        if path.startswith("/v1."):
            path = "/" + path.split("/", 2)[2]
        routes = {
            ("GET", "/_ping"): Handling(self.ping, inline=True),
            ("HEAD", "/_ping"): Handling(self.ping, inline=True),
            ("GET", "/version"): Handling(self.version),
            ("POST", "/containers/create"): Handling(self.create, BodyKind.JSON),
            ("GET", "/events"): Handling(self.events),
            ("POST", "/images/create"): Handling(self.pull),
            ("PUT", "/archive"): Handling(self.archive, BodyKind.STREAM),
            ("POST", "/build"): Handling(self.build, BodyKind.STREAM),
            ("POST", "/refuse"): Handling(self.refuse, BodyKind.STREAM),
            ("POST", "/start"): Handling(self.start),
            ("POST", "/wait"): Handling(self.wait),
            ("GET", "/boom"): Handling(self.boom),
        }
        if (request.method, path) in routes:
            return routes[request.method, path]
        if path.startswith("/containers/") and path.endswith("/attach"):
            return Handling(self.attach)
        if path.startswith("/containers/") and path.endswith("/json"):
            return Handling(self.inspect)
        raise not_found("page not found")

    def ping(self, request: Request, body: Body) -> Reply:
        return Reply(200, b"OK", "text/plain; charset=utf-8")

    def version(self, request: Request, body: Body) -> Reply:
        self.clients.append(request.client.label())
        components = [{"Name": "Engine", "Version": "fake", "Details": {}}]
        return json_reply(
            {"Version": "28.2.2", "ApiVersion": "1.51", "MinAPIVersion": "1.24",
             "Os": "linux", "Arch": "amd64", "Components": components}
        )  # fmt: skip

    def inspect(self, request: Request, body: Body) -> Reply:
        name = request.path.split("/")[-2]
        tty = name.startswith("tty")
        return json_reply(
            {"Id": name, "Name": f"/{name}", "State": {"Running": True, "Status": "running"},
             "Config": {"Tty": tty, "OpenStdin": True, "AttachStdin": True}, "HostConfig": {}}
        )  # fmt: skip

    def create(self, request: Request, body: Body) -> Reply:
        self.calls.append((request.method, request.path, body.data))
        if not isinstance(body.json(), dict):
            raise invalid("not an object")
        return json_reply({"Id": "1", "Warnings": []}, 201)

    def start(self, request: Request, body: Body) -> Reply:
        self.calls.append((request.method, request.path, body.data))
        return Reply(204)

    def boom(self, request: Request, body: Body) -> Reply:
        raise RuntimeError("secret detail")

    def wait(self, request: Request, body: Body) -> Reply:
        self.waiting.set()
        if body.gone.wait(20):
            self.saw_gone.set()
        return Reply(204)

    def events(self, request: Request, body: Body) -> Stream:
        stream = QueueStream()
        self.streams.append(stream)
        return Stream(stream)

    def pull(self, request: Request, body: Body) -> BlockingStream:
        return BlockingStream(self._progress(request))

    def _progress(self, request: Request) -> Generator[bytes, None, None]:
        kind = request.query.get("kind")
        try:
            if kind == "early":
                raise EngineError(Kind.NOT_FOUND, "manifest unknown")
            for number in range(request.query.integer("n", 3) or 0):
                self.produced += 1
                yield b'{"status":"%d"}\r\n' % number
            if kind == "big":
                while True:
                    self.produced += 1
                    yield bytes(65536)
            if kind == "late":
                raise EngineError(Kind.INTERNAL, "disk \u0007 gone")
        finally:
            self.generator_closed.set()

    def archive(self, request: Request, body: Body) -> Reply:
        digest = hashlib.sha256()
        while data := body.reader.read(100_000):
            digest.update(data)
        return json_reply({"sha256": digest.hexdigest()})

    def refuse(self, request: Request, body: Body) -> Reply:
        body.reader.read(10)
        raise not_found("No such container: x")

    def build(self, request: Request, body: Body) -> BlockingStream:
        def chunks() -> Generator[bytes, None, None]:
            total = 0
            while data := body.reader.read():
                total += len(data)
                yield b'{"stream":"%d"}\r\n' % total

        return BlockingStream(chunks())

    def attach(self, request: Request, body: Body) -> Hijack:
        name = request.path.split("/")[-2]
        tty = name.startswith("tty")
        behave = BEHAVIOURS[name.removeprefix("tty-").removeprefix("err-")]
        stream = STDERR if name.startswith("err") else STDOUT
        duplex = SocketDuplex(tty=tty, behave=behave, stream=stream)
        self.duplexes.append(duplex)
        notice = STALL_NOTICE if tty else encode(SYSTEM_ERROR, STALL_NOTICE)
        waited = request.query.get("patient") == "1"
        return Hijack(
            duplex,
            RAW_STREAM if tty else MULTIPLEXED_STREAM,
            stall_notice=b"" if waited else notice,
        )


class Running:
    """A server in a thread of its own."""

    def __init__(self, application, listeners: list[Listener], limits: Limits) -> None:
        self.application = application
        self.loop = asyncio.new_event_loop()
        self.server: Server
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._listeners = listeners
        self._limits = limits
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._main())
        self.loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self.server = Server(self.application, self._listeners, self._limits)
        try:
            await self.server.start()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._started.set()
        await self._stop.wait()
        await self.server.stop()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        if self._failure is not None:
            self._thread.join(10)
            raise self._failure
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        if not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"

    def call(self, function, *args):
        """Runs a function on the server's loop."""
        done: list[object] = []
        ready = threading.Event()

        def run() -> None:
            done.append(function(*args))
            ready.set()

        self.loop.call_soon_threadsafe(run)
        assert ready.wait(10)
        return done[0]


def eventually(predicate, limit: float = 10.0) -> bool:
    """Polls without a bare sleep; True as soon as the predicate holds."""
    pause = threading.Event()
    for _ in range(int(limit / 0.02)):
        if predicate():
            return True
        pause.wait(0.02)
    return bool(predicate())


def rss_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")
