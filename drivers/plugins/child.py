"""The running plugin binary: the address that it says, its lines, whether the port is its own."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from drivers.errors import DriverError

START_SECONDS: Final = 10.0  # docker-machine's own patience for the address
END_SECONDS: Final = 3.0  # from Close to the end of the process
_LINE: Final = 8192  # bytes; a longer one is cut
_KEPT: Final = 20  # last lines of standard error, for the message when it dies
_CHUNK: Final = 65536
_LISTENING: Final = "0A"  # TCP_LISTEN in /proc/net/tcp


class Running(Protocol):
    """A program left running in a process group of its own, without stdin."""

    @property
    def pid(self) -> int: ...

    @property
    def outputs(self) -> tuple[int, int]:
        """Descriptors of its standard output and error, which do not block."""

    def ended(self, timeout: float) -> bool:
        """Whether it ends by itself within `timeout` seconds."""

    def close(self) -> None:
        """End its whole group if it still runs, and forget it."""


class Spawner(Protocol):
    """What the command's Runner can do besides running a program to its end."""

    def spawn(self, argv: Sequence[str], env: Mapping[str, str]) -> Running:
        """Start with `env` added to the environment. Raises DriverError."""


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """A plugin that was started: its process and where it listens."""

    pid: int
    address: str


@dataclasses.dataclass
class _Stream:
    """Bytes to lines."""

    tell: Callable[[str], None]
    rest: bytes = b""

    def feed(self, data: bytes) -> None:
        *lines, rest = (self.rest + data).split(b"\n")
        self.rest = rest[:_LINE]
        for line in lines:
            self.tell(line[:_LINE].decode("utf-8", "replace").rstrip("\r"))


class Child:
    """One running binary. `say` gets what it writes to stdout after the address, `log` stderr."""

    def __init__(
        self, running: Running, say: Callable[[str], None], log: Callable[[str], None]
    ) -> None:
        self._running = running
        self._say, self._log = say, log
        self._address = ""
        self._last: list[str] = []
        self._selector = selectors.DefaultSelector()
        out, err = running.outputs
        self._selector.register(out, selectors.EVENT_READ, _Stream(self._stdout))
        self._selector.register(err, selectors.EVENT_READ, _Stream(self._stderr))

    @property
    def identity(self) -> Identity:
        """For `still_there`, in a later run of the command."""
        return Identity(self._running.pid, self._address)

    def connect(self) -> socket.socket:
        """Wait for its address and connect at once. Raises DriverError."""
        address = self._first_line()
        host, port = loopback(address)
        if not owns(self._running.pid, host, port):
            raise DriverError(f"{address} is not the plugin's own port")
        try:
            return socket.create_connection((host, port), timeout=START_SECONDS)
        except OSError as err:
            raise DriverError(f"the plugin does not answer at {address}: {err}") from err

    def _first_line(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while True:
            left = deadline - time.monotonic()
            self.wait(None, left)
            if self._address:
                return self._address
            if left <= 0:
                raise DriverError(
                    f"the plugin said no address within {START_SECONDS:.0f} s{self.last_words()}"
                )
            if not self._selector.get_map():
                raise DriverError(f"the plugin ended before it said its address{self.last_words()}")

    def wait(self, sock: socket.socket | None, seconds: float) -> bool:
        """Whether there is something on `sock` within `seconds`; passes on lines meanwhile.

        Returns early, with False, when lines came.
        """
        if sock is not None and sock.fileno() not in self._selector.get_map():
            self._selector.register(sock, selectors.EVENT_READ, None)
        found = False
        for key, _ in self._selector.select(max(0.0, seconds)):
            if isinstance(key.data, _Stream):
                self._take(key.fd, key.data)
            else:
                found = True
        return found

    def last_words(self) -> str:
        """What it wrote to stderr at last, to be appended to a message."""
        return "".join(f"\n  {line}" for line in self._last)

    def close(self, *, orderly: bool) -> None:
        """`orderly`: it was told to end and is given time; what it left running on purpose stays."""
        if orderly:
            self._running.ended(END_SECONDS)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Stream):
                self._take(key.fd, key.data)
        self._selector.close()
        self._running.close()

    def _take(self, fd: int, stream: _Stream) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        if data:
            stream.feed(data)
        else:
            self._selector.unregister(fd)

    def _stdout(self, line: str) -> None:
        if self._address:
            self._say(line)
        else:
            self._address = line.strip()[:100]

    def _stderr(self, line: str) -> None:
        self._last = [*self._last, line][-_KEPT:]
        self._log(line)


def loopback(address: str) -> tuple[str, int]:
    """`127.0.0.1:PORT` taken apart. Raises DriverError for anything that is not this computer."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if not ipaddress.ip_address(host).is_loopback:
            raise DriverError(f"the plugin listens at {address[:60]!r}, not on the loopback")
        number = int(port)
    except ValueError:
        raise DriverError(f"the plugin's first line is no address: {address[:60]!r}") from None
    if not 0 < number < 65536:
        raise DriverError(f"the plugin's first line is no address: {address[:60]!r}")
    return host, number


def owns(pid: int, host: str, port: int, proc: Path = Path("/proc")) -> bool:
    """Whether the listener at that address is of `pid` or its process group.

    Only Linux says; elsewhere True, and what remains is that we connect at once.
    """
    table = proc / str(pid) / "net" / ("tcp6" if ":" in host else "tcp")
    try:
        rows = table.read_text().splitlines()[1:]
    except OSError:
        return not (proc / "self").exists()
    wanted = _as_in_proc(host, port)
    sockets = {
        f"socket:[{row[9]}]"
        for row in map(str.split, rows)
        if len(row) > 9 and row[1] == wanted and row[3] == _LISTENING
    }
    return any(_holds(proc / str(one), sockets) for one in _group(pid, proc))


def still_there(plugin: Identity) -> bool:
    """Whether that plugin still runs. One whose command died ends itself after ten seconds."""
    try:
        host, port = loopback(plugin.address)
        socket.create_connection((host, port), timeout=1.0).close()
    except (DriverError, OSError):
        return False
    return owns(plugin.pid, host, port)


def _as_in_proc(host: str, port: int) -> str:
    """Addresses stand there as the machine's words: little endian, in hexadecimal."""
    packed = ipaddress.ip_address(host).packed
    words = [packed[i : i + 4][::-1].hex() for i in range(0, len(packed), 4)]
    return f"{''.join(words)}:{port:04x}".upper()


def _group(pid: int, proc: Path) -> Iterator[int]:
    """The processes of the group that `pid` leads: a binary may be started by a script."""
    yield pid
    for entry in proc.iterdir():
        if entry.name.isdecimal() and entry.name != str(pid):
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            if after_name[2:3] == [str(pid)]:
                yield int(entry.name)


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir())
    except OSError:
        return False
