"""Push, save, load, import, login, search, prune: what of the request reaches the engine."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator

import pytest

from agent.api.application import EngineApplication
from agent.api.handlers.archives import platform_of
from agent.api.schema.changes import applied
from agent.errors import EngineError, Kind
from agent.wire.http import (
    Answer,
    BlockingStream,
    Body,
    BodyKind,
    Headers,
    NeverGone,
    Reply,
    Request,
    parse_target,
)
from tests.unit.agent.api.backend import IMAGE, NOW, FakeBackend

AUTH = [("X-Registry-Auth", "eyJ1c2VybmFtZSI6Im1lIn0=")]
Ask = Callable[..., Answer]


@pytest.fixture(name="backend")
def _backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture(name="ask")
def _ask(backend: FakeBackend) -> Ask:
    application = EngineApplication(backend, lambda: NOW)  # type: ignore[arg-type]

    def send(
        method: str,
        target: str,
        body: object = None,
        stream: bytes = b"",
        headers: list[tuple[str, str]] | None = None,
    ) -> Answer:
        path, query = parse_target(target)
        request = Request(method, target, path, query, Headers(headers or []))
        handling = application.resolve(request)
        assert not stream or handling.body is BodyKind.STREAM
        data = b"" if body is None else json.dumps(body).encode()
        return handling.handler(request, Body(data, io.BytesIO(stream), NeverGone()))

    return send


def lines(answer: Answer) -> Iterator[dict[str, object]]:
    assert isinstance(answer, BlockingStream)
    for piece in answer.chunks:
        yield json.loads(piece)


def document(answer: Answer) -> object:
    assert isinstance(answer, Reply)
    return json.loads(answer.body)


def test_push(ask: Ask, backend: FakeBackend) -> None:
    answer = ask("POST", "/images/h:5/a/b/push?tag=1", headers=AUTH)
    assert list(lines(answer)) == [{"stream": "push done\n"}]
    assert backend.transfers.calls == [("push", "h:5/a/b", "1", "me")]
    with pytest.raises(EngineError, match="one platform"):
        ask("POST", '/images/x/push?platform={"os":"linux"}')


def test_save(ask: Ask, backend: FakeBackend) -> None:
    for target in ("/images/h:5/x/get", "/images/get?names=h:5/x"):
        answer = ask("GET", target)
        assert isinstance(answer, BlockingStream)
        assert answer.content_type == "application/x-tar"
        assert list(answer.chunks) == [b"tar"]
    assert backend.transfers.calls == [("save", "h:5/x", "")] * 2
    with pytest.raises(EngineError, match="no image to save"):
        ask("GET", "/images/get")


def test_load(ask: Ask, backend: FakeBackend) -> None:
    platform = '{"os":"linux","architecture":"arm64","variant":"v8"}'
    answer = ask("POST", f"/images/load?quiet=0&platform={platform}", stream=b"archive")
    assert list(lines(answer)) == [{"stream": "load done\n"}]
    assert backend.transfers.calls == [("load", b"archive", "linux/arm64/v8", False)]


@pytest.mark.parametrize("text", ["x", "[]", "{}", '{"os":"linux"}', '{"os":1,"architecture":2}'])
def test_bad_platforms(text: str) -> None:
    with pytest.raises(EngineError) as caught:
        platform_of(text)
    assert caught.value.kind is Kind.INVALID


def test_import(ask: Ask, backend: FakeBackend) -> None:
    target = "/images/create?fromSrc=-&repo=a/b:2&changes=CMD%20x&changes=ENV%20a=b&message=m"
    with pytest.raises(EngineError, match="no image in this fake"):
        list(lines(ask("POST", target, stream=b"tree")))
    request = backend.transfers.calls[0][1]
    assert (request.repo, request.tag, request.message) == ("a/b", "2", "m")  # type: ignore[attr-defined]
    config = request.config_document  # type: ignore[attr-defined]
    assert config == {"Cmd": ["/bin/sh", "-c", "x"], "Env": ["a=b"]}
    assert request.url == ""  # type: ignore[attr-defined]
    for source, url in (("http://x/y", "http://x/y"), ("x/y.tgz", "http://x/y.tgz")):
        with pytest.raises(EngineError, match="no image in this fake"):
            list(lines(ask("POST", f"/images/create?fromSrc={source}")))
        assert backend.transfers.calls[-1][1].url == url  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="http or https only"):
        ask("POST", "/images/create?fromSrc=file:///etc/passwd")


def test_pull_of_all_tags(ask: Ask, backend: FakeBackend) -> None:
    list(lines(ask("POST", "/images/create?fromImage=h:5/x")))
    assert backend.transfers.calls == [("pull_all", "h:5/x", "")]


def test_login(ask: Ask, backend: FakeBackend) -> None:
    body = {"username": "u", "password": "p", "serveraddress": "h:5"}
    assert document(ask("POST", "/auth", body)) == {
        "Status": "Login Succeeded",
        "IdentityToken": "",
    }
    assert backend.transfers.calls == [("login", "u", "p", "h:5")]


def test_distribution(ask: Ask) -> None:
    assert document(ask("GET", "/distribution/h:5/a/b/json")) == {
        "Descriptor": {"mediaType": "type", "digest": "sha256:" + "1" * 64, "size": 7},
        "Platforms": [{"architecture": "arm", "os": "linux", "variant": "v7"}],
    }


def test_search(ask: Ask) -> None:
    found = document(ask("GET", '/images/search?term=y&filters={"is-official":["true"]}'))
    assert isinstance(found, list)
    assert [one["name"] for one in found] == ["y"]
    for target in ("/images/search", "/images/search?term=x&limit=101"):
        with pytest.raises(EngineError) as caught:
            ask("GET", target)
        assert caught.value.kind is Kind.INVALID


def test_prune(ask: Ask) -> None:
    assert document(ask("POST", "/images/prune")) == {"ImagesDeleted": None, "SpaceReclaimed": 3}
    everything = '/images/prune?filters={"dangling":["false"]}'
    assert document(ask("POST", everything)) == {
        "ImagesDeleted": [{"Deleted": IMAGE.id}],
        "SpaceReclaimed": 3,
    }
    old = '/images/prune?filters={"dangling":["false"],"until":["100000h"]}'
    assert document(ask("POST", old)) == {"ImagesDeleted": None, "SpaceReclaimed": 3}
    with pytest.raises(EngineError):
        ask("POST", '/images/prune?filters={"moon":["x"]}')


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (['CMD ["a", "b"]'], {"Cmd": ["a", "b"]}),
        (["ENTRYPOINT run it"], {"Entrypoint": ["/bin/sh", "-c", "run it"]}),
        (["ENV A=1 B='x y'", "ENV A 2 3"], {"Env": ["B=x y", "A=2 3"]}),
        (["EXPOSE 80 53/udp"], {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        (["LABEL a=b \\\n c=d"], {"Labels": {"a": "b", "c": "d"}}),
        (['VOLUME ["/a", "/b"]', "VOLUME /c"], {"Volumes": {"/a": {}, "/b": {}, "/c": {}}}),
        (["USER me", "WORKDIR /w", "STOPSIGNAL 9"],
         {"User": "me", "WorkingDir": "/w", "StopSignal": "9"}),
        (["ONBUILD RUN x", "# comment", ""], {"OnBuild": ["RUN x"]}),
    ],
)  # fmt: skip
def test_changes(changes: list[str], config: dict[str, object]) -> None:
    assert applied(changes) == config


@pytest.mark.parametrize("change", ["RUN x", "FROM y", "CMD", "ENV a=b c", "LABEL 'a"])
def test_bad_changes(change: str) -> None:
    with pytest.raises(EngineError) as caught:
        applied([change])
    assert caught.value.kind is Kind.INVALID


def test_manifests(ask: Ask) -> None:
    found = document(ask("GET", "/images/httpd/json?manifests=1"))
    assert isinstance(found, dict)
    held, attestation = found["Manifests"]
    assert held["Size"] == {"Content": 20, "Total": 320}
    assert held["Available"] is True
    assert held["ImageData"]["Size"] == {"Unpacked": 300}
    assert held["ImageData"]["Platform"] == {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
    }
    assert attestation["AttestationData"] == {"For": "sha256:1"}
    assert "ImageData" not in attestation
    listed = document(ask("GET", "/images/json?manifests=1"))
    assert isinstance(listed, list)
    assert listed[0]["Manifests"][0]["ID"] == "sha256:1"
    with pytest.raises(EngineError, match="cannot both be set"):
        ask("GET", '/images/httpd/json?manifests=1&platform={"os":"linux","architecture":"amd64"}')
