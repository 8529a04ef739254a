"""One thread that learns of every end: containers (exit files), monitors and execs (pidfds).

It sleeps in epoll on an inotify descriptor of the exits folder, pidfds, and what detached execs
still say (read and dropped, so that they never block).  Nothing is polled by time.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.engine.ports import Exit
from agent.host import process, syscalls
from agent.runtime.cgroups import Cgroups
from agent.runtime.settings import Paths

_LOST = "the container's monitor (conmon) ended unexpectedly; the container was killed"


@dataclass(eq=False)
class _Monitor:
    container_id: str
    fd: int
    child: process.Child | None
    retired: bool = False  # its container was deleted: a new one may have the same id by now


def read_exit(paths: Paths, container_id: str) -> Exit | None:
    """The end of a container by its exit file; None when it has not ended (or was deleted)."""
    path = paths.exit_file(container_id)
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(100).strip()
            finished = os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None
    code = int(text) if text.isascii() and text.isdigit() else 255
    bundle = paths.bundle(container_id)
    error = _LOST if os.path.exists(f"{bundle}/lost") else ""
    return Exit(container_id, code, finished, os.path.exists(f"{bundle}/oom"), error)


class Watcher:
    """Starts its thread when made; `close` ends it.  All methods are thread-safe."""

    def __init__(self, paths: Paths, cgroups: Cgroups) -> None:
        self._paths = paths
        self._cgroups = cgroups
        self._lock = threading.Lock()
        self._on_exit: Callable[[Exit], None] | None = None
        self._reported: set[str] = set()
        self._monitors: dict[int, _Monitor] = {}
        self._ending: list[_Monitor] = []
        self._children: dict[int, tuple[process.Child, Callable[[int], None]]] = {}
        self._drains: set[int] = set()
        self._parked: dict[str, list[int]] = {}
        self._silent: set[int] = set()
        self._closing = False
        self._epoll = select.epoll()
        self._inotify = syscalls.inotify_init()
        syscalls.inotify_add_watch(self._inotify, paths.exits, syscalls.IN_MOVED_TO)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._inotify, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="exits", daemon=True)
        self._thread.start()

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        """From now on call `on_exit`, also for exits that are there already."""
        with self._lock:
            self._on_exit = on_exit
        os.eventfd_write(self._wake, 1)

    def add_monitor(self, container_id: str, child: process.Child | None, pid: int) -> None:
        """Watch a conmon: our child, or one that an earlier agent started."""
        fd = os.dup(child.pidfd) if child else os.pidfd_open(pid)
        with self._lock:
            self._reported.discard(container_id)
            self._monitors[fd] = _Monitor(container_id, fd, child)
        self._epoll.register(fd, select.EPOLLIN)

    def is_watched(self, container_id: str) -> bool:
        with self._lock:
            return any(one.container_id == container_id for one in self._monitors.values())

    def monitor_lost(self, container_id: str) -> None:
        """conmon is gone already (found at start): end the container as if it died just now."""
        self._start_cleanup(_Monitor(container_id, -1, None))

    def add_child(self, child: process.Child, on_end: Callable[[int], None]) -> None:
        """Call `on_end(code)` from the watcher's thread when `child` ends; it is reaped here."""
        with self._lock:
            self._children[child.pidfd] = (child, on_end)
        self._epoll.register(child.pidfd, select.EPOLLIN)

    def drain(self, fd: int) -> None:
        """Take over a descriptor whose reader has gone: read and drop until its end, then close."""
        os.set_blocking(fd, False)
        with self._lock:
            self._drains.add(fd)
            self._epoll.register(fd, select.EPOLLIN)

    def park(self, container_id: str, fd: int, *, keep: bool) -> None:
        """`drain` until someone asks for it; without `keep` it is closed when something comes."""
        with self._lock:
            self._parked.setdefault(container_id, []).append(fd)
            if not keep:
                self._silent.add(fd)
        self.drain(fd)

    def unpark(self, container_id: str) -> int | None:
        """A descriptor of this container that was parked and has not ended; now the caller's."""
        with self._lock:
            waiting = self._parked.get(container_id)
            if not waiting:
                return None
            fd = waiting.pop()
            self._drains.discard(fd)
            self._silent.discard(fd)
            self._epoll.unregister(fd)
            return fd

    def forget(self, container_id: str) -> None:
        """The container is being deleted: its end is no news."""
        with self._lock:
            self._reported.add(container_id)
            for monitor in (*self._monitors.values(), *self._ending):
                if monitor.container_id == container_id:
                    monitor.retired = True

    def forgotten(self, container_id: str) -> None:
        """It is deleted, its exit file too: nothing needs to be remembered."""
        with self._lock:
            self._reported.discard(container_id)

    def close(self) -> None:
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for monitor in self._monitors.values():
            os.close(monitor.fd)
            if monitor.child:
                monitor.child.close()
        for child, _ in self._children.values():
            child.close()
        for fd in (*self._drains, self._inotify, self._wake):
            os.close(fd)
        self._epoll.close()

    def _run(self) -> None:
        while not self._closing:
            for fd, _ in self._epoll.poll():
                self._handle(fd)

    def _handle(self, fd: int) -> None:
        if fd == self._wake:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
            self._scan()
        elif fd == self._inotify:
            self._exit_files()
        elif fd in self._drains:
            self._drop(fd)
        elif fd in self._monitors:
            self._monitor_ended(fd)
        else:
            self._child_ended(fd)

    def _exit_files(self) -> None:
        for event in syscalls.inotify_read(self._inotify):
            if event.mask & syscalls.IN_Q_OVERFLOW:
                self._scan()
            else:
                self._report(os.fsdecode(event.name))

    def _scan(self) -> None:
        for name in os.listdir(self._paths.exits):
            self._report(name)

    def _report(self, container_id: str) -> None:
        with self._lock:
            if self._on_exit is None or container_id in self._reported:
                return
            found = read_exit(self._paths, container_id)
            if found is None or "." in container_id:
                return
            self._reported.add(container_id)
            call = self._on_exit
        call(found)

    def _drop(self, fd: int) -> None:
        with self._lock:
            if fd not in self._drains:  # unparked meanwhile
                return
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""  # EIO: a terminal without a process
            if not data or fd in self._silent:
                self._epoll.unregister(fd)
                self._drains.discard(fd)
                self._silent.discard(fd)
                self._unlist(fd)
                os.close(fd)

    def _unlist(self, fd: int) -> None:
        for container_id, waiting in self._parked.items():
            if fd in waiting:
                waiting.remove(fd)
                if not waiting:
                    del self._parked[container_id]
                return

    def _monitor_ended(self, fd: int) -> None:
        self._epoll.unregister(fd)
        with self._lock:
            monitor = self._monitors.pop(fd)
        if monitor.child:
            with contextlib.suppress(ChildProcessError):
                monitor.child.poll()
            monitor.child.close()
        os.close(fd)
        if not monitor.retired and read_exit(self._paths, monitor.container_id) is None:
            self._start_cleanup(monitor)

    def _start_cleanup(self, monitor: _Monitor) -> None:
        # Killing waits for processes to end: not on this thread.
        with self._lock:
            self._ending.append(monitor)
        threading.Thread(
            target=self._end_container, args=(monitor,), name="lost-monitor", daemon=True
        ).start()

    def _end_container(self, monitor: _Monitor) -> None:
        """conmon's work after its death: the whole cgroup ends, and an exit file says so."""
        container_id = monitor.container_id
        if not monitor.retired:
            self._cgroups.kill(container_id)
        with self._lock:
            self._ending.remove(monitor)
        if monitor.retired:
            return
        bundle = self._paths.bundle(container_id)
        with contextlib.suppress(OSError):  # deleted meanwhile
            with open(f"{bundle}/lost", "w", encoding="ascii"):
                pass
            aside = f"{bundle}/exit.new"
            with open(aside, "w", encoding="ascii") as file:
                file.write("137")
            os.rename(aside, self._paths.exit_file(container_id))

    def _child_ended(self, fd: int) -> None:
        with self._lock:
            entry = self._children.pop(fd, None)
        if entry is None:
            return
        self._epoll.unregister(fd)
        child, on_end = entry
        code = child.poll()
        child.close()
        on_end(255 if code is None else code if code >= 0 else 128 - code)
