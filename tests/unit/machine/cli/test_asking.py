"""Questions: passphrases are asked once a command, and never under a live line."""

from __future__ import annotations

import io

from machine.cli.session import Session
from machine.cli.wiring import passphrases


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _session(stdin: io.StringIO) -> Session:
    return Session("machine", {}, stdin, io.StringIO(), io.StringIO())


def test_a_passphrase_is_asked_once_and_after_the_live_line_ended() -> None:
    session = _session(Terminal())
    told: list[str] = []
    session.on_exit(lambda: told.append("line ended"))

    def read(question: str) -> str:
        told.append(question)
        return "secret"

    ask = passphrases(session, read)
    assert [ask("/k"), ask("/k")] == ["secret", "secret"]
    assert told == ["line ended", "Passphrase for /k: "]


def test_without_a_terminal_nobody_is_asked() -> None:
    ask = passphrases(_session(io.StringIO("secret\n")), lambda _: "secret")
    assert ask("/k") is None


def test_the_end_of_input_is_a_no() -> None:
    session = _session(io.StringIO(""))
    assert not session.confirm("Are you sure? (y/n): ")
    assert not _session(io.StringIO("\n")).confirm("?")
    assert _session(io.StringIO("Yes\n")).confirm("?")
