"""Hijacked connections: half-closes both ways, detach keys, disconnects, the real docker CLI."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from agent.wire.frames import FrameDecoder
from tests.api.clients import UPGRADE, read_all, read_head, request
from tests.api.fakes import STALL_NOTICE, eventually, rss_kib

both = pytest.mark.parametrize("kind", ["unix", "tls"])


def attach(client, name: str, *, upgrade: bool = True, stdin: bytes = b"") -> bytes:
    """Sends the request with `stdin` behind it; returns what came behind the answer's head."""
    fields = UPGRADE if upgrade else ()
    client.send(request("POST", f"/v1.51/containers/{name}/attach?stream=1", None, *fields) + stdin)
    head = read_head(client)
    assert head.status == (101 if upgrade else 200)
    kind = "raw" if name.startswith("tty") else "multiplexed"
    assert head.headers["content-type"] == f"application/vnd.docker.{kind}-stream"
    if upgrade:
        assert head.headers["upgrade"] == "tcp"
    return head.rest


def unframed(data: bytes) -> list[tuple[int, bytes]]:
    decoder = FrameDecoder()
    frames = decoder.feed(data)
    decoder.finish()
    return [(frame.stream, frame.data) for frame in frames]


@both
@pytest.mark.parametrize("upgrade", [True, False])
def test_output_after_the_client_ended_its_input(site, kind, upgrade):
    client = site.connect(kind)
    rest = attach(client, "sum", upgrade=upgrade, stdin=b"hel")
    client.send(b"lo")
    client.half_close()
    output = unframed(rest + read_all(client))
    assert output == [(1, hashlib.sha256(b"hello").hexdigest().encode() + b"\n")]
    assert site.application.duplexes[0].closed.wait(5)


@both
def test_stderr_is_framed_as_such(site, kind):
    client = site.connect(kind)
    rest = attach(client, "err-cat", stdin=b"oops")
    client.half_close()
    output = unframed(rest + read_all(client))
    assert {stream for stream, _ in output} == {2}
    assert b"".join(data for _, data in output) == b"oops"


@both
def test_64_mib_both_ways(site, kind):
    """Case: the echo of 64 MiB, with half-close at the end; sha256 compared, memory bounded."""
    client = site.connect(kind)
    block = os.urandom(1 << 20)
    before = rss_kib()
    rest = attach(client, "cat")
    sent = hashlib.sha256()

    def feed() -> None:
        for _ in range(64):
            client.send(block)
            sent.update(block)
        client.half_close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    got, size = hashlib.sha256(), 0
    decoder = FrameDecoder(partial=True)
    data = rest
    while True:
        for frame in decoder.feed(data):
            got.update(frame.data)
            size += len(frame.data)
        data = client.recv()
        if not data:
            break
    feeder.join(20)
    assert size == 64 << 20
    assert got.digest() == sent.digest()
    assert rss_kib() - before < 40 * 1024


@both
def test_detach_keys_end_the_attachment_of_a_terminal(site, kind):
    client = site.connect(kind)
    rest = attach(client, "tty-cat", stdin=b"ab\x10")
    client.send(b"\x11never")
    # The echo of what came before may be cut off by the detaching; what came after is never sent.
    assert b"ab".startswith(rest + read_all(client))
    assert site.application.duplexes[0].closed.wait(5)


@both
def test_detach_keys_are_data_without_a_terminal(site, kind):
    client = site.connect(kind)
    rest = attach(client, "cat", stdin=b"a\x10\x11b")
    client.half_close()
    assert b"".join(data for _, data in unframed(rest + read_all(client))) == b"a\x10\x11b"


@both
@pytest.mark.parametrize("name", ["silent", "deaf", "cat", "tty-silent"])
def test_case_093_client_that_dies_releases_the_stream(site, kind, name):
    client = site.connect(kind)
    attach(client, name, stdin=b"x" * 1000)
    client.close()
    duplex = site.application.duplexes[0]
    assert duplex.closed.wait(12)
    assert eventually(lambda: site.running.server.connection_count == 0)


def test_case_093_client_that_half_closes_and_dies(site):
    client = site.unix()
    attach(client, "silent")
    client.half_close()
    assert site.application.duplexes[0].input_ended.wait(5)
    assert not site.application.duplexes[0].closed.is_set()
    client.close()
    assert site.application.duplexes[0].closed.wait(5)


