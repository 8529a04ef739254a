"""Challenges, the realm rule, whose credentials go where, tokens, addresses, back-off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.model import RegistryAuth
from agent.errors import EngineError, Kind
from agent.images import addresses, auth, reference, registry
from agent.images.auth import Challenge
from agent.images.settings import RegistrySettings, Timeouts

USER = RegistryAuth("user", "secret-word")


def test_challenges() -> None:
    found = auth.challenges(
        [
            (
                'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
                'scope="repository:library/x:pull,push"'
            ),
            "basic Realm=plain",
            'Bearer realm="https://["',
            'Bearer realm="a\\"b"',
            "",
            "=",
        ]
    )
    assert found == [
        Challenge(
            "bearer",
            "https://auth.docker.io/token",
            "registry.docker.io",
            "repository:library/x:pull,push",
        ),
        Challenge("basic", "plain"),
        Challenge("bearer", 'a"b'),
    ]


@given(st.text(max_size=200))
def test_challenges_never_raise(text: str) -> None:
    auth.challenges([text])


@pytest.mark.parametrize(
    ("realm", "registry_url", "allowed"),
    [
        ("https://reg.example/token", "https://reg.example", True),
        ("https://reg.example:8443/token", "https://reg.example:5000", True),
        ("https://auth.docker.io/token", "https://registry-1.docker.io", True),
        ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000", True),
        ("http://reg.example/token", "https://reg.example", False),
        ("https://evil.example/token", "https://reg.example", False),
        ("http://auth.docker.io/token", "http://mirror.example", False),
        ("ftp://reg.example/", "https://reg.example", False),
        ("//reg.example/", "https://reg.example", False),
    ],
)
def test_realm_rule(realm: str, registry_url: str, *, allowed: bool) -> None:
    listed = ("auth.docker.io",)
    assert auth.realm_may_see_credentials(realm, registry_url, listed) is allowed


@pytest.mark.parametrize(
    ("server", "domain", "kept"),
    [
        ("", "reg.example", True),
        ("reg.example", "reg.example", True),
        ("https://reg.example/v2/", "reg.example", True),
        ("https://index.docker.io/v1/", "docker.io", True),
        ("reg.example:5000", "reg.example", False),
        ("https://index.docker.io/v1/", "reg.example", False),
        ("reg.example.evil", "reg.example", False),
        ("http://[", "reg.example", False),
    ],
)
def test_credentials_belong_to_one_registry(server: str, domain: str, *, kept: bool) -> None:
    given_auth = RegistryAuth("u", "p", server_address=server)
    assert (auth.belongs(given_auth, domain) is not None) is kept


def test_token_requests() -> None:
    challenge = Challenge("bearer", "https://a/token?x=1", "svc", "ignored")
    request = auth.token_request(challenge, "repository:x:pull", USER)
    assert request.url.startswith("https://a/token?x=1&account=user&service=svc&scope=")
    assert "secret" not in repr(request)
    assert request.headers[0][0] == "Authorization"
    refresh = RegistryAuth(identity_token="refresh-word")
    request = auth.token_request(challenge, "repository:x:pull", refresh)
    assert request.body is not None
    assert b"refresh_token=refresh-word" in request.body
    assert "refresh-word" not in request.url + repr(request)


def test_tokens() -> None:
    assert auth.token(b'{"access_token": "abc", "expires_in": 5}').expires_in == 60
    assert auth.token(b'{"token": "abc"}').value == "abc"
    for bad in (
        b"",
        b"[]",
        b"{}",
        b'{"token": "a b"}',
        b'{"token": 1}',
        b'{"token": "' + b"x" * 300_000,
    ):
        with pytest.raises(EngineError) as caught:
            auth.token(bad)
        assert caught.value.kind is Kind.UNAUTHORIZED


@pytest.mark.parametrize(
    ("target", "home", "allowed"),
    [
        ("8.8.8.8", ["1.1.1.1"], True),
        ("10.0.0.1", ["1.1.1.1"], False),
        ("10.0.0.1", ["10.9.9.9"], True),
        ("100.64.0.1", ["1.1.1.1"], False),
        ("169.254.169.254", ["10.0.0.1"], False),
        ("fe80::1", ["fd00::1"], False),
        ("fd00::2", ["fd00::1"], True),
        ("127.0.0.1", ["127.0.0.2"], False),
        ("127.0.0.1", ["127.0.0.1"], True),
        ("::ffff:127.0.0.1", ["10.0.0.1"], False),
        ("64:ff9b::a9fe:a9fe", ["1.1.1.1"], False),
        ("0.0.0.0", ["127.0.0.1"], False),
        ("224.0.0.1", ["10.0.0.1"], False),
        ("fd00:ec2::254", ["fd00:ec2::254"], False),
        ("168.63.129.16", ["168.63.129.16"], False),
        ("100.100.100.200", ["10.0.0.1"], False),
    ],
)
def test_address_guard(target: str, home: list[str], *, allowed: bool) -> None:
    own = [addresses.plain(text) for text in home]
    assert addresses.may_follow(addresses.plain(target), own) is allowed


@pytest.mark.parametrize(
    ("host", "port", "insecure"),
    [
        ("localhost", 5000, True),
        ("127.9.9.9", 80, True),
        ("::1", 80, True),
        ("reg.example", 5000, True),
        ("reg.example", 443, False),
        ("10.1.2.3", 1, True),
        ("10.2.2.3", 1, False),
        ("localhost.evil", 1, False),
    ],
)
def test_insecure_rules(host: str, port: int, *, insecure: bool) -> None:
    rules = ("Reg.Example:5000", "10.1.0.0/16", "not/a/network")
    assert addresses.insecure(host, port, rules) is insecure


def test_endpoints() -> None:
    settings = RegistrySettings(mirrors=("http://10.77.0.2:5000/",), insecure=("r:5000",))

    def urls(text: str, known: dict[str, str] | None = None) -> list[str]:
        found = registry.endpoints(reference.parse(text), settings, known or {})
        return [endpoint.url for endpoint in found]

    assert urls("debian") == ["http://10.77.0.2:5000", "https://registry-1.docker.io"]
    assert urls("ghcr.io/x/y") == ["https://ghcr.io"]
    assert urls("r:5000/x") == ["https://r:5000", "http://r:5000"]
    assert urls("r:5000/x", {"r:5000": "http://r:5000"})[0] == "http://r:5000"


def test_backoff_and_retry_after() -> None:
    timeouts = Timeouts()
    assert [registry.backoff(timeouts, attempt, None) for attempt in (1, 2, 3, 20)] == [
        0.5,
        1.0,
        2.0,
        30.0,
    ]
    assert registry.backoff(timeouts, 1, 9999.0) == 300.0
    assert registry.retry_after("7", 0) == 7.0
    assert registry.retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 50) == 10.0
    for bad in (None, "", "soon", "9" * 50, "-1"):
        assert registry.retry_after(bad, 0) in (None, 0.0)
