"""Foreground containers and execs: attach, start, carry the bytes, take the exit status."""

from __future__ import annotations

import contextlib
import threading

from machine import terminal
from machine.engine import Engine, EngineApiError, Hijacked
from machine.errors import MachineError
from machine.runspec import RunFlags


def remote_exit(message: str) -> int:
    """docker run's exit status for a container that could not be made or started."""
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    if "permission denied" in message or "is a directory" in message:
        return 126
    return 125


class Status:
    """The answer of /wait, taken by a thread: the request must be under way before the start."""

    def __init__(self, engine: Engine, container: str, condition: str) -> None:
        self._response = engine.call(
            "POST", f"/containers/{container}/wait", query={"condition": condition}
        )
        self._code: int | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(MachineError, OSError, ValueError), self._response:
            answer = self._response.json()
            if isinstance(answer, dict):
                self._code = int(answer["StatusCode"])

    def get(self, timeout: float | None = None) -> int | None:
        """None: not known within `timeout` seconds (the user detached)."""
        self._thread.join(timeout)
        return self._code


def follow(
    engine: Engine, container: str, flags: RunFlags, *, sig_proxy: bool, detach_keys: str
) -> int:
    """Attach to a created container, start it, and return its exit status."""
    status = Status(engine, container, "removed" if flags.remove else "next-exit")
    hijacked = attach(engine, container, stdin=flags.interactive, detach_keys=detach_keys)
    path = f"/containers/{container}"
    with _terminal(flags.tty and flags.interactive):
        try:
            engine.post(f"{path}/start")
        except EngineApiError:
            if flags.remove:
                with contextlib.suppress(EngineApiError):
                    engine.delete(path, force=True)
            raise
        stream(engine, path, hijacked, flags, sig_proxy=sig_proxy)
    return exit_status(engine, container, status, tty=flags.tty)


def attach(engine: Engine, container: str, *, stdin: bool, detach_keys: str) -> Hijacked:
    """The container's stdio, from now on."""
    query = {"stream": 1, "stdin": stdin, "stdout": 1, "stderr": 1, "detachKeys": detach_keys}
    return engine.hijack(f"/containers/{container}/attach", query=query)


def stream(
    engine: Engine, path: str, hijacked: Hijacked, flags: RunFlags, *, sig_proxy: bool
) -> None:
    """Carry the bytes of a running container until its end or the user's detaching."""
    if flags.tty:
        terminal.send_size(engine, path)
        with terminal.following_size(engine, path):
            terminal.pump(hijacked, stdin=flags.interactive, tty=flags.tty)
        return

    def send(signal: str) -> None:
        engine.post(f"{path}/kill", signal=signal)

    with terminal.proxied_signals(send) if sig_proxy else contextlib.nullcontext():
        terminal.pump(hijacked, stdin=flags.interactive, tty=flags.tty)


def _terminal(raw: bool) -> contextlib.AbstractContextManager[None]:
    return terminal.raw_terminal() if raw else contextlib.nullcontext()


def exit_status(engine: Engine, container: str, status: Status, *, tty: bool) -> int:
    """The container's, once its streams have ended; 0 when the user detached (with a tty only)."""
    code = status.get(0.5 if tty else None)
    if code is not None:
        return code
    with contextlib.suppress(EngineApiError):
        found = engine.get(f"/containers/{container}/json")
        if isinstance(found, dict) and found["State"]["Running"]:
            return 0  # detached by keys: the container runs on
    return status.get() or 0
