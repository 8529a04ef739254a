"""The agent's one door to other programs.

Argument lists only, a fixed environment (nothing of the agent's, nothing of an image's: case 41),
no inherited standard input, bounded output, a deadline, and errors that print a command which can
be pasted back.  Children are made by posix_spawn: it costs the same whatever the agent's memory
size is (fork copies page tables), and a child gets the *calling thread's* mount namespace and cgroup,
which agent.runtime relies on.  Descriptors of the agent are all close-on-exec (PEP 446): a child
has 0, 1, 2 and those given.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from agent.values import frozen

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/",
    }
)
OUTPUT_LIMIT = 1 << 20
_RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # CPython ignores these two; children must not


@frozen
class Completed:
    """A program's end.  `returncode` < 0: killed by that signal.  Output is cut at the limit."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


class ProcessError(Exception):
    """A program failed, could not be started, or was too slow."""

    def __init__(self, argv: Sequence[str], reason: str, returncode: int, stderr: bytes) -> None:
        self.argv = tuple(argv)
        self.reason = reason
        self.returncode = returncode
        self.stderr = stderr
        text = stderr.decode("utf-8", "backslashreplace").strip()
        tail = f": {text[-2000:]}" if text else ""
        super().__init__(f"{paste(argv)}: {reason}{tail}")


class ProcessTimeoutError(ProcessError):
    """The deadline passed; the program was killed."""


def paste(argv: Sequence[str]) -> str:
    """The command as one could type it."""
    return shlex.join(argv)


class Child:
    """A running program that this process has started.  Reap it: `wait` or `poll`, then `close`."""

    def __init__(self, argv: Sequence[str], pid: int) -> None:
        self.argv = tuple(argv)
        self.pid = pid
        self.returncode: int | None = None
        self.pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The exit code if it has ended (negative: signal), else None.  Never blocks."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Exit code; raises ProcessTimeoutError (and kills nothing) when `timeout` seconds pass."""
        if self.returncode is None and timeout is not None and not self._readable(timeout):
            raise ProcessTimeoutError(self.argv, f"no end after {timeout:g} s", 0, b"")
        code = self._reap(0)
        if code is None:  # waitid without WNOHANG always answers
            raise ProcessError(self.argv, "lost", 0, b"")
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal it; harmless after its end (by pidfd, so never another process)."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Give the pidfd back.  Call once."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _readable(self, timeout: float) -> bool:
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(max(0, timeout) * 1000))

    def _reap(self, flags: int) -> int | None:
        if self.returncode is None:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | flags)
            if result is not None:
                status = result.si_status
                self.returncode = status if result.si_code == os.CLD_EXITED else -status
        return self.returncode


def spawn(
    argv: Sequence[str],
    *,
    fds: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
) -> Child:
    """Start a program and return at once.

    `argv[0]` is looked for in ENVIRONMENT's PATH unless it has a slash.  `fds` maps the child's
    descriptor numbers to ours; 0, 1, 2 are /dev/null unless given.  `env` adds to ENVIRONMENT.
    Raises ProcessError when it can't be started.
    """
    wanted = dict(fds or {})
    owned: list[int] = []
    try:
        actions = _file_actions(wanted, owned)
        environment = {**ENVIRONMENT, **(env or {})}
        program = _find(argv[0], environment["PATH"])
        pid = os.posix_spawn(
            program,
            list(argv),
            environment,
            file_actions=actions,
            setsigmask=(),
            setsigdef=_RESET_SIGNALS,
            **({"setsid": True} if new_session else {"setpgroup": 0}),
        )
    except OSError as error:
        raise ProcessError(argv, f"cannot be started ({error.strerror})", 127, b"") from error
    finally:
        for fd in owned:
            os.close(fd)
    return Child(argv, pid)


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    limit: int = OUTPUT_LIMIT,
    check: bool = True,
) -> Completed:
    """Run a program to its end.

    Output beyond `limit` bytes a stream is read and dropped.  Raises ProcessTimeoutError after
    `timeout` seconds (the program is killed), ProcessError when it can't be started, and, with
    `check`, when it exits other than 0.
    """
    pipes = _Pipes(with_stdin=bool(stdin))
    try:
        child = spawn(argv, fds=pipes.child_ends(), env=env)
        try:
            pipes.close_child_ends()
            finished = pipes.pump(stdin, limit, time.monotonic() + timeout, child)
            if not finished:
                child.kill()
                child.wait()
                raise ProcessTimeoutError(argv, f"killed after {timeout:g} s", -9, bytes(pipes.err))
            code = child.wait()
        finally:
            child.close()
    finally:
        pipes.close()
    if check and code != 0:
        raise ProcessError(argv, _ended(code), code, bytes(pipes.err) or bytes(pipes.out))
    return Completed(tuple(argv), code, bytes(pipes.out), bytes(pipes.err))


