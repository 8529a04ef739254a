"""An attached container on this terminal: raw mode, resize, stdin, the two output streams.

A thread reads stdin, so that a silent terminal never holds the output back; it is a daemon thread
because a blocked read of a terminal can't be cancelled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType

from agent.wire.frames import FrameDecoder
from machine.engine import Engine, Hijacked
from machine.errors import MachineError

STDIN, STDOUT, STDERR = 0, 1, 2
FORCED_EXIT = 3  # docker: "got 3 SIGTERM/SIGINTs, forcefully exiting"


def is_terminal() -> bool:
    """Both stdin and stdout are a terminal."""
    return os.isatty(STDIN) and os.isatty(STDOUT)


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """stdin's terminal in raw mode, put back on every way out."""
    if not os.isatty(STDIN):
        yield
        return
    before = termios.tcgetattr(STDIN)
    tty.setraw(STDIN, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


def size() -> tuple[int, int] | None:
    """The terminal's rows and columns; None: there is no terminal."""
    try:
        found = os.get_terminal_size(STDOUT)
    except OSError:
        return None
    return found.lines, found.columns


def send_size(engine: Engine, path: str) -> None:
    """Tell the container (or exec) at `path` how large the terminal is.  Best effort."""
    found = size()
    if found is None:
        return
    with contextlib.suppress(MachineError):  # it may have ended: then its size is of no interest
        engine.post(f"{path}/resize", h=found[0], w=found[1])


@contextlib.contextmanager
def following_size(engine: Engine, path: str) -> Iterator[None]:
    """Resize the container's terminal whenever ours changes."""

    def changed(_number: int, _frame: FrameType | None) -> None:
        send_size(engine, path)

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextlib.contextmanager
def proxied_signals(send: Callable[[str], None]) -> Iterator[None]:
    """SIGINT and SIGTERM go to the container, as docker's --sig-proxy does.

    The third one ends this command, as docker's: a first process without handlers ignores them all.
    """
    tries = 0

    def forward(number: int, _frame: FrameType | None) -> None:
        nonlocal tries
        tries += 1
        if tries == FORCED_EXIT:
            raise KeyboardInterrupt
        with contextlib.suppress(MachineError):
            send(signal.Signals(number).name.removeprefix("SIG"))

    before = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pump(hijacked: Hijacked, *, stdin: bool, tty: bool) -> None:
    """Carry bytes until the engine ends the stream; without a tty they are frames."""
    if stdin:
        threading.Thread(target=_send_stdin, args=(hijacked,), daemon=True).start()
    decoder = FrameDecoder(partial=True) if not tty else None
    data = hijacked.early
    while True:
        if data:
            _show(data, decoder)
        try:
            data = hijacked.stream.recv()
        except OSError as error:
            raise MachineError(f"Lost the connection to the engine: {error}") from error
        if not data:
            return


def _show(data: bytes, decoder: FrameDecoder | None) -> None:
    if decoder is None:
        _write(STDOUT, data)
        return
    for frame in decoder.feed(data):
        _write(STDERR if frame.stream == STDERR else STDOUT, frame.data)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _send_stdin(hijacked: Hijacked) -> None:
    with contextlib.suppress(OSError):  # the engine has gone: the reader says so
        while data := os.read(STDIN, 65536):
            hijacked.stream.send(data)
        hijacked.stream.close_write()


def show_logs(chunks: Iterator[bytes], *, multiplexed: bool) -> None:
    """Container logs to stdout and stderr, exact bytes."""
    decoder = FrameDecoder(partial=True) if multiplexed else None
    sys.stdout.flush()
    for chunk in chunks:
        _show(chunk, decoder)
