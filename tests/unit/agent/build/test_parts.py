"""Arguments, drafts, cache keys, git URLs, ignore patterns, tags."""

from __future__ import annotations

import pytest

from agent.build import draft as drafts
from agent.build import gitcontext
from agent.build.args import BuildArgs
from agent.build.builder import check_syntax, split_tag
from agent.build.cache import key
from agent.build.draft import Draft
from agent.build.metadata import go_list, ports
from agent.build.owners import mode
from agent.build.stages import chosen, trigger
from agent.errors import EngineError
from agent.wire.ignorefile import PatternError, Patterns, lines


def test_build_args() -> None:
    shared = BuildArgs({"A": "given", "X": None, "http_proxy": "p"}, {"TARGETARCH": "amd64"})
    shared.add_global("G", "global")
    stage = shared.stage()
    stage.add("A", "default")
    stage.add("B", "b")
    stage.add("G", None)
    stage.add("N", None)
    stage.add("TARGETARCH", None)
    found = stage.allowed(["B"])
    assert found == {"A": "given", "G": "global", "TARGETARCH": "amd64", "http_proxy": "p"}
    assert stage.shown(found) == ["A=given", "G=global", "TARGETARCH=amd64"]
    assert shared.stage().allowed([]) == {"http_proxy": "p"}
    assert shared.for_from() == {"TARGETARCH": "amd64", "G": "global"}


def test_unused_args() -> None:
    args = BuildArgs({"A": "1", "B": "2", "HTTP_PROXY": "3"}, {})
    args.stage().add("A", None)
    assert args.unused() == ["B"]


def test_a_draft_is_its_document() -> None:
    first = (
        Draft()
        .with_config(Env=["A=1"], User="")
        .step("RUN x", 1_700_000_000_123_000_000, "sha256:" + "1" * 64)
    )
    assert drafts.load(first.raw, first.image_id) == first
    second = first.step("CMD", 1_700_000_001_000_000_000)
    assert second.history[1] == {
        "created": "2023-11-14T22:13:21Z", "created_by": "CMD", "empty_layer": True,
    }  # fmt: skip
    assert second.diff_ids == first.diff_ids
    assert second.image_id != first.image_id
    assert "User" not in first.config


def test_environment_keeps_its_order() -> None:
    assert drafts.with_env(["A=1", "B=2"], [("B", "3"), ("C", "4")]) == ["A=1", "B=3", "C=4"]


def test_cache_keys_tell_everything_apart() -> None:
    base = Draft(image_id="sha256:a")
    keys = {
        key(base, "RUN x", base),
        key(Draft(image_id="sha256:b"), "RUN x", base),
        key(base, "RUN y", base),
        key(base, "RUN x", base.with_config(Env=["A=1"])),
        key(base, "RUN x", base, "content"),
        key(base, "RUN xco", base, "ntent"),
    }
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("remote", "found"),
    [
        ("https://h/a.git", ("https://h/a.git", "", "")),
        ("https://h/a.git#v1:sub/dir", ("https://h/a.git", "v1", "sub/dir")),
        ("git@h.example:a/b.git#main", ("ssh://git@h.example/a/b.git", "main", "")),
        ("github.com/a/b", ("https://github.com/a/b", "", "")),
    ],
)
def test_git_urls(remote: str, found: tuple[str, str, str]) -> None:
    assert gitcontext.parse(remote) == found


def test_case_151_a_token_in_a_git_url_is_no_argument_and_goes_nowhere_else() -> None:
    url, given = gitcontext.signed("https://me:p%40ss/../@h.example:8443/a.git")
    assert (url, given) == ("https://me:p%40ss/../@h.example:8443/a.git", {})  # no such host
    url, given = gitcontext.signed("https://me:p%40ss@h.example:8443/a@b.git?x@y")
    assert url == "https://h.example:8443/a@b.git?x@y"
    assert given == {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "http.https://h.example:8443/.extraHeader",
        "GIT_CONFIG_VALUE_0": "Authorization: Basic bWU6cEBzcw==",
        "GIT_CONFIG_KEY_1": "http.followRedirects",
        "GIT_CONFIG_VALUE_1": "false",
    }
    assert gitcontext.signed("ssh://git:p4ss@h/a.git") == ("ssh://git@h/a.git", {})
    assert gitcontext.signed("https://h/a.git") == ("https://h/a.git", {})
    assert gitcontext.shown("https://me:p4ss@h/a.git#x:y@z") == "https://h/a.git#x:y@z"


