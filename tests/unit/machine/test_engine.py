"""The client of the Engine API against a tiny server: answers, errors, streams, TLS both ways."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from machine.engine import Engine, EngineApiError, Target
from machine.errors import MachineError
from tests.unit.machine.tinyengine import tls_engine, unix_engine


def _on(folder: Path) -> Engine:
    return Engine(Target(f"unix://{folder}/e.sock"))


def test_a_request_and_its_answer(tmp_path: Path) -> None:
    with unix_engine(tmp_path, {"GET /info": (200, {"Name": "x"})}) as server:
        assert _on(tmp_path).get("/info", all=True, size=False, name="a b", none=None) == {
            "Name": "x"
        }
    asked = server.last()
    assert asked.query == {"all": "1", "name": "a b"}
    assert asked.headers["host"] == "docker"
    assert asked.body is None


def test_bodies_are_json_and_paths_are_quoted(tmp_path: Path) -> None:
    with unix_engine(tmp_path, {"POST /containers/a%20b/x": (204, None)}) as server:
        assert _on(tmp_path).post("/containers/a b/x", {"k": "é"}) is None
    assert server.last().body == {"k": "é"}
    assert server.last().headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("document", "text"),
    [({"message": "no such thing"}, "no such thing"), ({}, "status 409"), (None, "status 409"),
     ([b"plain words"], "plain words")],
)  # fmt: skip
def test_errors_of_the_engine(tmp_path: Path, document: object, text: str) -> None:
    with (
        unix_engine(tmp_path, {"DELETE /x": (409, document)}),
        pytest.raises(EngineApiError) as caught,
    ):
        _on(tmp_path).delete("/x")
    assert caught.value.status == 409
    assert caught.value.brief == f"Error response from daemon: {text}"


def test_json_lines_may_be_cut_anywhere(tmp_path: Path) -> None:
    text = b'{"a":1}\n{"b":"x\\ny"}\n{"c":3}'
    pieces = [text[i : i + 1] for i in range(len(text))]
    with (
        unix_engine(tmp_path, {"POST /pull": (200, pieces)}),
        _on(tmp_path).call("POST", "/pull") as response,
    ):
        lines = list(response.lines())
    assert lines == [{"a": 1}, {"b": "x\ny"}, {"c": 3}]


def test_hijack_keeps_what_came_with_the_head(tmp_path: Path) -> None:
    with unix_engine(tmp_path) as server:
        server.hijacked = b"early"
        raw = _on(tmp_path).hijack("/containers/c/attach", query={"stream": 1})
        got = raw.early
        raw.stream.send(b"said")
        raw.stream.close_write()
        while data := raw.stream.recv():
            got += data
        raw.stream.close()
    assert got == b"earlysaid"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"", b"?"])
def test_a_broken_answer_is_an_error(tmp_path: Path, answer: bytes) -> None:
    with unix_engine(tmp_path, {"GET /x": (0, answer)}), pytest.raises(MachineError):
        _on(tmp_path).get("/x")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        Engine(Target(f"unix://{tmp_path}/none.sock", machine="web")).get("/info")
    assert caught.value.details == "No such file or directory"
    assert "machine status web" in caught.value.hint
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (tmp_path / "x").mkdir()
    with tls_engine(tmp_path), pytest.raises(MachineError) as caught:
        Engine(Target(f"tcp://127.0.0.1:{port}", tmp_path)).get("/info")
    assert caught.value.details == "Connection refused"
    assert "machine provision" in caught.value.hint


@pytest.mark.parametrize("url", ["http://h:1", "ssh://h", "tcp://", ""])
def test_addresses_that_are_not_ours_to_speak_to(url: str) -> None:
    with pytest.raises(MachineError, match="Cannot speak to"):
        Engine(Target(url)).get("/info")


def test_tcp_without_certificates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="without TLS is refused"):
        Engine(Target("tcp://127.0.0.1:1")).get("/info")
    with pytest.raises(MachineError, match="Cannot read the certificates") as caught:
        Engine(Target("tcp://127.0.0.1:1", tmp_path, "web")).get("/info")
    assert "regenerate-certs web" in caught.value.hint


def test_over_tls(tmp_path: Path) -> None:
    with tls_engine(tmp_path) as (server, port):
        server.answers["GET /info"] = (200, {"Name": "x"})
        server.hijacked = b"early"
        engine = Engine(Target(f"tcp://127.0.0.1:{port}", tmp_path))
        assert engine.get("/info") == {"Name": "x"}
        raw = engine.hijack("/containers/c/attach")
        raw.stream.send(b"x" * 300_000)
        got = len(raw.early)
        while got < 300_005:
            data = raw.stream.recv()
            assert data
            got += len(data)
        raw.stream.close()


def test_a_server_of_another_authority_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with (
        tls_engine(tmp_path) as (_, port),
        tls_engine(other),
        pytest.raises(MachineError, match="Error checking TLS connection") as caught,
    ):
        Engine(Target(f"tcp://127.0.0.1:{port}", other)).get("/info")
    assert "not of this store" in caught.value.details


def test_a_client_that_the_server_refuses_is_told_so(tmp_path: Path) -> None:
    """With TLS 1.3 the refusal comes after the client's own handshake has ended."""
    other = tmp_path / "other"
    other.mkdir()
    with tls_engine(tmp_path) as (_, port), tls_engine(other):
        (other / "ca.pem").write_text((tmp_path / "ca.pem").read_text())
        with pytest.raises(MachineError) as caught:
            Engine(Target(f"tcp://127.0.0.1:{port}", other)).get("/info")
    assert "Error checking TLS connection" in caught.value.brief


def test_case_081_a_host_of_another_store_is_refused_before_a_byte_is_sent(tmp_path: Path) -> None:
    """Signed by an authority that we trust, and with the right name, but not in the role."""
    with tls_engine(tmp_path, store="0" * 32) as (server, port):
        with pytest.raises(MachineError, match="not an engine's") as caught:
            Engine(Target(f"tcp://127.0.0.1:{port}", tmp_path)).get("/info")
        assert server.asked == []
    assert "another store" in caught.value.details
