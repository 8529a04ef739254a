"""Control groups, version 1, hybrid and 2: where containers are put, killed, frozen, removed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterable, Iterator

from agent.values import frozen

_ROOT = "/sys/fs/cgroup"


@frozen
class Hierarchies:
    """What is mounted: v1 mount points, the cgroup2 mount point ("" = none), and what runs things.

    `unified`: cgroup2 is the only one.  `hidden`: on a hybrid host, the cgroup2 mount point.
    """

    v1: tuple[str, ...]
    v2: str

    @property
    def unified(self) -> bool:
        return bool(self.v2) and not self.v1

    @property
    def hidden(self) -> str | None:
        return self.v2 if self.v1 and self.v2 else None

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.v1, *((self.v2,) if self.v2 else ()))


def parse_mountinfo(text: str) -> Hierarchies:
    """/proc/self/mountinfo -> the cgroup file systems below /sys/fs/cgroup.  The last mount wins."""
    v1: dict[str, None] = {}
    v2 = ""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        point, kind = left.split(" ")[4], right.split(" ")[0]
        if point != _ROOT and not point.startswith(f"{_ROOT}/"):
            continue
        if kind == "cgroup":
            v1[point] = None
        elif kind == "cgroup2":
            v2 = point
    return Hierarchies(tuple(v1), v2)


class Cgroups:
    """The groups `<parent>/<id>` of our containers in every hierarchy."""

    def __init__(self, hierarchies: Hierarchies, parent: str, own: str = "") -> None:
        """`own`: this process's /proc/self/cgroup."""
        self.hierarchies = hierarchies
        self.parent = parent
        self._parents: dict[str, str] = {}
        self._monitor_homes = monitor_homes(hierarchies, parent, own)

    def path(self, container_id: str) -> str:
        """The OCI cgroupsPath."""
        return f"{self._parents.get(container_id, self.parent)}/{container_id}"

    def place(self, container_id: str, parent: str) -> None:
        """A container with a parent group of its own (--cgroup-parent); "" = no longer."""
        if parent:
            self._parents[container_id] = parent
        else:
            self._parents.pop(container_id, None)

    def directories(self, container_id: str) -> list[str]:
        path = self.path(container_id)
        return [found for h in self.hierarchies.all if os.path.isdir(found := h + path)]

    def pids(self, container_id: str) -> set[int]:
        """Every process in the container's groups, nested ones included."""
        found: set[int] = set()
        for top in self.directories(container_id):
            for folder in _bottom_up(top):
                with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs", "rb") as file:
                    found.update(int(word) for word in file.read().split())
        found.discard(0)
        return found

    def kill(self, container_id: str, timeout: float = 10.0) -> bool:
        """SIGKILL all of it and wait for the end.  False: something is still there after `timeout`."""
        deadline = time.monotonic() + timeout
        while pids := self.pids(container_id):
            if time.monotonic() >= deadline:
                return False
            self._kill_once(container_id, pids, deadline)
        return True

    def _kill_once(self, container_id: str, pids: Iterable[int], deadline: float) -> None:
        with contextlib.ExitStack() as stack:
            poller = select.poll()
            waiting = 0
            self._set_frozen(container_id, frozen=True)  # a fork bomb can't run ahead of us
            for pid in pids:
                with contextlib.suppress(OSError):
                    fd = os.pidfd_open(pid)
                    stack.callback(os.close, fd)
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    poller.register(fd, select.POLLIN)
                    waiting += 1
            self._kill_file(container_id)
            self._set_frozen(container_id, frozen=False)
            while waiting and (left := deadline - time.monotonic()) > 0:
                for fd, _ in poller.poll(left * 1000):
                    poller.unregister(fd)
                    waiting -= 1
            if not waiting:
                _pause(0.0005)  # a dead process leaves its group a moment after its pidfd says so

    def _kill_file(self, container_id: str) -> None:
        if self.hierarchies.v2:
            with contextlib.suppress(OSError):
                _write(f"{self.hierarchies.v2}{self.path(container_id)}/cgroup.kill", "1")

    def freeze(self, container_id: str, *, frozen: bool, timeout: float = 10.0) -> bool:
        """Pause or resume; waits until the kernel says it is done.  False: no freezer or timeout."""
        if not self._set_frozen(container_id, frozen=frozen):
            return False
        deadline = time.monotonic() + timeout
        while self.is_frozen(container_id) != frozen:
            if time.monotonic() > deadline:
                return False
            if self.hierarchies.v1:
                self._set_frozen(container_id, frozen=frozen)  # v1 may have to be told again
            _pause(0.001)
        return True

    def is_frozen(self, container_id: str) -> bool:
        """Whether all of the container's processes are stopped by the freezer."""
        for path, wanted in self._freezers(container_id, read=True):
            with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
                return wanted in file.read()
        return False

    def _set_frozen(self, container_id: str, *, frozen: bool) -> bool:
        for path, _ in self._freezers(container_id, read=False):
            v1 = path.endswith("freezer.state")
            word = ("FROZEN" if frozen else "THAWED") if v1 else str(int(frozen))
            try:
                _write(path, word)
            except OSError:
                continue
            return True
        return False

    def _freezers(self, container_id: str, *, read: bool) -> Iterator[tuple[str, str]]:
        path = self.path(container_id)
        for hierarchy in self.hierarchies.v1:
            if "freezer" in os.path.basename(hierarchy).split(","):
                yield f"{hierarchy}{path}/freezer.state", "FROZEN"
        if self.hierarchies.v2:
            name = "cgroup.events" if read else "cgroup.freeze"
            yield f"{self.hierarchies.v2}{path}/{name}", "frozen 1"

    def remove(self, container_id: str, timeout: float = 5.0) -> None:
        """Remove the (empty) groups in every hierarchy.  Idempotent; gives up after `timeout`."""
        deadline = time.monotonic() + timeout
        for top in self.directories(container_id):
            while not _remove(top):
                if time.monotonic() > deadline:
                    break
                _pause(0.001)

    def adopt_monitor(self, pid: int) -> None:
        """Move conmon out of the agent's service (best effort).

        Else systemd stops it with the service.  Only where systemd tracks services (its named v1
        hierarchy, or cgroup2), and only when the agent is in a service at all: each move waits for
        an RCU grace period in the kernel, measured 1 to 3 ms a hierarchy.
        """
        for folder in self._monitor_homes:
            with contextlib.suppress(OSError):
                os.makedirs(folder, exist_ok=True)
                _write(f"{folder}/cgroup.procs", str(pid))


def monitor_homes(hierarchies: Hierarchies, parent: str, own: str) -> tuple[str, ...]:
    """Where monitors are moved to; `own` is the agent's /proc/self/cgroup."""
    found = []
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if path == "/":
            continue
        if controllers == "" and hierarchies.v2:
            found.append(f"{hierarchies.v2}{parent}-conmon")
        if controllers == "name=systemd":
            found += [f"{h}{parent}-conmon" for h in hierarchies.v1 if h.endswith("/systemd")]
    return tuple(found)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def _bottom_up(top: str) -> list[str]:
    return [folder for folder, _, _ in os.walk(top, topdown=False)]


def _remove(top: str) -> bool:
    for folder in _bottom_up(top):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
