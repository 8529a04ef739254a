"""What is measured.  Each function does one unit of work on one engine and returns seconds
(or another number, as its row in MEASURES says)."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.archives import load_large, push_large, remove_layers, save_large
from bench.builds import copy_large, ten_steps_cached, ten_steps_cold
from bench.client import Api, ApiError, create, pull
from bench.copies import copy_large_in, copy_large_out, copy_many_in, copy_many_out
from bench.engines import Engine
from bench.latency import (
    event_after_rename,
    log_follow,
    loopback_connect,
    ping_many,
    ping_one,
    run_by_client,
)
from bench.resources import (
    container_memory,
    idle_memory,
    pull_memory,
    removed,
    start_up,
    start_up_full,
)

Work = Callable[[Engine, Api], float]


@dataclass(frozen=True)
class Measure:
    """`unit`: s, MiB, MB/s, lines/s.  `better`: lower or higher.

    `target`: the wanted ratio to the yardstick, at most (at least, when higher is better);
    `limit`: the most that the value itself may be.
    """

    name: str
    work: Work
    unit: str = "s"
    better: str = "lower"
    rounds: int = 10
    target: float | None = None
    limit: float | None = None


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run_whole(engine: Engine, api: Api) -> float:
    """create + start + wait + remove, default bridge network."""

    def work() -> None:
        container = create(api, ["true"])
        api.raw("POST", f"/containers/{container}/start")
        api.raw("POST", f"/containers/{container}/wait")
        api.raw("DELETE", f"/containers/{container}")

    return _timed(work)


def _phase(which: str) -> Work:
    def work(engine: Engine, api: Api) -> float:
        spent = {}
        start = time.perf_counter()
        container = create(api, ["true"])
        for name, method, path in (
            ("create", "", ""),
            ("start", "POST", "/start"),
            ("wait", "POST", "/wait"),
            ("remove", "DELETE", ""),
        ):
            if method:
                api.raw(method, f"/containers/{container}{path}")
            now = time.perf_counter()
            spent[name] = now - start
            start = now
        return spent[which]

    return work


def start_serial(engine: Engine, api: Api) -> float:
    """Seconds a container, ten one after another (create + start)."""
    made: list[str] = []

    def work() -> None:
        for _ in range(10):
            made.append(create(api, ["sleep", "600"]))
            api.raw("POST", f"/containers/{made[-1]}/start")

    spent = _timed(work) / 10
    removed(engine, made)
    return spent


def start_parallel(engine: Engine, api: Api) -> float:
    """Seconds a container, ten at once (create + start)."""

    def one(_: int) -> str:
        mine = engine.api()
        container = create(mine, ["sleep", "600"])
        mine.raw("POST", f"/containers/{container}/start")
        mine.close()
        return container

    with ThreadPoolExecutor(10) as pool:
        start = time.perf_counter()
        made = list(pool.map(one, range(10)))
        spent = (time.perf_counter() - start) / 10
    removed(engine, made)
    return spent


class Running:
    """A running container for the length of a with block."""

    def __init__(self, engine: Engine, api: Api, command: list[str], **host: object) -> None:
        self._engine = engine
        self.id = create(api, command, **host)
        api.raw("POST", f"/containers/{self.id}/start")

    def __enter__(self) -> str:
        return self.id

    def __exit__(self, *_: object) -> None:
        removed(self._engine, [self.id])


def exec_true(engine: Engine, api: Api) -> float:
    """exec create + start to the end of its output, five times; seconds each."""
    body = {"Cmd": ["echo", "x"], "AttachStdout": True, "AttachStderr": True}

    def one(container: str) -> bytes:
        made = api.send("POST", f"/containers/{container}/exec", body)
        return api.hijack(f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})  # type: ignore[index]

    with Running(engine, api, ["sleep", "600"]) as container:
        return _timed(lambda: [one(container) for _ in range(5)]) / 5


def network_whole(engine: Engine, api: Api) -> float:
    """create + remove of a bridge network, five times; seconds each."""

    def work() -> None:
        for number in range(5):
            made = api.send("POST", "/networks/create", {"Name": f"bench{number}"})
            api.raw("DELETE", f"/networks/{made['Id']}")  # type: ignore[index]

    return _timed(work) / 5


def inspect_one(engine: Engine, api: Api) -> float:
    with Running(engine, api, ["sleep", "600"]) as container:
        return (
            _timed(lambda: [api.raw("GET", f"/containers/{container}/json") for _ in range(50)])
            / 50
        )


def listing(count: int) -> Work:
    """GET /containers/json?all=1 with `count` created containers."""

    def work(engine: Engine, api: Api) -> float:
        made = [create(api, ["true"]) for _ in range(count)]
        spent = _timed(lambda: [api.raw("GET", "/containers/json", all=1) for _ in range(10)]) / 10
        removed(engine, made)
        return spent

    return work


def pull_of(image: str, tag: str) -> Work:
    def work(engine: Engine, api: Api) -> float:
        for other in ("latest", "zstd"):  # their layers are the same once unpacked
            with contextlib.suppress(ApiError):  # it was not there
                api.raw("DELETE", f"/images/{image}:{other}", force=1)
        try:
            return _timed(lambda: pull(api, image, tag))
        except ApiError:  # Docker Engine 20.10 knows no zstd
            return math.nan

    return work


LINES = 1_000_000


def write_logs(engine: Engine, api: Api) -> float:
    """Lines a second that a container can write."""
    command = ["sh", "-c", f"yes 0123456789012345678901234567890123456789 | head -n {LINES}"]
    container = create(api, command)
    start = time.perf_counter()
    api.raw("POST", f"/containers/{container}/start")
    api.raw("POST", f"/containers/{container}/wait")
    spent = time.perf_counter() - start
    removed(engine, [container])
    return LINES / spent


def read_logs(engine: Engine, api: Api) -> float:
    """MB/s of GET logs."""
    command = ["sh", "-c", f"yes 0123456789012345678901234567890123456789 | head -n {LINES}"]
    container = create(api, command)
    api.raw("POST", f"/containers/{container}/start")
    api.raw("POST", f"/containers/{container}/wait")
    start = time.perf_counter()
    size = sum(len(chunk) for chunk in api.stream(f"/containers/{container}/logs", stdout=1))
    spent = time.perf_counter() - start
    removed(engine, [container])
    return size / spent / 1e6


def port_throughput(engine: Engine, api: Api) -> float:
    """MB/s from a container through its published port, taken from outside its host."""
    if engine.host is None:
        return math.nan
    command = ["sh", "-c", "truncate -s 512M /tmp/zeros; exec httpd -f -p 80 -h /tmp"]
    binding = {"80/tcp": [{"HostIp": "", "HostPort": "18080"}]}
    with Running(engine, api, command, PortBindings=binding):
        sock = _connect(engine.host.ip, 18080)
        sock.sendall(b"GET /zeros HTTP/1.0\r\n\r\n")
        start = time.perf_counter()
        size = 0
        while chunk := sock.recv(1 << 20):
            size += len(chunk)
        spent = time.perf_counter() - start
        sock.close()
    return size / spent / 1e6


def _connect(host: str, port: int) -> socket.socket:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((host, port), timeout=30)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


MEASURES: tuple[Measure, ...] = (
    Measure("memory idle (PSS)", idle_memory, "MiB", rounds=3, target=0.55),
    Measure("ping, one connection", ping_one, "/s", "higher", 5, target=0.8),
    Measure("ping, 16 connections", ping_many, "/s", "higher", 5, target=0.2),
    Measure("run: create+start+wait+remove", run_whole, rounds=15, target=0.2),
    Measure("  create", _phase("create"), rounds=5),
    Measure("  start", _phase("start"), rounds=5),
    Measure("  wait", _phase("wait"), rounds=5),
    Measure("  remove", _phase("remove"), rounds=5),
    Measure("docker run --rm by the client", run_by_client, target=0.35),
    Measure("create+start, one by one (each)", start_serial, rounds=3, target=0.2),
    Measure("create+start, ten at once (each)", start_parallel, rounds=3, target=0.25),
    Measure("exec to end of output", exec_true, rounds=5, target=0.5),
    Measure("network create+remove", network_whole, rounds=5, target=0.05),
    Measure("inspect", inspect_one, rounds=3, target=1),
    Measure("list 1", listing(1), rounds=3),
    Measure("list 100", listing(100), rounds=2),
    Measure("list 300", listing(300), rounds=1, target=0.15),
    Measure("pull one large layer", pull_of("large", "latest"), rounds=3, target=0.7),
    Measure("pull five layers, gzip", pull_of("layers", "latest"), rounds=3, target=0.45),
    Measure("pull five layers, zstd", pull_of("layers", "zstd"), rounds=3, target=0.45),
    Measure("remove an image of five layers", remove_layers, rounds=3, target=0.15),
    Measure("load of 100 MB", load_large, rounds=5, target=0.6),
    Measure("save of 100 MB", save_large, rounds=5, target=0.5),
    Measure("push of 100 MB", push_large, rounds=3, target=0.5),
    Measure("build of ten steps, cold", ten_steps_cold, rounds=5, target=0.3),
    Measure("build of ten steps, cached", ten_steps_cached, rounds=5, target=1.5),
    Measure("build with a COPY of 50 MB", copy_large, rounds=5, target=0.7),
    Measure("event after rename", event_after_rename, rounds=3, target=1),
    Measure("logs -f, from write to client", log_follow, rounds=3, target=2),
    Measure("connect to a port of 127.0.0.1", loopback_connect, rounds=3, target=0.5),
    Measure("1,000,000 log lines written", write_logs, "lines/s", "higher", 3, target=2),
    Measure("GET logs", read_logs, "MB/s", "higher", 3, target=8),
    Measure("copy 100 MB in", copy_large_in, rounds=5, target=0.8),
    Measure("copy 100 MB out", copy_large_out, rounds=5, target=0.8),
    Measure("copy 2,000 files in", copy_many_in, rounds=5, target=0.6),
    Measure("copy 2,000 files out", copy_many_out, rounds=5, target=0.6),
    Measure("published port", port_throughput, "MB/s", "higher", 3, target=1),
    Measure("memory a container (PSS)", container_memory, "MiB", rounds=2, target=0.07),
    Measure("memory above idle, pull of 200 MB", pull_memory, "MiB", rounds=3, limit=64),
    Measure("start to first ping, empty", start_up, rounds=5, target=0.25),
    Measure("start to first ping, 120 containers", start_up_full, rounds=3, target=0.2),
)
