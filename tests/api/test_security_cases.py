"""Hostile cases of the API port, by their numbers in the catalogue."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import time
import urllib.parse

import pytest

from agent.server.limits import Limits
from agent.server.listeners import TlsListener
from agent.server.tls import TlsConfig, TlsError, load_identity
from tests.api.certs import CLIENT_AUTH, SERVER_AUTH, STORE, Authority
from tests.api.clients import JSON_TYPE, TlsClient, read_all, read_head, read_response, request
from tests.api.fakes import FakeApplication, Running, eventually, rss_kib

both = pytest.mark.parametrize("kind", ["unix", "tls"])


@pytest.fixture
def limits() -> Limits:
    return Limits(
        handshake=0.5, head=0.5, idle=0.6, linger=0.5, liveness=0.2, shutdown=2.0, per_address=20
    )


def raw_tcp(address) -> socket.socket:
    sock = socket.create_connection(address, 10)
    sock.settimeout(10)
    return sock


def until_closed(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65536):
            data += more
    return data


def alive(site, kind: str = "unix") -> bool:
    try:
        client = site.connect(kind)
        client.send(request("GET", "/_ping"))
        return read_response(client).status == 200
    except (OSError, EOFError):  # ssl.SSLError is an OSError
        return False


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def exchange(site, kind: str, payload: bytes) -> bytes:
    """Everything the server answers to `payload` followed by a half-close."""
    client = site.connect(kind)
    with contextlib.suppress(OSError):
        client.send(payload)
        client.half_close()
    data = b""
    with contextlib.suppress(OSError):
        data = read_all(client)
    client.close()
    return data


def assert_error(data: bytes, *expected: int) -> None:
    head, _, body = data.partition(b"\r\n\r\n")
    assert statuses(data)[:1][0] in expected, data[:200]
    assert len(statuses(data)) == 1
    assert b"application/json" in head
    assert json.loads(body)["message"]
    assert b"Traceback" not in body


# 82: protocol floor


def test_case_082_plain_http_is_told_so(site):
    with raw_tcp(site.address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = until_closed(sock)
    assert data.endswith(b"Client sent an HTTP request to an HTTPS server.\n")
    assert site.application.calls == []


def test_case_082_old_protocols_are_refused(site):
    with pytest.raises(ssl.SSLError):
        site.tcp(maximum_version=ssl.TLSVersion.TLSv1_2).recv()
    assert alive(site, "tls")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_case_082_tls_1_2_is_a_choice(directory):
    authority = Authority(directory)
    server = authority.server()
    config = TlsConfig(server.certificate, server.key, authority.path, minimum="1.2")
    with Running(FakeApplication(), [TlsListener("127.0.0.1", 0, config)], Limits()) as running:
        address = running.server.tcp_addresses[0]
        files = authority.client()
        client = TlsClient(address, authority, files, maximum_version=ssl.TLSVersion.TLSv1_2)
        client.send(request("GET", "/_ping"))
        assert read_response(client).status == 200
        assert client.tls.version() == "TLSv1.2"
        client.close()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            TlsClient(
                address, authority, files,
                ciphers="DEFAULT:@SECLEVEL=0", minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1,
            )  # fmt: skip


def test_case_082_http2_is_not_selected(site):
    client = site.tcp(alpn=["h2", "http/1.1"])
    assert client.tls.selected_alpn_protocol() == "http/1.1"
    other = site.tcp(alpn=["h2"])
    other.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert_error(read_all(other), 400)


# The role of the client's certificate (C7, C8)


def refused(site, files) -> bool:
    """True when no request of this client is answered."""
    try:
        client = site.tcp(files)
        client.send(request("POST", "/containers/create", b"{}", JSON_TYPE))
        return bool(client.recv() == b"")
    except (ssl.SSLError, ConnectionError):
        return True


def test_peer_certificates_are_judged_by_their_role(site, tmp_path):
    authority = site.authority
    stranger = Authority(tmp_path)
    uri = f"spiffe://machine/{STORE}/client/x"
    bad = {
        "other-authority": stranger.client(),
        "server-role": authority.server("other-server"),
        "other-store": authority.client("elsewhere", store="other"),
        "no-usage": authority.client("nousage", usages=()),
        "both-usages": authority.client("bothusages", usages=(CLIENT_AUTH, SERVER_AUTH)),
        "no-uri": authority.write("nouri", authority.leaf((), [CLIENT_AUTH], dns=["x"])),
        "two-roles": authority.write("two", authority.leaf([uri, uri + "y"], [CLIENT_AUTH])),
        "server-uri": authority.write(
            "suri", authority.leaf([f"spiffe://machine/{STORE}/server/x"], [CLIENT_AUTH])
        ),
        "authority": authority.write("ca2", authority.leaf([uri], [CLIENT_AUTH], ca=True)),
    }
    for name, files in bad.items():
        assert refused(site, files), name
    assert site.application.calls == []
    assert alive(site, "tls")


def test_case_099_revoked_client(site):
    other = site.authority.client("second")
    client = site.tcp()
    client.send(request("GET", "/events"))
    read_head(client)
    (site.directory / "revoked").write_text("# lost laptop\nlaptop\n")
    assert refused(site, site.client)
    site.running.call(site.running.server.cut_revoked)
    assert site.application.streams[0].closed.wait(5)
    assert not refused(site, other)


# 84: data before the handshake


def test_case_084_clear_text_before_the_handshake_is_never_executed(site):
    payload = request("POST", "/containers/create", b"{}", JSON_TYPE)
    for _ in range(300):
        with contextlib.suppress(OSError), raw_tcp(site.address) as sock:
            sock.sendall(payload)
    assert site.application.calls == []
    assert eventually(lambda: alive(site, "tls"))
    assert eventually(lambda: site.running.server.connection_count <= 1 + len(site.clients))


def test_silent_handshake_has_a_deadline(site):
    started = time.monotonic()
    with raw_tcp(site.address) as sock:
        assert until_closed(sock) == b""
    assert time.monotonic() - started < 5


def test_connections_of_one_address_are_limited(site):
    held = [raw_tcp(site.address) for _ in range(20)]
    with raw_tcp(site.address) as one_more:
        assert until_closed(one_more) == b""
    for sock in held:
        sock.close()
    assert eventually(lambda: alive(site, "tls"))


# 85, 98: certificate files


def test_case_085_changed_files_are_used_by_new_connections(site):
    old = site.tcp()
    old.send(request("GET", "/events"))
    read_head(old)
    before = old.tls.getpeercert(binary_form=True)
    fresh = site.authority.server("fresh")
    shutil.copy(fresh.certificate, site.server.certificate + ".new")
    os.replace(fresh.key, site.server.key)
    os.replace(site.server.certificate + ".new", site.server.certificate)

    def renewed() -> bool:
        client = site.tcp()
        der = client.tls.getpeercert(binary_form=True)
        client.close()
        return bool(der != before)

    assert eventually(renewed, 5)
    site.application.streams[0].push(b"still here")
    assert b"still here" in old.recv()


def test_case_085_half_done_rotation_keeps_the_old_identity(site):
    other = site.authority.server("other")
    shutil.copy(other.certificate, site.server.certificate)  # its key is still the old one
    with pytest.raises(TlsError):
        raise_from(site)
    assert alive(site, "tls")


def raise_from(site) -> None:
    def attempt():
        try:
            site.running.server.reload()
        except TlsError as error:
            return error
        return None

    error = site.running.call(attempt)
    if error is not None:
        raise error


def test_case_098_unusable_files_are_one_clear_line(directory):
    authority = Authority(directory)
    server, other = authority.server(), authority.server("other")
    (directory / "junk").write_text("junk")
    for certificate, key, ca in (
        ("/nonexistent", server.key, authority.path),
        (server.certificate, other.key, authority.path),
        (server.certificate, str(directory / "junk"), authority.path),
        (server.certificate, server.key, str(directory / "junk")),
        (authority.path, server.key, authority.path),
    ):
        with pytest.raises(TlsError) as caught:
            load_identity(TlsConfig(certificate, key, ca))
        assert "\n" not in str(caught.value)


# 86: oversize bodies


@both
def test_case_086_oversize_bodies(site, kind):
    before = rss_kib()
    declared = request("POST", "/containers/create", None, JSON_TYPE, "Content-Length: 1073741824")
    client = site.connect(kind)
    client.send(declared + b"{")
    response = read_response(client)
    assert (response.status, response.headers["connection"]) == (413, "close")
    client = site.connect(kind)
    client.send(
        request("POST", "/containers/create", None, JSON_TYPE, "Transfer-Encoding: chunked")
    )
    block = b"%x\r\n%b\r\n" % (1 << 18, b" " * (1 << 18))
    with contextlib.suppress(OSError):
        for _ in range(64):
            client.send(block)
    with contextlib.suppress(OSError, EOFError):
        assert read_response(client).status == 413
    for encoding in ("gzip", "deflate", "br"):
        client = site.connect(kind)
        client.send(
            request("POST", "/containers/create", b"{}", JSON_TYPE, f"Content-Encoding: {encoding}")
        )
        assert read_response(client).status == 400
    client = site.connect(kind)
    client.send(request("POST", "/start", None, "Content-Length: 500000"))
    client.send(bytes(400_000))
    with contextlib.suppress(OSError, EOFError):
        assert read_response(client).status == 413
    assert site.application.calls == []
    assert rss_kib() - before < 24 * 1024
    assert alive(site, kind)


# 88, 89: headers and smuggling

GET = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n"
POST = b"POST /containers/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
SECOND = b"POST /start HTTP/1.1\r\nHost: docker\r\n\r\n"

HEADER_ATTACKS = {
    "folded": GET + b"X: a\r\n b\r\n\r\n",
    "folded-tab": GET + b"X: a\r\n\tb\r\n\r\n",
    "nul": GET + b"X: a\0b\r\n\r\n",
    "bare-lf": GET + b"X: a\nY: b\r\n\r\n",
    "bare-lf-end": b"GET /_ping HTTP/1.1\nHost: docker\n\n",
    "bare-cr": GET + b"X: a\rY: b\r\n\r\n",
    "space-before-colon": GET + b"X : a\r\n\r\n",
    "no-colon": GET + b"nonsense\r\n\r\n",
    "empty-name": GET + b": a\r\n\r\n",
    "two-lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "two-equal-lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "list-length": POST + b"Content-Length: 2, 3\r\n\r\n{} ",
    "negative-length": POST + b"Content-Length: -2\r\n\r\n{}",
    "plus-length": POST + b"Content-Length: +2\r\n\r\n{}",
    "hex-length": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "huge-length": POST + b"Content-Length: 99999999999999999999999999\r\n\r\n{}",
    "length-and-chunked": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "chunked-and-length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked-identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two-chunked": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "chunked-1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two-hosts": GET + b"Host: evil\r\n\r\n",
    "no-host": b"GET /_ping HTTP/1.1\r\n\r\n",
    "version-2": b"GET /_ping HTTP/2.0\r\nHost: docker\r\n\r\n",
    "version-junk": b"GET /_ping HTTP/1.10\r\nHost: docker\r\n\r\n",
    "lower-http": b"GET /_ping http/1.1\r\nHost: docker\r\n\r\n",
    "space-in-target": b"GET /_ping x HTTP/1.1\r\nHost: docker\r\n\r\n",
    "http-0.9": b"GET /_ping\r\n\r\n",
}

BODY_ATTACKS = {
    "chunk-size-overflow": b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "chunk-size-sign": b"-2\r\n{}\r\n0\r\n\r\n",
    "chunk-size-0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "chunk-size-space": b" 2\r\n{}\r\n0\r\n\r\n",
    "chunk-wrong-terminator": b"2\r\n{}XX0\r\n\r\n",
    "chunk-bare-lf": b"2\n{}\r\n0\r\n\r\n",
    "chunk-junk": b"zz\r\n",
}


@both
def test_case_088_header_attacks(site, kind):
    for name, payload in HEADER_ATTACKS.items():
        data = exchange(site, kind, payload + SECOND)
        assert statuses(data)[:1][0] in {400, 413, 431}, (name, data[:100])
        assert_error(data, 400, 413, 431)
    for name, body in BODY_ATTACKS.items():
        data = exchange(site, kind, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + SECOND)
        assert [status for status in statuses(data) if status != 201] in ([400], [413]), name
    assert site.application.calls == []
    assert alive(site, kind)


@both
def test_case_088_large_heads(site, kind):
    one = GET + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n"
    many = GET + b"".join(b"X-%d: a\r\n" % n for n in range(10_000)) + b"\r\n"
    over = GET + b"".join(b"X-%d: a\r\n" % n for n in range(101)) + b"\r\n"
    for payload in (one, many, over, b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
        data = exchange(site, kind, payload)
        assert not data or statuses(data) == [431]
    assert statuses(exchange(site, kind, over)) == [431]
    fine = GET + b"".join(b"X-%d: a\r\n" % n for n in range(98)) + b"\r\n"
    assert statuses(exchange(site, kind, fine)) == [200]


@both
def test_case_088_slow_head_has_a_deadline(site, kind):
    client = site.connect(kind)
    started = time.monotonic()
    client.send(b"GET /_ping HT")
    assert statuses(read_all(client)) == [408]
    silent = site.connect(kind)
    assert read_all(silent) == b""
    idle = site.connect(kind)
    idle.send(request("GET", "/_ping"))
    assert statuses(read_all(idle)) == [200]
    assert time.monotonic() - started < 6


@both
def test_case_089_pipelining_gives_one_answer_a_request(site, kind):
    good = [
        GET + b"\r\n",
        b"\r\n" + GET + b"\r\n",
        POST + b"Content-Length: 2\r\n\r\n{}",
        POST + b"Content-Length:2\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"transfer-encoding: Chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nTrailer: x\r\n\r\n",
        # A body that looks like a request stays a body.
        POST + b"Content-Length: %d\r\n\r\n%b" % (len(SECOND), SECOND),
        GET + b"Content-Length: %d\r\n\r\n%b" % (len(SECOND), SECOND),
        GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        SECOND,
    ]
    for first in good:
        for second in good:
            site.application.calls.clear()
            data = exchange(
                site, kind, first + second + GET + b"Connection: close\r\n\r\n" + SECOND
            )
            assert len(statuses(data)) == 3, (first, second, data)
            starts = [call for call in site.application.calls if call[1] == "/start"]
            assert len(starts) == [first, second].count(SECOND)


# 90: paths and methods


@both
def test_case_090_paths_and_methods(site, kind):
    for line in (
        "TRACE /_ping", "CONNECT /_ping", "CONNECT x:443", "get /_ping", "Get /_ping", "FOO /_ping",
        "GET //v1.41/..%2f..%2fetc/passwd", "GET /../etc/passwd", "GET /%2e%2e/etc", "GET /%00",
        "GET /a%0d%0aX:y", "GET /%ff", "GET /%", "GET /%zz", "GET http://docker/_ping", "GET *",
        "OPTIONS *", "GET _ping", "GET /v1.41/nothing", "GET /?" + "a&" * 2000, "PATCH /_ping",
    ):  # fmt: skip
        data = exchange(site, kind, f"{line} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
        assert_error(data, 400, 404)
    assert alive(site, kind)


# 91: browsers


@both
def test_case_091_browsers_are_refused(site, kind):
    create = ("POST", "/containers/create", b"{}", JSON_TYPE)
    attempts = [
        request(*create, "Origin: http://evil.example"),
        request(*create, "Origin: null"),
        request(*create, "Sec-Fetch-Site: same-origin"),
        request("OPTIONS", "/containers/create", None, "Access-Control-Request-Method: POST"),
        request(*create).replace(b"Host: docker", b"Host: evil.example"),
        request(*create).replace(b"Host: docker", b"Host: evil.example:2376"),
        request(
            "GET", "/containers/cat/attach/ws", None,
            "Connection: Upgrade", "Upgrade: websocket", "Origin: http://localhost",
        ),
        request("POST", "/containers/cat/attach", None, "Origin: http://x", "Upgrade: tcp"),
    ]  # fmt: skip
    for attempt in attempts:
        data = exchange(site, kind, attempt)
        assert_error(data, 403)
        assert b"access-control-allow" not in data.lower()
    assert site.application.calls == []
    assert site.application.duplexes == []
    for host in ("", "docker", "localhost", "localhost:2375", "127.0.0.1:2376", "[::1]:2376"):
        data = exchange(site, kind, request("GET", "/_ping").replace(b"docker", host.encode()))
        assert statuses(data) == [200], host


@pytest.mark.parametrize(
    "host",
    ["api.moby.localhost", "v1.43", "d", urllib.parse.quote("/var/run/docker.sock", safe="")],
)
def test_hosts_that_unix_clients_send(site, host):
    data = exchange(site, "unix", request("GET", "/_ping").replace(b"docker", host.encode()))
    assert statuses(data) == [200]


def test_case_094_stalled_followers_do_not_hold_up_others(site):
    stalled = [site.unix() for _ in range(5)]
    quick = [site.unix() for _ in range(20)]
    for client in stalled + quick:
        client.send(request("GET", "/events"))
        read_head(client)
    block = bytes(65536)
    before = rss_kib()
    for stream in site.application.streams[:5]:
        for _ in range(100):
            stream.push(block)
    started = time.monotonic()
    for stream in site.application.streams[5:]:
        stream.push(b"event")
    for client in quick:
        assert b"event" in client.recv()
    assert time.monotonic() - started < 1
    assert rss_kib() - before < 16 * 1024
