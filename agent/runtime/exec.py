"""Execs: `crun exec` (or runc) as a direct child of the agent, with its stdio on our descriptors.

Not tty: pipes.  tty: crun sends the container's terminal over a console socket; runc refuses that
without --detach, so it gets a pseudo terminal of ours, raw, and copies.  (crun 1.8 does not pass a
new size on when it copies.)  The child's exit code is the exec's either way.
When the client goes, nothing is closed under the process: the watcher reads on and drops.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import termios
import threading
import time
import tty
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.engine.model import ExecConfig
from agent.errors import deadline_exceeded
from agent.host import process, syscalls
from agent.runtime import translate
from agent.runtime.namespace import Launcher
from agent.runtime.watcher import Watcher
from agent.values import frozen

_BATCH = 65536


@dataclass
class Channels:
    """Our ends and the child's ends of an exec's stdio; -1 = none."""

    tty: bool = False
    stdin: int = -1
    outputs: dict[int, int] = field(default_factory=dict)  # descriptor -> stream number
    theirs: dict[int, int] = field(default_factory=dict)  # child's number -> descriptor
    console: socket.socket | None = None  # where the runtime will send the terminal

    def terminal(self, master: int) -> None:
        os.set_blocking(master, False)
        self.outputs = {master: 1}
        self.stdin = master

    def receive_terminal(self, timeout: float) -> bool:
        """Take the terminal from the console socket; False: it did not come in time."""
        if self.console is None:
            return True
        self.console.settimeout(timeout)
        try:
            connection, _ = self.console.accept()
        except (TimeoutError, BlockingIOError):
            return False
        with connection:
            connection.settimeout(5)
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        self.console.close()
        self.console = None
        if not fds:
            return False
        fcntl.fcntl(fds[0], fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self.terminal(fds[0])
        return True

    def close_theirs(self) -> None:
        for fd in set(self.theirs.values()):
            os.close(fd)
        self.theirs.clear()

    def close_ours(self) -> None:
        for fd in {*self.outputs, self.stdin} - {-1}:
            os.close(fd)
        self.outputs.clear()
        self.stdin = -1
        if self.console is not None:
            self.console.close()
            self.console = None


def open_channels(config: ExecConfig, *, detach: bool, console: str) -> Channels:
    """Pipes or a terminal, as the exec asks for; /dev/null for what it does not attach.

    `console`: path of the console socket to make, "" = the runtime can't (runc).
    """
    found = Channels(tty=config.tty)
    if config.tty and console:
        found.console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        found.console.bind(console)
        found.console.listen(1)
        return found
    if config.tty:
        master, slave = pty.openpty()
        tty.setraw(slave)
        found.theirs = {0: slave, 1: slave, 2: slave}
        found.terminal(master)
        return found
    if detach:
        return found
    if config.attach_stdin:
        found.theirs[0], found.stdin = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(found.stdin, False)
    for stream, wanted in ((1, config.attach_stdout), (2, config.attach_stderr)):
        if wanted:
            ours, found.theirs[stream] = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
            found.outputs[ours] = stream
    return found


class ExecStream:
    """The Duplex of an exec.  Ends when `finish` was called and its outputs are empty.

    Not when its outputs end: a client asks for the exit code as soon as its stream has ended, and
    must not be quicker than the watcher that learns it.
    """

    def __init__(self, channels: Channels, abandon: Callable[[int], None]) -> None:
        self._channels = channels
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._bell_lock = threading.Lock()
        self._abandon = abandon
        self._open = dict(channels.outputs)
        self._exited = False
        self._epoll = select.epoll()
        for fd in self._open:
            self._epoll.register(fd, select.EPOLLIN)
        self._epoll.register(self._bell, select.EPOLLIN)

    def finish(self) -> None:
        """The exit code is known.  From any thread."""
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    @property
    def tty(self) -> bool:
        return self._channels.tty

    def fileno(self) -> int:
        return self._epoll.fileno()

    def read(self) -> list[tuple[int, bytes]] | None:
        found: list[tuple[int, bytes]] = []
        self._notice_exit()
        for fd, stream in list(self._open.items()):
            data = self._take(fd)
            if data:
                found.append((stream, data))
        if found:
            return found
        return [] if self._exited else None

    def _notice_exit(self) -> None:
        # Looked at before the pipes: what was written before the end is then surely in them.
        if not self._exited and any(fd == self._bell for fd, _ in self._epoll.poll(0)):
            self._exited = True

    def _take(self, fd: int) -> bytes:
        try:
            data = os.read(fd, _BATCH // 2)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""  # EIO: the terminal's other side is closed
        if not data:
            self._epoll.unregister(fd)
            del self._open[fd]
        return data

    def write(self, data: bytes) -> int:
        if self._channels.stdin < 0:
            return len(data)
        try:
            return os.write(self._channels.stdin, data[:_BATCH])
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def write_fileno(self) -> int | None:
        return self._channels.stdin if self._channels.stdin >= 0 else None

    def close_write(self) -> None:
        if not self.tty and self._channels.stdin >= 0:
            os.close(self._channels.stdin)
            self._channels.stdin = -1

    def close(self) -> None:
        with self._bell_lock:
            if self._bell < 0:
                return
            os.close(self._bell)
            self._bell = -1
        self.close_write()
        self._epoll.close()
        for fd in self._channels.outputs:
            if fd in self._open and not self._exited:
                self._abandon(fd)
            else:
                os.close(fd)


class RunningExec:
    """An `ExecProcess`."""

    def __init__(self, pid: int, child: process.Child, stream: ExecStream | None) -> None:
        self.pid = pid
        self._child = child
        self._stream = stream

    def stream(self) -> ExecStream | None:
        return self._stream

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size; nothing happens without a terminal or after the end."""
        if self._stream is None or not self._stream.tty:
            return
        with contextlib.suppress(OSError):
            size = struct.pack("HHHH", height, width, 0, 0)
            fcntl.ioctl(self._stream.write_fileno() or -1, termios.TIOCSWINSZ, size)
            # The runtime passes its terminal's size on when it is told that it changed.
            self._child.kill(signal.SIGWINCH)


