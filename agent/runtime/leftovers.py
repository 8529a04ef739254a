"""Removing everything that a container has in the kernel and in $RUN, whatever state it is in.

Idempotent and independent of what the OCI runtime thinks: its own `delete --force` costs a process
and fails on half-made state.  All that crun and runc keep is a state directory and the cgroups.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
from collections.abc import Collection

from agent.runtime import record
from agent.runtime.cgroups import Cgroups
from agent.runtime.settings import Paths

_GRACE = 5.0  # seconds for conmon to write the exit file after the container's end


class Leftovers:
    """Clears by container id."""

    def __init__(self, paths: Paths, cgroups: Cgroups) -> None:
        self._paths = paths
        self._cgroups = cgroups

    def clear(self, container_id: str) -> None:
        """Kill what runs, then remove runtime state, cgroups, bundle and exit file."""
        bundle = self._paths.bundle(container_id)
        state = f"{self._paths.state}/{container_id}"
        known = record.load(self._paths, container_id)
        if known is None and os.path.isdir(bundle):
            self._end_half_made(container_id)
        if self._cgroups.directories(container_id):
            self._cgroups.kill(container_id)
        if known:
            _end(known.pid, known.started, 0)
            _end(known.monitor, known.monitor_started, _GRACE)
        self._cgroups.remove(container_id)
        for folder in (state, bundle):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._paths.exit_file(container_id))

    def clear_unknown(self, creating: Collection[str] = ()) -> None:
        """At start: runtime state, exit files and cgroups of ids that have no bundle."""
        known = set(os.listdir(self._paths.bundles)) | set(creating)
        names = set(os.listdir(self._paths.state)) | set(os.listdir(self._paths.exits))
        for hierarchy in self._cgroups.hierarchies.all:
            with contextlib.suppress(OSError):
                parent = hierarchy + self._cgroups.parent
                names.update(entry.name for entry in os.scandir(parent) if entry.is_dir())
        for name in names - known:
            if len(name) == 64 and all(digit in "0123456789abcdef" for digit in name):
                self.clear(name)

    def _end_half_made(self, container_id: str) -> None:
        """End the conmon of a create that did not come to its end, and what it has started.

        A runtime outlives its conmon, and would write its state after ours was cleared: it is looked
        for when conmon is gone.
        """
        path = f"{self._paths.bundle(container_id)}/conmon.pid"
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            pid, started = (int(word) for word in file.read().split())
            _end(pid, started, 0)
        for pid, started in _find_monitors(self._paths.bundle(container_id)):
            _end(pid, started, 0)


def _find_monitors(bundle: str) -> list[tuple[int, int]]:
    """Processes whose command line names the bundle: conmon, and the runtime that it runs."""
    needle = os.fsencode(bundle)
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if needle in file.read(65536).split(b"\0"):
                found.append((int(name), record.start_time(int(name))))
    return found


def _end(pid: int, started: int, grace: float) -> None:
    """Wait `grace` seconds for this very process to end by itself, then kill it and wait again."""
    try:
        fd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        if started == 0 or record.start_time(pid) != started:
            return
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if grace and poller.poll(grace * 1000):
            return
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        poller.poll(5000)
    finally:
        os.close(fd)
