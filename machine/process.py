"""The laptop's one door to other programs: argv lists, no shell, no inherited stdin."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Final

from drivers.api import Completed
from drivers.errors import DriverError
from machine.config import OUTPUT_LIMIT
from machine.errors import MachineError

_CHUNK: Final = 65536
_STDERR_KEPT: Final = 65536


def printable_argv(argv: Sequence[str]) -> str:
    """A command line that can be pasted back."""
    return shlex.join(argv)


class Child:
    """A running program with pipes. Use it from one thread; `close` ends it if it still runs."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Raises MachineError when the program is missing or can't be run."""
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(env) if env is not None else None,
                start_new_session=True,  # Ctrl-C is ours to handle, and `close` ends the whole group
            )
        except OSError as err:
            raise MachineError(f"Cannot run {argv[0]}", details=err.strerror or str(err)) from err
        self._argv = list(argv)
        self._stderr = bytearray()
        self._open: dict[int, IO[bytes]] = {}
        for pipe in (_pipe(self._process.stdout), _pipe(self._process.stderr)):
            os.set_blocking(pipe.fileno(), False)
            self._open[pipe.fileno()] = pipe

    def send(self, data: bytes) -> None:
        """Write all of `data`. Raises MachineError when the program no longer reads."""
        stdin = _pipe(self._process.stdin)
        try:
            stdin.write(data)
            stdin.flush()
        except OSError as err:
            raise MachineError(f"{self._argv[0]} ended early", details=self.stderr()) from err

    def close_stdin(self) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            try:
                stdin.close()
            except BrokenPipeError:
                return

    def read(self, timeout: float) -> bytes:
        """The next bytes of standard output; b"" at its end. Raises TimeoutError."""
        out = _pipe(self._process.stdout).fileno()
        deadline = time.monotonic() + timeout
        while out in self._open:
            for fd in self._ready(deadline):
                data = os.read(fd, _CHUNK)
                if not data:
                    del self._open[fd]
                elif fd == out:
                    return data
                else:
                    self._keep_stderr(data)
        return b""

    def wait(self, timeout: float) -> int:
        """The exit status; negative for a signal. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while self._open:
            for fd in self._ready(deadline):
                data = os.read(fd, _CHUNK)
                if not data:
                    del self._open[fd]
                elif fd != _pipe(self._process.stdout).fileno():
                    self._keep_stderr(data)
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as err:
            raise TimeoutError from err

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def outputs(self) -> tuple[int, int]:
        """The descriptors of its standard output and error, which do not block."""
        return _pipe(self._process.stdout).fileno(), _pipe(self._process.stderr).fileno()

    def ended(self, timeout: float) -> bool:
        """Whether it ends by itself within `timeout` seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stderr(self) -> str:
        return self._stderr.decode("utf-8", "replace")

    def close(self) -> None:
        """End the program's whole process group if it still runs, and reap it."""
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError:  # sudo's child is root's: closing its stdin ends it
                self._process.terminate()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                _close_quietly(pipe)
        self._process.wait()

    def _ready(self, deadline: float) -> list[int]:
        with selectors.DefaultSelector() as selector:
            for fd in self._open:
                selector.register(fd, selectors.EVENT_READ)
            found = selector.select(max(0.0, deadline - time.monotonic()))
        if not found:
            raise TimeoutError
        return [key.fd for key, _ in found]

    def _keep_stderr(self, data: bytes) -> None:
        self._stderr += data[: _STDERR_KEPT - len(self._stderr)]


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise MachineError("a program was started without pipes")
    return pipe


def _close_quietly(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return


class LocalRunner:
    """drivers.api.Runner on this computer."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        try:
            child = Child(argv, self._env)
        except MachineError as err:
            raise DriverError(str(err)) from err
        out = bytearray()
        deadline = time.monotonic() + timeout
        try:
            child.send(stdin)
            child.close_stdin()
            while data := child.read(deadline - time.monotonic()):
                out += data[: OUTPUT_LIMIT - len(out)]
            status = child.wait(max(0.1, deadline - time.monotonic()))
        except (TimeoutError, MachineError) as err:
            raise DriverError(
                f"{printable_argv(argv)} failed: {str(err) or f'no end within {timeout:.0f} s'}"
            ) from err
        finally:
            child.close()
        return Completed(status, out.decode("utf-8", "replace"), child.stderr())

    def spawn(self, argv: Sequence[str], env: Mapping[str, str]) -> Child:
        """Leave a program running with `env` added, in a process group of its own; no stdin.

        The caller reads its outputs, lest it stand still, and closes it. Raises DriverError.
        """
        try:
            child = Child(argv, {**self._env, **env})
        except MachineError as err:
            raise DriverError(str(err)) from err
        child.close_stdin()
        return child


def foreground(argv: Sequence[str]) -> int:
    """Run a program on this terminal, with our stdin, stdout and stderr; its exit status.

    Ctrl-C goes to the program: it decides. Raises MachineError when the program is missing.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(list(argv), preexec_fn=_default_interrupt)  # noqa: PLW1509  # no threads here
        status = child.wait()
    except FileNotFoundError as err:
        raise MachineError(
            f"{argv[0]} is not installed", hint=f"Install the package that has {argv[0]}."
        ) from err
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


def _default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