@frozen
class ExecPlan:
    """One exec: where its files go, what to run, and the runtime's command line without them."""

    folder: str
    command: Sequence[str]  # [crun, --root, ...]
    container_id: str
    document: dict[str, object]  # the runtime-spec process object
    config: ExecConfig
    detach: bool
    timeout: float
    console_socket: bool  # the runtime can send a terminal without --detach

    @property
    def console(self) -> str:
        return f"{self.folder}/c" if self.console_socket and self.config.tty else ""


def start(
    plan: ExecPlan, launcher: Launcher, watcher: Watcher, on_exit: Callable[[int], None]
) -> RunningExec:
    """Start it; returns when the process runs.  Raises Docker's error when it can't be started."""
    os.makedirs(plan.folder, mode=0o700)
    channels = open_channels(plan.config, detach=plan.detach, console=plan.console)
    try:
        child = _spawn(plan, channels, launcher)
        channels.close_theirs()
        try:
            pid = _wait_started(plan, child, channels)
        except BaseException:
            child.kill()
            child.wait(10)
            child.close()
            raise
    except BaseException:
        channels.close_theirs()
        channels.close_ours()
        shutil.rmtree(plan.folder, ignore_errors=True)
        raise
    stream = None
    if plan.detach:
        for fd in channels.outputs:  # a terminal that nobody looks at
            watcher.drain(fd)
    else:
        stream = ExecStream(channels, watcher.drain)
    running = RunningExec(pid, child, stream)

    def ended(code: int) -> None:
        shutil.rmtree(plan.folder, ignore_errors=True)
        try:
            on_exit(code)
        finally:
            if stream is not None:
                stream.finish()

    watcher.add_child(child, ended)
    return running


def _spawn(plan: ExecPlan, channels: Channels, launcher: Launcher) -> process.Child:
    process_file = f"{plan.folder}/process.json"
    with open(process_file, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(plan.document, file, ensure_ascii=False)
    argv = [
        *plan.command, "--log", f"{plan.folder}/log", "--log-format", "json",
        "exec", "--pid-file", f"{plan.folder}/pid", "--process", process_file,
        *(["--console-socket", plan.console] if plan.console else []), plan.container_id,
    ]  # fmt: skip
    return launcher.call(lambda: process.spawn(argv, fds=channels.theirs, new_session=True))


def _wait_started(plan: ExecPlan, child: process.Child, channels: Channels) -> int:
    """The pid, once the runtime has written it: by then the program has been found and started."""
    deadline = time.monotonic() + plan.timeout
    watch = syscalls.inotify_init()
    try:
        mask = syscalls.IN_CLOSE_WRITE | syscalls.IN_MOVED_TO
        syscalls.inotify_add_watch(watch, plan.folder, mask)
        poller = select.poll()
        poller.register(watch, select.POLLIN)
        poller.register(child.pidfd, select.POLLIN)
        console = channels.console.fileno() if channels.console else -1
        if console >= 0:
            poller.register(console, select.POLLIN)
        while True:
            ended = child.poll() is not None if _ready(child.pidfd) else False
            pid = _read_pid(plan.folder)
            if pid and channels.receive_terminal(1.0):
                return pid
            if ended:
                raise translate.exec_error(_read_log(plan.folder), plan.config.cmd)
            left = deadline - time.monotonic()
            if left <= 0:
                raise deadline_exceeded("timed out while starting the exec")
            if channels.console is not None and channels.receive_terminal(0):
                poller.unregister(console)
            poller.poll(left * 1000)
            syscalls.inotify_read(watch)
    finally:
        os.close(watch)


def _ready(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _read_pid(folder: str) -> int:
    try:
        with open(f"{folder}/pid", encoding="ascii") as file:
            return int(file.read() or 0)
    except (OSError, ValueError):
        return 0


def _read_log(folder: str) -> str:
    try:
        with open(f"{folder}/log", encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""
