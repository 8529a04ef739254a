"""How the provisioner talks to a host, whatever is underneath.

A transport runs constant command lines; what varies goes through standard input (security.md C14).
It is used from one thread at a time; `close` may be called from any thread and more than once.
"""

from __future__ import annotations

import time
from typing import Protocol

from drivers.api import Completed
from machine.config import OUTPUT_LIMIT
from machine.errors import MachineError, printable


class Running(Protocol):
    """A command that runs on the host."""

    def send(self, data: bytes) -> None:
        """Write all of `data` to its standard input. Raises MachineError when it can't."""

    def close_stdin(self) -> None:
        """Its standard input ends."""

    def read(self, timeout: float) -> bytes:
        """Some of its standard output, b"" at the end. Raises TimeoutError after `timeout` s."""

    def wait(self, timeout: float) -> int:
        """Its exit status; -1 when the connection ended first. Raises TimeoutError."""

    def stderr(self) -> str:
        """What it wrote to standard error so far, cut at 64 KiB."""

    def close(self) -> None:
        """Give it up."""


class Transport(Protocol):
    """A way to run commands on one host."""

    def start(self, command: str) -> Running:
        """Start a constant command line. Raises MachineError."""

    def close(self) -> None:
        """End the connection and everything that runs on it."""


def run(
    transport: Transport,
    command: str,
    *,
    stdin: bytes = b"",
    timeout: float = 60.0,
    limit: int = OUTPUT_LIMIT,
) -> Completed:
    """Run to the end and collect. Raises MachineError when it takes longer than `timeout` seconds
    or says more than `limit` bytes (case 144).
    """
    deadline = time.monotonic() + timeout
    running = transport.start(command)
    out = bytearray()
    try:
        running.send(stdin)
        running.close_stdin()
        while data := running.read(deadline - time.monotonic()):
            out += data
            if len(out) > limit:
                raise MachineError(
                    "The host says more than it should",
                    details=f"More than {limit} bytes came back; the beginning is: "
                    + printable(out[:200].decode("utf-8", "replace")),
                )
        status = running.wait(max(0.1, deadline - time.monotonic()))
    except TimeoutError as err:
        raise MachineError(
            "The host did not finish in time", details=f"No end within {timeout:.0f} s."
        ) from err
    finally:
        running.close()
    return Completed(status, out.decode("utf-8", "replace"), running.stderr())


class Lines:
    """Whole lines of a running command's output, each at most `limit` bytes long."""

    def __init__(self, running: Running, limit: int = OUTPUT_LIMIT) -> None:
        self._running = running
        self._limit = limit
        self._buffer = bytearray()

    def next(self, timeout: float) -> bytes | None:
        """The next line without its end; None at the end of the output.

        Raises TimeoutError, and MachineError for a line that is too long.
        """
        deadline = time.monotonic() + timeout
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > self._limit:
                raise MachineError("The host says more than it should in one line")
            data = self._running.read(deadline - time.monotonic())
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line
