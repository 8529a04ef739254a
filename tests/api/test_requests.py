"""Requests and answers over a unix socket and mutual TLS."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest

from tests.api.clients import JSON_TYPE, read_head, read_response, request
from tests.api.fakes import eventually

pytestmark = pytest.mark.parametrize("kind", ["unix", "tls"])


def test_ping_keeps_the_connection(site, kind):
    client = site.connect(kind)
    for _ in range(3):
        client.send(request("GET", "/_ping"))
        response = read_response(client)
        assert (response.status, response.body) == (200, b"OK")
        assert response.headers["api-version"] == "1.51"
        assert "date" in response.headers
    client.send(request("HEAD", "/_ping"))
    head = read_response(client, head=True)
    assert head.headers["content-length"] == "2"
    assert head.rest == b""
    client.close()


def test_connection_close_and_http10(site, kind):
    client = site.connect(kind)
    client.send(request("GET", "/_ping", None, "Connection: close"))
    response = read_response(client)
    assert response.headers["connection"] == "close"
    assert client.recv() == b""
    old = site.connect(kind)
    old.send(b"GET /_ping HTTP/1.0\r\n\r\n")
    assert read_response(old).status == 200
    assert old.recv() == b""


def test_pipelined_requests_are_answered_in_order(site, kind):
    client = site.connect(kind)
    body = b'{"Image":"x"}'
    client.send(
        request("GET", "/version")
        + request("POST", "/containers/create", body, JSON_TYPE)
        + request("GET", "/_ping")
    )
    data = b""
    while data.count(b"HTTP/1.1 ") < 3 or not data.endswith(b"OK"):
        data += client.recv()
    statuses = [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 201, 200]
    assert site.application.calls == [("POST", "/containers/create", body)]


def test_one_byte_at_a_time(site, kind):
    client = site.connect(kind)
    for byte in request("POST", "/containers/create", b"{}", JSON_TYPE):
        client.send(bytes([byte]))
    assert read_response(client).status == 201


def test_errors_are_json(site, kind):
    client = site.connect(kind)
    client.send(request("GET", "/nowhere"))
    response = read_response(client)
    assert response.status == 404
    assert json.loads(response.body) == {"message": "page not found"}
    assert response.headers["content-type"] == "application/json"
    client.send(request("GET", "/boom"))
    response = read_response(client)
    assert response.status == 500
    assert b"secret" not in response.body
    client.send(request("POST", "/containers/create", b"{", JSON_TYPE))
    assert read_response(client).status == 400
    client.send(request("GET", "/_ping"))  # the connection lives
    assert read_response(client).status == 200


def test_expect_continue(site, kind):
    client = site.connect(kind)
    client.send(
        request("POST", "/containers/create", b"", JSON_TYPE, "Content-Length: 2",
                "Expect: 100-continue")
    )  # fmt: skip
    assert read_head(client).status == 100
    client.send(b"{}")
    assert read_response(client).status == 201


def test_json_content_type_rules(site, kind):
    for fields in (("Content-Type: text/plain",), ()):
        client = site.connect(kind)
        client.send(request("POST", "/containers/create", b"{}", *fields))
        response = read_response(client)
        assert response.status == 400
        assert "Content-Type" in json.loads(response.body)["message"]
    assert site.application.calls == []


def test_upload_is_streamed(site, kind):
    client = site.connect(kind)
    block = os.urandom(1 << 20)
    digest = hashlib.sha256()
    client.send(request("PUT", "/archive", None, "Transfer-Encoding: chunked"))
    for _ in range(16):
        client.send(b"%x\r\n%b\r\n" % (len(block), block))
        digest.update(block)
    client.send(b"0\r\n\r\n")
    assert json.loads(read_response(client).body) == {"sha256": digest.hexdigest()}
    client.send(request("GET", "/_ping"))
    assert read_response(client).status == 200


def test_early_refusal_of_an_upload_reaches_the_client(site, kind):
    client = site.connect(kind)
    client.send(request("POST", "/refuse", None, "Content-Length: 100000000"))
    client.send(bytes(300_000))
    response = read_response(client)
    assert response.status == 404
    assert response.headers["connection"] == "close"


def test_broken_off_upload_is_an_error_for_the_handler(site, kind):
    client = site.connect(kind)
    client.send(request("POST", "/build", None, "Content-Length: 1000"))
    client.send(b"12345")
    assert read_head(client).status == 200
    client.close()
    client = site.connect(kind)
    client.send(request("GET", "/_ping"))
    assert read_response(client).status == 200


def test_build_answers_while_it_reads(site, kind):
    client = site.connect(kind)
    client.send(request("POST", "/build", None, "Content-Length: 10"))
    client.send(b"12345")
    head = read_head(client)
    assert head.status == 200
    data = head.rest
    while b'"5"' not in data:
        data += client.recv()
    client.send(b"67890")
    while not data.endswith(b"0\r\n\r\n"):
        data += client.recv()
    assert b'"10"' in data


def test_stream_is_flushed_piece_by_piece_and_closed_on_disconnect(site, kind):
    client = site.connect(kind)
    client.send(request("GET", "/events"))
    head = read_head(client)
    assert head.headers["transfer-encoding"] == "chunked"
    stream = site.application.streams[0]
    data = head.rest
    for number in range(3):
        started = time.monotonic()
        stream.push(b'{"n":%d}\n' % number)
        while b'"n":%d' % number not in data:
            data += client.recv()
        assert time.monotonic() - started < 1
    client.close()
    assert stream.closed.wait(5)


def test_stream_end_keeps_the_connection(site, kind):
    client = site.connect(kind)
    client.send(request("GET", "/events"))
    assert eventually(lambda: site.application.streams)
    site.application.streams[0].push(b"x")
    site.application.streams[0].push(b"")
    assert read_response(client).body == b"x"
    client.send(request("GET", "/_ping"))
    assert read_response(client).status == 200
    assert site.application.streams[0].closed.is_set()


def test_blocking_stream(site, kind):
    client = site.connect(kind)
    client.send(request("POST", "/images/create?n=3"))
    assert read_response(client).body.count(b"status") == 3
    client.send(request("POST", "/images/create?kind=early"))
    response = read_response(client)
    assert (response.status, json.loads(response.body)) == (404, {"message": "manifest unknown"})
    client.send(request("POST", "/images/create?kind=late"))
    response = read_response(client)
    last = json.loads(response.body.splitlines()[-1])
    assert response.status == 200
    assert last["errorDetail"]["message"] == last["error"] == "disk \u0007 gone"
    client.send(request("POST", "/images/create?n=0"))
    assert read_response(client).body == b""


def test_blocking_stream_has_back_pressure_and_ends_with_the_client(site, kind):
    client = site.connect(kind)
    client.send(request("POST", "/images/create?kind=big"))
    read_head(client)
    counts: list[int] = []

    def settled() -> bool:
        counts.append(site.application.produced)
        return len(counts) > 20 and counts[-1] == counts[-20]

    assert eventually(settled)
    assert site.application.produced * 65536 < 24 << 20  # kernel buffers are most of it
    client.close()
    assert site.application.generator_closed.wait(10)


def test_handler_learns_that_the_client_has_gone(site, kind):
    client = site.connect(kind)
    client.send(request("POST", "/wait"))
    assert site.application.waiting.wait(5)
    client.close()
    assert site.application.saw_gone.wait(5)


def test_shutdown_ends_streams_and_idle_connections(site, kind):
    idle, streaming, attached = (site.connect(kind) for _ in range(3))
    idle.send(request("GET", "/_ping"))
    read_response(idle)
    streaming.send(request("GET", "/events"))
    read_head(streaming)
    attached.send(request("POST", "/containers/silent/attach"))
    read_head(attached)
    started = time.monotonic()
    site.running.stop()
    assert time.monotonic() - started < 5
    assert site.application.streams[0].closed.is_set()
    assert site.application.duplexes[0].closed.is_set()
    assert not os.path.exists(site.path)


def test_identity_of_the_client(site, kind):
    client = site.connect(kind)
    client.send(request("GET", "/version"))
    read_response(client)
    expected = "unix:uid=0" if kind == "unix" else "tls:laptop/"
    assert site.application.clients[0].startswith(expected)


def test_audit_names_the_mutating_call_without_its_query(site, kind, caplog):
    caplog.set_level("INFO", logger="agent.audit")
    client = site.connect(kind)
    client.send(request("POST", "/start%E2%80%AE?buildargs=secret"))
    read_response(client)
    client.send(request("GET", "/_ping"))
    read_response(client)
    lines = [record.getMessage() for record in caplog.records if record.name == "agent.audit"]
    assert len(lines) == 1
    assert lines[0].endswith("POST /start%E2%80%AE 400")
    assert "secret" not in lines[0]
