"""How soon things arrive: events, followed logs, published ports, the client, many pings."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from bench.client import Api, ApiError, create
from bench.engines import Engine

_ROUNDS: Final = 20
_REQUEST: Final = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: bench\r\n\r\n"
_CLIENTS: Final = 4  # processes, so that the client is not what is measured
_CONNECTIONS: Final = 16
_SECONDS: Final = 1.0
# Runs inside the engine's host: 127.0.0.1 is its own.
_CONNECT: Final = """\
import socket, statistics, time
def once():
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", 18081), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        sock.recv(1)
        return time.perf_counter() - start
for _ in range(200):
    try:
        once()
        break
    except OSError:
        time.sleep(0.02)
print(statistics.median(once() for _ in range(100)))
"""


def _socket(engine: Engine) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(engine.url.removeprefix("unix://"))
    return sock


def _stream(engine: Engine, path: str) -> socket.socket:
    """A GET whose answer has begun; what follows is read from the socket as it comes."""
    sock = _socket(engine)
    sock.sendall(f"GET /v1.41{path} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(1)  # no byte of the stream may be lost
        if not piece:
            raise ApiError(f"GET {path}: no answer")
        head += piece
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise ApiError(f"GET {path}: {head[:200]!r}")
    return sock


def _await(sock: socket.socket, wanted: bytes) -> float:
    """The time at which `wanted` had come."""
    found = b""
    while wanted not in found:
        piece = sock.recv(65536)
        if not piece:
            raise ApiError("the stream ended")
        found = found[-4096:] + piece
    return time.perf_counter()


def event_after_rename(engine: Engine, api: Api) -> float:
    """From the request that renames a container to its event at another client; the median."""
    container = create(api, ["true"])
    found = []
    with _stream(engine, '/events?filters={"event":["rename"]}') as events:
        time.sleep(0.2)  # Docker Engine answers before it listens
        for number in range(_ROUNDS):
            name = f"renamed{number}-{secrets.token_hex(4)}"
            start = time.perf_counter()
            work = threading.Thread(
                target=api.raw, args=("POST", f"/containers/{container}/rename?name={name}")
            )
            work.start()
            found.append(_await(events, name.encode()) - start)
            work.join()
    api.raw("DELETE", f"/containers/{container}", force=1)
    return statistics.median(found)


def log_follow(engine: Engine, api: Api) -> float:
    """From a line written in a container to a client that follows its log; the median."""
    if engine.host is None:
        return float("nan")
    folder = Path(f"/proc/{engine.host.init_pid}/root/run/bench-fifo")
    folder.mkdir(exist_ok=True)
    fifo = folder / "lines"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    container = create(api, ["cat", "/fifo/lines"], Binds=["/run/bench-fifo:/fifo"])
    api.raw("POST", f"/containers/{container}/start")
    found = []
    with os.fdopen(os.open(fifo, os.O_RDWR), "wb", buffering=0) as lines:  # waits for nobody
        lines.write(b"first line\n")
        follow = f"/containers/{container}/logs?follow=1&stdout=1"
        with _stream(engine, follow) as stream:
            _await(stream, b"first line")
            for number in range(_ROUNDS):
                text = f"line {number} of {secrets.token_hex(4)}".encode()
                time.sleep(0.005)
                start = time.perf_counter()
                lines.write(text + b"\n")
                found.append(_await(stream, text) - start)
    api.raw("DELETE", f"/containers/{container}", force=1)
    return statistics.median(found)


def loopback_connect(engine: Engine, api: Api) -> float:
    """Connect to a port published on 127.0.0.1, to the answer's first byte."""
    if engine.host is None:
        return float("nan")
    binding = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18081"}]}
    container = create(api, ["httpd", "-f", "-p", "80", "-h", "/tmp"], PortBindings=binding)
    api.raw("POST", f"/containers/{container}/start")
    try:
        return float(engine.host.run("python3", "-c", _CONNECT, timeout=60).stdout)
    finally:
        api.raw("DELETE", f"/containers/{container}", force=1)


def run_by_client(engine: Engine, api: Api) -> float:
    """`docker run --rm busybox true` by the docker program."""
    del api
    program = os.environ.get("BENCH_DOCKER") or shutil.which("docker")
    if program is None:
        return float("nan")
    argv = [program, "-H", engine.url, "run", "--rm", "busybox", "true"]
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return time.perf_counter() - start


def _pinging(path: str, connections: int, count: multiprocessing.Queue[int]) -> None:
    socks = []
    for _ in range(connections):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        socks.append(sock)
    end = time.perf_counter() + _SECONDS
    done = 0
    while time.perf_counter() < end:
        for sock in socks:
            sock.sendall(_REQUEST)
        for sock in socks:
            answer = b""
            while not answer.endswith(b"OK"):
                answer += sock.recv(4096)
            done += 1
    count.put(done)


def ping_many(engine: Engine, api: Api) -> float:
    """Pings a second over sixteen connections."""
    del api
    count: multiprocessing.Queue[int] = multiprocessing.Queue()
    path = engine.url.removeprefix("unix://")
    clients = [
        multiprocessing.Process(target=_pinging, args=(path, _CONNECTIONS // _CLIENTS, count))
        for _ in range(_CLIENTS)
    ]
    for one in clients:
        one.start()
    total = sum(count.get(timeout=30) for _ in clients)
    for one in clients:
        one.join()
    return total / _SECONDS


def ping_one(engine: Engine, api: Api) -> float:
    """Pings a second over one connection."""
    del api
    count: multiprocessing.Queue[int] = multiprocessing.Queue()
    _pinging(engine.url.removeprefix("unix://"), 1, count)
    return count.get(timeout=30) / _SECONDS
