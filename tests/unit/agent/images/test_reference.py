"""Reference grammar (security.md case 33) and docker's error texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import EngineError, Kind
from agent.images import reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("bitnami/redis", "docker.io/bitnami/redis", "bitnami/redis"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("10.0.0.1:5000/a/b", "10.0.0.1:5000/a/b", "10.0.0.1:5000/a/b"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("Host/x", "Host/x", "Host/x"),
        ("a.b/c", "a.b/c", "a.b/c"),
        ("a__b/c-d", "docker.io/a__b/c-d", "a__b/c-d"),
        (f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}", f"x@sha256:{HEX}"),
        (f"x:t@sha256:{HEX}", f"docker.io/library/x:t@sha256:{HEX}", f"x:t@sha256:{HEX}"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
    ],
)
def test_normalised(text: str, full: str, familiar: str) -> None:
    found = reference.parse(text)
    assert (str(found), found.familiar) == (full, familiar)
    assert reference.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/../b",
        "reg:99999/x",
        "reg:0/x",
        "x:" + "t" * 129,
        "-x",
        "x\n",
        "x:latest\n",
        "bücher.example/x",
        "x:",
        "x@",
        ":x",
        "/x",
        "x/",
        "a//b",
        "a___b",
        "a..b",
        "x:-t",
        "x y",
        f"x@SHA256:{HEX}",
        f"x@sha256:{HEX[1:]}",
        f"x@sha256:{HEX}/..",
        f"x@md5:{HEX[:32]}",
        "http://host/x",
        "-host.example/x",
        "[::1/x",
        "x\0y",
        "a" * 2000,
    ],
)
def test_case_033_bad_references(text: str) -> None:
    with pytest.raises(EngineError) as caught:
        reference.parse(text)
    assert caught.value.kind is Kind.INVALID
    assert caught.value.message.startswith("invalid reference format")


def test_error_texts() -> None:
    for text, message in (
        ("Ubuntu", "invalid reference format: repository name (library/Ubuntu) must be lowercase"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a/" + "b" * 250, "repository name must not be more than 255 characters"),
    ):
        with pytest.raises(EngineError) as caught:
            reference.parse(text)
        assert caught.value.message == message


def test_with_tag() -> None:
    assert reference.with_tag("x", "").tag == "latest"
    assert reference.with_tag("x:1", "").tag == "1"
    for repo, tag in (("x:1", "2"), ("x", "a b"), (f"x@sha256:{HEX}", ""), ("sha256", "1")):
        with pytest.raises(EngineError):
            reference.with_tag(repo, tag)


def test_id_prefix() -> None:
    assert reference.id_prefix("sha256:ab1") == "ab1"
    assert reference.id_prefix("ab1") == "ab1"
    assert reference.id_prefix("xyz") is None
    assert reference.id_prefix("") is None


@given(st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9._/:@-]{0,60}", fullmatch=True))
def test_only_engine_errors(text: str) -> None:
    try:
        found = reference.parse(text)
    except EngineError:
        return
    else:
        assert reference.parse(str(found)) == found
        assert ".." not in found.path.split("/")
