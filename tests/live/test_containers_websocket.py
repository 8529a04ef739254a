"""Attaching over a WebSocket."""

import base64
import os
import socket

from agent.wire.websocket import BINARY, CLOSE, PING, PONG, accept, close_frame, frame
from tests.support.installed import Installed


def masked(kind: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes((0x80 | kind, 0x80 | len(payload))) + mask + body


def connect(box: Installed, container: str, query: str) -> tuple[socket.socket, bytes]:
    """The socket after the upgrade, and what came with the head."""
    key = base64.b64encode(os.urandom(16)).decode()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(box.socket)
    sock.sendall(
        f"GET /v1.51/containers/{container}/attach/ws?{query} HTTP/1.1\r\nHost: docker\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(4096)
        assert data, head
        head += data
    head, _, rest = head.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert accept(key).encode() in head
    return sock, rest


def until(sock: socket.socket, seen: bytes, wanted: bytes) -> bytes:
    while wanted not in seen:
        data = sock.recv(4096)
        assert data, seen
        seen += data
    return seen.partition(wanted)[2]


def test_both_ways_ping_and_close(box: Installed) -> None:
    box.docker("run", "-di", "--name", "one", "busybox", "cat")
    sock, rest = connect(box, "one", "stream=1&stdin=1&stdout=1")
    with sock:
        for byte in masked(BINARY, b"hello\n"):  # as slowly as can be
            sock.send(bytes((byte,)))
        rest = until(sock, rest, frame(BINARY, b"hello\n"))
        sock.sendall(masked(PING, b"x"))
        rest = until(sock, rest, frame(PONG, b"x"))
        sock.sendall(masked(CLOSE, b"\x03\xe8"))
        until(sock, rest, close_frame(1000))
        assert sock.recv(1) == b""
    assert box.state("one")["Running"]


def test_the_end_of_the_container(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", "sleep 1; echo done")
    sock, rest = connect(box, "one", "stream=1&stdout=1&stderr=1&logs=1")
    with sock:
        until(sock, until(sock, rest, b"done\n"), close_frame(1000))
        assert sock.recv(1) == b""


def test_what_is_no_websocket(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    assert box.api("GET", "/containers/one/attach/ws", stream="1").status == 400