@both
def test_case_168_reader_that_stops_is_bounded(site, kind):
    """The client sends without reading: memory stays bounded, the server alive."""
    client = site.connect(kind)
    attach(client, "cat")
    before = rss_kib()
    client.socket.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        for _ in range(64):
            client.send(bytes(1 << 20))
    assert rss_kib() - before < 16 * 1024
    client.close()
    assert site.application.duplexes[0].closed.wait(10)


@both
@pytest.mark.parametrize("name", ["flood", "tty-flood"])
def test_case_093_a_stalled_reader_is_let_go_and_told(site, kind, name):
    client = site.connect(kind)
    rest = attach(client, name)
    duplex = site.application.duplexes[0]
    assert duplex.closed.wait(10)
    duplex.thread.join(5)
    assert not duplex.thread.is_alive()
    assert site.running.server.connection_count == 1  # it may still read what it was sent
    output = rest + read_all(client)
    if name.startswith("tty"):
        assert output == bytes(len(output) - len(STALL_NOTICE)) + STALL_NOTICE
    else:
        assert unframed(output)[-1] == (3, STALL_NOTICE)


def test_case_093_a_slow_reader_is_waited_for(site):
    """It takes little, but it takes: for three times as long as a stalled one is waited for."""
    client = site.unix()
    attach(client, "flood")
    pause = threading.Event()
    for _ in range(30):
        assert client.recv()
        pause.wait(0.1)
    assert not site.application.duplexes[0].closed.is_set()


def test_case_093_where_nobody_else_reads_the_reader_is_waited_for(site):
    client = site.unix()
    client.send(request("POST", "/v1.51/containers/flood/attach?stream=1&patient=1", None))
    read_head(client)
    duplex = site.application.duplexes[0]
    assert not duplex.closed.wait(3)


def test_case_093_reset_by_the_client(site):
    client = site.tcp()
    attach(client, "silent")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert site.application.duplexes[0].closed.wait(5)


@both
def test_case_169_many_attachments_leave_nothing(site, kind):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    client = site.connect(kind)
    attach(client, "cat")
    client.close()
    assert site.application.duplexes[0].closed.wait(5)
    before = descriptors()
    for number in range(50):
        client = site.connect(kind)
        attach(client, "cat", stdin=b"x")
        if number % 2:
            client.half_close()
        client.close()
    assert eventually(lambda: all(duplex.closed.is_set() for duplex in site.application.duplexes))
    assert eventually(lambda: site.running.server.connection_count == 0)
    assert eventually(lambda: descriptors() <= before + 5)


@pytest.fixture
def docker(site, tmp_path, docker_cli):
    """Runs the real client against the site."""
    certs = tmp_path / "certs"
    certs.mkdir()
    shutil.copy(site.authority.path, certs / "ca.pem")
    shutil.copy(site.client.certificate, certs / "cert.pem")
    shutil.copy(site.client.key, certs / "key.pem")

    def run(kind: str, *arguments: str, **options):
        host = f"unix://{site.path}"
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        if kind == "tls":
            host = "tcp://{}:{}".format(*site.address)
            environment |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certs)}
        return subprocess.run(
            [docker_cli, "-H", host, *arguments],
            env=environment, capture_output=True, timeout=60, check=False, **options,
        )  # fmt: skip

    return run


@both
def test_docker_version(docker, kind):
    result = docker(kind, "version", "--format", "{{.Server.Version}}")
    assert (result.returncode, result.stdout) == (0, b"28.2.2\n"), result.stderr


@both
def test_docker_attach_keeps_output_after_end_of_input(docker, kind):
    result = docker(kind, "attach", "sum", input=b"hello")
    assert result.stdout.decode().strip() == hashlib.sha256(b"hello").hexdigest(), result.stderr


@both
def test_docker_attach_echoes_32_mib(docker, kind, tmp_path):
    data = os.urandom(1 << 20) * 32
    Path(tmp_path / "in").write_bytes(data)
    with open(tmp_path / "in", "rb") as file:
        result = docker(kind, "attach", "cat", stdin=file)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_docker_without_a_client_certificate(site, docker, tmp_path):
    for name in ("cert.pem", "key.pem"):
        (tmp_path / "certs" / name).unlink()
    result = docker("tls", "version")
    assert result.returncode == 1
    assert site.application.clients == []
