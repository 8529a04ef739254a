"""Words, quotes and ${variables}, as docker's shell lexer has them."""

from __future__ import annotations

import pytest

from agent.build.patterns import PatternError, replace, trim_prefix, trim_suffix
from agent.build.shellwords import Lexer, WordError

VALUES = {"A": "b.tar.gz", "E": "", "S": "two words"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$A", "b.tar.gz"),
        ("${A}x", "b.tar.gzx"),
        ("$A$A", "b.tar.gzb.tar.gz"),
        ("$", "$"),
        ("$ x", "$ x"),
        ("$NOPE", ""),
        ("$1a", "a"),
        ("'$A'", "$A"),
        ('"$A"', "b.tar.gz"),
        ("\\$A", "$A"),
        ('"\\$A \\" \\x"', '$A " \\x'),
        ("a\\ b", "a b"),
        ("${A:-x}", "b.tar.gz"),
        ("${N:-x$A}", "xb.tar.gz"),
        ("${N:-'a b'}", "a b"),
        ("${E:-x}", "x"),
        ("${E-x}", ""),
        ("${N-x}", "x"),
        ("${A:+y}", "y"),
        ("${E:+y}", ""),
        ("${E+y}", "y"),
        ("${A:?no}", "b.tar.gz"),
        ("${A#*.}", "tar.gz"),
        ("${A##*.}", "gz"),
        ("${A%.*}", "b.tar"),
        ("${A%%.*}", "b"),
        ("${A%x}", "b.tar.gz"),
        ("${A/./-}", "b-tar.gz"),
        ("${A//./-}", "b-tar-gz"),
        ("${A//[/x}", "b.tar.gz"),
        ("${A/?.*/x}", "x"),
        ("${N:-${E:-${A}}}", "b.tar.gz"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert Lexer().word(text, VALUES) == expanded


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${A", "missing '}'"),
        ("${", "missing '}'"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${A:x}", "unsupported modifier (:x)"),
        ("${A^}", "unsupported modifier (^)"),
        ("${A:#x}", "unsupported modifier (:#)"),
        ("${A:-x", "missing '}'"),
        ("${A/x", "missing '/'"),
        ("'open", "matching single-quote"),
        ('"open', "matching double-quote"),
        ("${N:?must be}", "N: must be"),
        ("${N?}", "N: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${a:-" * 100 + "}" * 100, "nested too deep"),
    ],
)
def test_errors(text: str, says: str) -> None:
    with pytest.raises(WordError, match="failed to process") as caught:
        Lexer().word(text, VALUES)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("'a b' c", ["a b", "c"]),
        ("$S", ["two", "words"]),
        ('"$S"', ["two words"]),
        ("a\\ b c", ["a b", "c"]),
        ("''", [""]),
        ("", []),
        ("x'y z'w", ["xy zw"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert Lexer().words(text, VALUES) == words


def test_other_escape() -> None:
    assert Lexer("`").word("a`$A \\$A", {"A": "1"}) == "a$A \\1"


def test_heredocs_keep_quotes() -> None:
    assert Lexer(quotes=False).word('it\'s "$A"', {"A": "1"}) == 'it\'s "1"'


def test_results_are_bounded() -> None:
    with pytest.raises(WordError, match="too long"):
        Lexer().word("$X" * 2000, {"X": "x" * 1000})


def test_pattern_work_is_bounded() -> None:
    for work in (
        lambda: trim_prefix("*a" * 3000, "a" * 3000, greedy=True),
        lambda: trim_suffix("*a" * 3000, "a" * 3000, greedy=False),
        lambda: replace("*a*b", "a" * 3000, "", everywhere=True),
    ):
        with pytest.raises(PatternError):
            work()
