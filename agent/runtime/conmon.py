"""Starting conmon, the monitor that outlives the agent: it holds a container's stdio and exit code.

Protocol (containers/conmon, src/conmon.c): conmon waits for a byte on _OCI_STARTPIPE before it
starts anything, so that it can be moved to another cgroup first; it then writes one JSON line on
_OCI_SYNCPIPE: {"data": <pid>} or {"data": -1, "message": "<what the runtime said>"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable

from agent.errors import deadline_exceeded, internal
from agent.host import process
from agent.runtime.settings import Paths
from agent.values import frozen

_SYNC_FD, _START_FD = 3, 4
_LIMIT = 1 << 16


class RuntimeRefusedError(Exception):
    """The OCI runtime could not create the container; `said` is its own text."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


@frozen
class Plan:
    """What distinguishes one conmon from another."""

    container_id: str
    name: str
    tty: bool
    stdin: bool
    stdin_once: bool
    log: bool
    log_size_max: int = 0  # bytes, 0 = unlimited


def arguments(paths: Paths, runtime_path: str, plan: Plan) -> list[str]:
    """conmon's command line.  Pure."""
    bundle = paths.bundle(plan.container_id)
    # --full-attach: the attach socket is in the bundle, not behind a truncated path.
    # --no-sync-log: no fsync of the log at each exit, as Docker; it costs 5-30 ms on ext4.
    found = [
        paths.settings.conmon, "--api-version", "1", "--sync", "--full-attach", "--no-sync-log",
        "--cid", plan.container_id, "--name", plan.name, "--cuuid", plan.container_id,
        "--runtime", runtime_path, "--bundle", bundle, "--persist-dir", bundle,
        "--container-pidfile", f"{bundle}/pidfile", "--exit-dir", paths.exits,
        "--log-path", f"k8s-file:{paths.log(plan.container_id)}" if plan.log else "none",
        "--log-level", "error",
        f"--runtime-arg=--root={paths.state}",
    ]  # fmt: skip
    if plan.tty:
        found.append("--terminal")
    if plan.stdin:
        found.append("--stdin")
        # conmon ends stdin when a client goes; behind a terminal it never ends, as docker's: whoever
        # detached may attach again.
        if plan.tty or not plan.stdin_once:
            found.append("--leave-stdin-open")
    if plan.log_size_max > 0:
        found += ["--log-size-max", str(plan.log_size_max)]
    return found


class Monitor:
    """One conmon on its way: started, held at its start pipe, then let go."""

    def __init__(self, argv: list[str]) -> None:
        """Start it, from the calling thread's mount namespace."""
        self._sync, sync_write = os.pipe2(os.O_CLOEXEC)
        start_read, self._start = os.pipe2(os.O_CLOEXEC)
        try:
            self.child = process.spawn(
                argv,
                fds={_SYNC_FD: sync_write, _START_FD: start_read},
                env={"_OCI_SYNCPIPE": str(_SYNC_FD), "_OCI_STARTPIPE": str(_START_FD)},
                new_session=True,
            )
        except BaseException:
            os.close(self._sync)
            os.close(self._start)
            raise
        finally:
            os.close(sync_write)
            os.close(start_read)

    def create(self, before: Callable[[int], None], timeout: float) -> int:
        """Let it go after `before(conmon's pid)`; returns the pid of the container's init.

        Raises RuntimeRefusedError, or an EngineError when conmon dies or is too slow.  The caller
        clears up.
        """
        before(self.child.pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._start, b"\n")
        line = self._read_line(time.monotonic() + timeout)
        try:
            document = json.loads(line)
            pid = int(document["data"])
            said = str(document.get("message", ""))
        except (ValueError, KeyError, TypeError) as error:
            raise internal(f"conmon ended without an answer: {line[:200]!r}") from error
        if pid <= 0:
            raise RuntimeRefusedError(said)
        return pid

    def close_pipes(self) -> None:
        os.close(self._sync)
        os.close(self._start)

    def _read_line(self, deadline: float) -> bytes:
        poller = select.poll()
        poller.register(self._sync, select.POLLIN)
        line = b""
        while b"\n" not in line and len(line) < _LIMIT:
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise deadline_exceeded("timed out while the container was being created")
            data = os.read(self._sync, 4096)
            if not data:
                break
            line += data
        return line
