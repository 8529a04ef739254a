"""Streams of attached containers: what is a frame goes where it belongs, and nothing is lost."""

from __future__ import annotations

import os
import signal
import struct

import pytest

from machine import terminal
from machine.engine import Hijacked
from machine.errors import MachineError


class Canned:
    """A stream that says `pieces` and then ends, or breaks."""

    def __init__(self, pieces: list[bytes], *, breaks: bool = False) -> None:
        self._pieces, self._breaks = pieces, breaks

    def recv(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._breaks:
            raise ConnectionResetError(104, "Connection reset by peer")
        return b""

    def send(self, data: bytes) -> None:
        raise AssertionError(data)

    def close_write(self) -> None:
        raise AssertionError

    def close(self) -> None:
        """Nothing is open."""


def _frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def test_frames_are_told_apart_however_they_are_cut(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    wire = _frame(1, b"out\n") + _frame(2, b"err\n") + _frame(1, b"")
    for step in (1, 3, len(wire)):
        pieces = [wire[i : i + step] for i in range(0, len(wire), step)]
        terminal.pump(Hijacked(Canned(pieces[1:]), pieces[0]), stdin=False, tty=False)
        assert capfdbinary.readouterr() == (b"out\n", b"err\n")


def test_a_tty_is_raw(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    terminal.pump(Hijacked(Canned([b"\x01\x00\x00"]), b"early "), stdin=False, tty=True)
    assert capfdbinary.readouterr().out == b"early \x01\x00\x00"


def test_a_lost_connection_is_told(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(MachineError, match="Lost the connection"):
        terminal.pump(Hijacked(Canned([b"x"], breaks=True), b""), stdin=False, tty=True)
    assert capfdbinary.readouterr().out == b"x"


def test_the_terminal_comes_back_after_an_error() -> None:
    leader, follower = os.openpty()
    saved = os.dup(0)
    try:
        os.dup2(follower, 0)
        import termios

        before = termios.tcgetattr(0)
        with pytest.raises(ValueError, match="inside"), terminal.raw_terminal():
            assert termios.tcgetattr(0) != before
            raise ValueError("inside")
        assert termios.tcgetattr(0) == before
    finally:
        os.dup2(saved, 0)
        for fd in (saved, leader, follower):
            os.close(fd)


def test_the_third_signal_leaves_a_container_that_ignores_them() -> None:
    sent: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), terminal.proxied_signals(sent.append):
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
    assert sent == ["INT", "INT"]
    assert signal.getsignal(signal.SIGINT) is before