def _ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _find(name: str, path: str) -> str:
    if "/" in name:
        return name
    for folder in path.split(":"):
        candidate = f"{folder}/{name}"
        if os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(2, "not found in PATH", name)


def _file_actions(wanted: dict[int, int], owned: list[int]) -> list[tuple[int, ...]]:
    # Every source is moved above every target first, so that no dup2 overwrites a later source.
    floor = max([2, *wanted]) + 1
    actions: list[tuple[int, ...]] = []
    for target in (0, 1, 2):
        if target not in wanted:
            mode = os.O_RDONLY if target == 0 else os.O_WRONLY
            actions.append((os.POSIX_SPAWN_OPEN, target, "/dev/null", mode, 0))  # type: ignore[arg-type]
    for target, source in wanted.items():
        high = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, floor)
        owned.append(high)
        actions.append((os.POSIX_SPAWN_DUP2, high, target))
    return actions


class _Pipes:
    """The three pipes of `run`."""

    def __init__(self, *, with_stdin: bool) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self._ours: dict[int, int] = {}  # stream number -> our end
        self._theirs: dict[int, int] = {}
        if with_stdin:
            self._theirs[0], self._ours[0] = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._ours[0], False)
        for stream in (1, 2):
            self._ours[stream], self._theirs[stream] = os.pipe2(os.O_CLOEXEC)

    def child_ends(self) -> dict[int, int]:
        return dict(self._theirs)

    def close_child_ends(self) -> None:
        for fd in self._theirs.values():
            os.close(fd)
        self._theirs.clear()

    def close(self) -> None:
        self.close_child_ends()
        for fd in self._ours.values():
            os.close(fd)
        self._ours.clear()

    def pump(self, stdin: bytes, limit: int, deadline: float, child: Child) -> bool:
        """Until the child has ended and its output is drained; False: the deadline passed.

        What a grandchild still holds open is not waited for once the child itself has ended.
        """
        pending = memoryview(stdin)
        poller = select.poll()
        for stream, fd in self._ours.items():
            poller.register(fd, select.POLLOUT if stream == 0 else select.POLLIN)
        poller.register(child.pidfd, select.POLLIN)
        ended = False
        while True:
            left = 0.0 if ended else deadline - time.monotonic()
            ready = {fd for fd, _ in poller.poll(max(0, left) * 1000)}
            if child.pidfd in ready:
                ready.discard(child.pidfd)
                poller.unregister(child.pidfd)
                ended = True
                continue
            if not ready:
                return ended
            for stream, fd in list(self._ours.items()):
                if fd not in ready:
                    continue
                if stream == 0:
                    pending = self._feed(fd, pending, poller)
                else:
                    self._take(stream, fd, limit, poller)

    def _feed(self, fd: int, pending: memoryview, poller: select.poll) -> memoryview:
        try:
            pending = pending[os.write(fd, pending[:65536]) :]
        except BrokenPipeError:
            pending = pending[:0]  # it reads no more; how it ends tells the rest
        if not pending:
            self._drop(0, poller)
        return pending

    def _take(self, stream: int, fd: int, limit: int, poller: select.poll) -> None:
        data = os.read(fd, 65536)
        if not data:
            self._drop(stream, poller)
            return
        kept = self.out if stream == 1 else self.err
        kept += data[: max(0, limit - len(kept))]

    def _drop(self, stream: int, poller: select.poll) -> None:
        fd = self._ours.pop(stream)
        poller.unregister(fd)
        os.close(fd)
