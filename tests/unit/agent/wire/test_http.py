from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import EngineError, Kind, not_found, not_modified
from agent.wire.guard import host_allowed, refusal
from agent.wire.http import (
    Body,
    Client,
    Headers,
    Query,
    Request,
    Transport,
    error_reply,
    json_reply,
    parse_target,
    printable,
    public,
)
from agent.wire.status import REASONS, STATUS


def test_every_kind_has_a_status_and_a_reason():
    assert set(STATUS) == set(Kind)
    assert set(STATUS.values()) <= set(REASONS)


def test_targets():
    path, query = parse_target("/v1.51/images/a%2Fb%20c/json?x=1&x=2&e=&f=a%2Bb+c")
    assert path == "/v1.51/images/a/b c/json"
    assert query.all("x") == ("1", "2")
    assert (query.get("e", "d"), query.get("f"), query.get("none", "d")) == ("", "a+b c", "d")
    assert "e" in query
    assert parse_target("/a...b/..c")[0] == "/a...b/..c"


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("*", Kind.INVALID),
        ("http://x/", Kind.INVALID),
        ("x:443", Kind.INVALID),
        ("/%", Kind.INVALID),
        ("/%4", Kind.INVALID),
        ("/%zz", Kind.INVALID),
        ("/%00", Kind.INVALID),
        ("/%0a", Kind.INVALID),
        ("/%ff", Kind.INVALID),
        ("/%e2%80%ae", Kind.INVALID),
        ("/a?x=%ff", Kind.INVALID),
        ("/a?" + "&".join(["a=1"] * 1001), Kind.INVALID),
        ("/a/../b", Kind.NOT_FOUND),
        ("/a/%2e%2E/b", Kind.NOT_FOUND),
        ("/..%2fetc", Kind.NOT_FOUND),
        ("/.", Kind.NOT_FOUND),
    ],
)
def test_bad_targets(target, kind):
    with pytest.raises(EngineError) as caught:
        parse_target(target)
    assert caught.value.kind is kind


@given(st.text(max_size=60))
def test_targets_are_decoded_or_refused(text):
    try:
        path, _ = parse_target("/" + text)
    except EngineError as error:
        assert error.kind in {Kind.INVALID, Kind.NOT_FOUND}  # noqa: PT017
    else:
        assert not {".", ".."} & set(path.split("/"))
        assert printable(path) == path


def test_query_values():
    query = Query([("a", "1"), ("b", "0"), ("c", ""), ("d", "False"), ("e", "none"), ("n", "-12")])
    assert [query.flag(name) for name in "abcdex"] == [True, False, False, False, False, False]
    assert query.flag("x", default=True)
    assert query.integer("n") == -12
    assert query.integer("x", 7) == 7
    assert query.integer("c") is None
    with pytest.raises(EngineError):
        query.integer("d")
    assert list(query) == ["a", "b", "c", "d", "e", "n"]


def test_headers_hide_their_values():
    headers = Headers([("X-Registry-Auth", "secret"), ("Connection", "keep-alive, Upgrade")])
    assert headers.get("x-registry-auth") == "secret"
    assert "X-REGISTRY-AUTH" in headers
    assert "secret" not in repr(headers)
    assert headers.has_token("connection", "upgrade")
    assert not Request("GET", "/", "/", headers=headers).wants_upgrade
    upgrade = Headers([("Connection", "Upgrade"), ("Upgrade", "tcp")])
    assert Request("GET", "/", "/", headers=upgrade).wants_upgrade


def test_replies():
    assert json_reply({"a": "é\ud800"}).body == '{"a":"é?"}\n'.encode()
    reply = error_reply(not_found("No such container: x"))
    assert reply.status == 404
    assert json.loads(reply.body) == {"message": "No such container: x"}
    assert error_reply(not_modified()).body == b""
    assert json.loads(error_reply(EngineError(Kind.CONFLICT, "")).body) == {"message": "conflict"}


def test_bodies():
    assert Body().json() is None
    assert Body(b' {"a":1}').json() == {"a": 1}
    for junk in (b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(EngineError):
            Body(junk).json()
    assert Body().reader.read(10) == b""


UNIX, TLS = Client(Transport.UNIX), Client(Transport.TLS)


@pytest.mark.parametrize(
    ("host", "unix", "tls"),
    [
        ("", True, True),
        ("docker", True, False),
        ("api.moby.localhost", True, False),
        ("docker.example.com", True, False),
        ("evil.docker.example.com", False, False),
        ("v1.43", True, False),
        ("%2Fvar%2Frun%2Fdocker.sock", True, False),
        ("127.0.0.1", True, True),
        ("10.1.2.3:2376", True, True),
        ("[::1]:2376", True, True),
        ("web.example:2376", False, True),
        ("WEB.EXAMPLE", False, True),
        ("evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("127.0.0.1.evil.example", False, False),
    ],
)
def test_hosts(host, unix, tls):
    names = frozenset({"web.example"})
    assert host_allowed(host, Transport.UNIX, frozenset()) is unix
    assert host_allowed(host, Transport.TLS, names) is tls
    assert host_allowed(host, Transport.TLS, frozenset({"*"}))
    assert (refusal(Headers([("Host", host)]), TLS, names) is None) is tls


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site", "Access-Control-Request-Method"])
def test_browsers(name):
    error = refusal(Headers([("Host", "docker"), (name, "x")]), UNIX, frozenset())
    assert error is not None
    assert error.kind is Kind.FORBIDDEN


def test_printable():
    assert printable("a\x1b[31m\u202e\n") == "a\\x1b[31m\\u202e\\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:p4ss@h/a@b?c@d", "https://h/a@b?c@d"),
        ("https://t0ken@h:1/", "https://h:1/"),
        ("https://h/a@b", "https://h/a@b"),
        ("git@h:a.git", "git@h:a.git"),
        ("https://h#a@b", "https://h#a@b"),
    ],
)
def test_case_151_urls_are_shown_without_their_words(url, shown):
    assert public(url) == shown
