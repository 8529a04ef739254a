"""Dockerfiles as nodes and instructions."""

from __future__ import annotations

import pytest

from agent.build.durations import parse as duration
from agent.build.instructions import (
    Arg,
    Command,
    Copy,
    Dockerfile,
    Env,
    From,
    Healthcheck,
    Run,
    Words,
    read,
)
from agent.build.parser import DockerfileError, parse


def dockerfile(text: str) -> Dockerfile:
    return read(parse(text.encode()))


def bodies(text: str) -> list[object]:
    return [one.body for one in dockerfile(f"FROM x\n{text}").stages[0].steps]


def test_lines_are_joined_and_comments_dropped() -> None:
    nodes = parse(
        b"\xef\xbb\xbfFROM a\r\n\r\nRUN one \\\r\n  # no\r\n\r\n  two\\\\\n#x\nrun three\n"
    ).nodes
    assert [(one.name, one.rest, one.line) for one in nodes] == [
        ("FROM", "a", 1),
        ("RUN", "one   two\\\\", 3),
        ("RUN", "three", 8),
    ]


def test_directives() -> None:
    found = parse(b"# syntax=docker/dockerfile:1\n#escape=`\n# not=one\nFROM a\nRUN b `\n c\n")
    assert (found.syntax, found.escape) == ("docker/dockerfile:1", "`")
    assert found.nodes[1].rest == "b  c"
    assert parse(b"FROM a\n# escape=`\nRUN a \\\n b\n").escape == "\\"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("# only a comment\n", "file with no instructions"),
        ("# escape=x\nFROM a", "line 1: invalid escape token 'x' does not match"),
        ("#escape=`\n#escape=`\nFROM a", "line 2: only one escape parser directive"),
        ("RUN x", "line 1: no build stage in current context"),
        ("FROM a\n\nFOO x", "line 3: unknown instruction: FOO"),
        ("FROM", "line 1: FROM requires either one or three arguments"),
        ("FROM a b c", "line 1: FROM requires either one or three arguments"),
        ("FROM a AS 1x", 'invalid name for build stage: "1x"'),
        ("FROM --nope=1 a", "unknown flag: --nope"),
        ("FROM --platform a", "missing a value on flag: --platform"),
        ("FROM a\nENV", "ENV requires at least one argument"),
        ("FROM a\nENV A", "ENV must have two arguments"),
        ("FROM a\nENV A=1 B", 'Syntax error - can\'t find = in "B"'),
        ("FROM a\nENV =1", "ENV names can not be blank"),
        ("FROM a\nCOPY a", "COPY requires at least two arguments"),
        ("FROM a\nCOPY --nope a b", "unknown flag: --nope"),
        ("FROM a\nCOPY --link=maybe a b", "expecting boolean value for flag link"),
        ("FROM a\nCOPY --from=a --from=b c d", "duplicate flag specified: from"),
        ("FROM a\nSHELL x", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nHEALTHCHECK x", 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("FROM a\nHEALTHCHECK --retries=0 CMD x", "--retries must be at least 1"),
        ("FROM a\nRUN --mount=type=x,target=/a b", 'unsupported mount type "x"'),
        ("FROM a\nRUN --mount=type=cache b", "target is required"),
        ("FROM a\nRUN --network=bridge b", 'invalid network mode: "bridge"'),
        ("FROM a\nRUN <<X\nb\n", "line 2: unterminated heredoc"),
        ("FROM a\nCOPY a <<X\nX\n", "cannot accept a heredoc as a destination"),
        ("FROM a\nONBUILD FROM b", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("FROM a\nUSER a b", "USER requires exactly one argument"),
        ("FROM a\x00b", "NUL"),
    ],
)
def test_errors(text: str, says: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        dockerfile(text)
    assert says in caught.value.message


def test_stages() -> None:
    found = dockerfile("ARG V=1\nFROM a:$V AS One\nRUN x\nFROM --platform=linux/arm64 one\n")
    assert [one.origin for one in found.stages] == [
        From("a:$V", "one"),
        From("one", "", "linux/arm64"),
    ]
    assert [found.find(name) for name in ("one", "ONE", "0", "1", "2", "two", "")] == [
        0, 0, 0, 1, -1, -1, -1,
    ]  # fmt: skip
    assert found.globals[0].body == Arg((("V", "1"),))


def test_pairs() -> None:
    assert bodies('ENV A=1 B="x y" C=a\\ b\nENV OLD the rest  of it') == [
        Env((("A", "1"), ("B", '"x y"'), ("C", "a\\ b"))),
        Env((("OLD", "the rest  of it"),)),
    ]


def test_forms() -> None:
    assert bodies('RUN a b\nRUN ["a", "b"]\nRUN [a, b]\nCMD x\nENTRYPOINT []\nVOLUME ["/a b"]\nEXPOSE 1 2') == [
        Run(("a b",), in_shell=True),
        Run(("a", "b"), in_shell=False),
        Run(("[a, b]",), in_shell=True),
        Command(entrypoint=False, words=("x",), in_shell=True),
        Command(entrypoint=True, words=(), in_shell=False),
        Words("VOLUME", ("/a b",)),
        Words("EXPOSE", ("1", "2")),
    ]  # fmt: skip


def test_heredocs() -> None:
    found = bodies("RUN <<-A\n\tone\n\tA\nRUN cat <<A <<'B' | x\n1\nA\n2\nB\nRUN echo '<<X'\n")
    assert [one.words for one in found if isinstance(one, Run)] == [
        ("one\n",),
        ("cat <<A <<'B' | x\n1\nA\n2\nB",),
        ("echo '<<X'",),
    ]
    copy = bodies("COPY <<a.txt <<'b' c /d/\n$X\na.txt\n$Y\nb\n")[0]
    assert isinstance(copy, Copy)
    assert copy.sources == ("c",)
    assert [(one.name, one.content, one.expand) for one in copy.inline] == [
        ("a.txt", "$X\n", True),
        ("b", "$Y\n", False),
    ]


def test_flags() -> None:
    copy = bodies("COPY --from=x --chown=a:b --link --exclude=*.a --exclude=b a b")[0]
    assert isinstance(copy, Copy)
    assert copy.flags == {"from": "x", "chown": "a:b", "link": "true"}
    assert copy.excludes == ("*.a", "b")
    run = bodies("RUN --mount=type=cache,dst=/c,id=i --mount=src=s,target=/t,ro --network=none x")[
        0
    ]
    assert isinstance(run, Run)
    assert [(one.type, dict(one.options)) for one in run.mounts] == [
        ("cache", {"id": "i", "target": "/c"}),
        ("bind", {"source": "s", "target": "/t", "ro": ""}),
    ]


def test_healthcheck() -> None:
    assert bodies('HEALTHCHECK --interval=1m30s --start-period=0 CMD ["a"]\nHEALTHCHECK NONE') == [
        Healthcheck({"Test": ["CMD", "a"], "Interval": 90_000_000_000, "StartPeriod": 0}),
        Healthcheck({"Test": ["NONE"]}),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1h2m3s", 3_723_000_000_000), ("1.5s", 1_500_000_000), ("0", 0), ("-1s", -1_000_000_000),
     ("", None), ("1", None), ("1x", None), ("s", None)],
)  # fmt: skip
def test_durations(text: str, value: int | None) -> None:
    assert duration(text) == value