@pytest.mark.parametrize(
    "remote",
    [
        "ext::sh -c x", "file:///etc", "--upload-pack=x", "https://h/a.git#-x", "https://h/a.git#a..b",
        "https://h/a.git#a:../x", "https://-x/a.git", "git@-x:a", "https://h/a b.git", "ssh://-oX/a.git",
    ],
)  # fmt: skip
def test_case_073_git_urls_refused(remote: str) -> None:
    with pytest.raises(EngineError):
        gitcontext.parse(remote)


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        (["*.md"], "a.md", True),
        (["*.md"], "b/a.md", False),
        (["**/*.md"], "b/c/a.md", True),
        (["**/*.md"], "a.md", True),
        (["node_modules"], "node_modules/x/y", True),
        (["*.md", "!README.md"], "README.md", False),
        (["*.md", "!README*.md", "README-s.md"], "README-s.md", True),
        (["*", "!src"], "src/a", False),
        (["a/**"], "a/b/c", True),
        (["a/**/b"], "a/b", True),
        (["a/**/b"], "a/x/y/b", True),
        (["temp?"], "temp1", True),
        (["[a-c].x"], "b.x", True),
        (["[^a].x"], "a.x", False),
        (["a*b*c"], "aXbYbcZc", True),
        (["a*b*c"], "aXbYbcZcd", False),
        (["foo*.tar.gz"], "foo.tar.gz.tar.gz", True),
        (["\\*"], "*", True),
        (["\\*"], "a", False),
    ],
)
def test_ignore_patterns(patterns: list[str], path: str, *, excluded: bool) -> None:
    assert Patterns(patterns).matches(path) is excluded


def test_ignore_files() -> None:
    assert lines("\ufeff# no\n\n /a/b/ \n!c/../d\n ! e \n/\n") == ["a/b", "!d", "!e", "/"]
    with pytest.raises(PatternError):
        Patterns(["[a"])
    with pytest.raises(PatternError):
        lines("x\n" * 20_000)


@pytest.mark.parametrize(
    ("text", "found"),
    [("a", ("a", "latest")), ("a:1", ("a", "1")), ("h:5000/a", ("h:5000/a", "latest")),
     ("h:5000/a:2", ("h:5000/a", "2"))],
)  # fmt: skip
def test_tags(text: str, found: tuple[str, str]) -> None:
    assert split_tag(text) == found


@pytest.mark.parametrize("text", ["", "a:", ":a", "a@sha256:" + "0" * 64])
def test_bad_tags(text: str) -> None:
    with pytest.raises(EngineError, match="invalid reference format"):
        split_tag(text)


def test_case_077_frontends() -> None:
    for good in (
        "",
        "docker/dockerfile:1",
        "docker.io/docker/dockerfile:1.7-labs",
        "docker/dockerfile@sha256:0",
    ):
        check_syntax(good)
    for bad in ("evil/dockerfile", "docker/dockerfile-x:1", "h/docker/dockerfile:1"):
        with pytest.raises(EngineError, match="unsupported syntax directive"):
            check_syntax(bad)


def test_small_ones() -> None:
    assert go_list(["a", 'b"c']) == '["a" "b\\"c"]'
    assert ports(["80", "53/UDP", "1-3/sctp"]) == ["80/tcp", "53/udp", "1/sctp", "2/sctp", "3/sctp"]
    for bad in ("0", "70000", "5-4", "x", "80/http"):
        with pytest.raises(EngineError):
            ports([bad])
    assert (mode(""), mode("0755"), mode("7")) == (None, 0o755, 7)
    for bad in ("9", "u+x", "77777"):
        with pytest.raises(EngineError):
            mode(bad)


def test_triggers() -> None:
    assert trigger("RUN x", "\\").line == 0
    for bad in ("FROM x", "RUN a\nRUN b", "ONBUILD RUN x"):
        with pytest.raises(EngineError):
            trigger(bad, "\\")


def test_targets() -> None:
    from agent.build.instructions import read
    from agent.build.parser import parse

    found = read(parse(b"FROM a AS x\nFROM b AS y\n"))
    assert [len(chosen(found, name)) for name in ("", "x", "Y", "0")] == [2, 1, 2, 1]
