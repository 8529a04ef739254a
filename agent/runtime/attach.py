"""A container's stdio through conmon's attach socket, as an `agent.wire.streams.Duplex`.

SOCK_SEQPACKET: each packet out is one byte (2 stdout, 3 stderr) and up to 8 KiB of output; what is
written goes to the container's stdin; shutdown(SHUT_WR) is stdin's end.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Protocol

from agent.errors import internal
from agent.values import frozen

_PACKET = 8193 + 32768  # conmon sends at most 8193 bytes a packet; newer ones may send more
_CHUNK = 16384  # conmon reads 32 KiB at a time; measured intact, 276 MB/s
_BATCH = 65536
_PARKED_PACKETS = 512  # more than the kernel queues on one socket
_STREAMS = {2: 1, 3: 2}


class Drain(Protocol):
    """Who reads on for those that have gone: the watcher."""

    def park(self, container_id: str, fd: int, *, keep: bool) -> None: ...

    def unpark(self, container_id: str) -> int | None: ...


@frozen
class Parking:
    """The connections of one container to conmon that outlive their clients.

    conmon notices that a client has gone only when it writes to it: of a silent container it would
    keep a descriptor for each.  So a connection stays, and the next client takes it over: there are
    never more of them than clients at one time.  It is closed when output comes, which conmon then
    notices.

    `keep`: not even then, but read and dropped.  For StdinOnce conmon ends the container's stdin
    when any of its clients goes, also one that never had stdin.
    """

    container_id: str
    drain: Drain
    keep: bool


class ConmonAttach:
    """One attached client.  Several may be attached at once; each gets all output from then on."""

    def __init__(
        self, bundle: str, *, tty: bool, stdin: bool, parking: Parking | None = None
    ) -> None:
        """`parking`: closing does not end the connection, only `close_write` does."""
        self._tty = tty
        self._stdin = stdin
        self._parking = parking
        self._ended = False
        self._socket = _parked(parking) or _connect(f"{bundle}/attach")

    @property
    def tty(self) -> bool:
        return self._tty

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[tuple[int, bytes]] | None:
        found: list[tuple[int, bytes]] = []
        size = 0
        while size < _BATCH and not self._ended:
            try:
                packet = self._socket.recv(_PACKET)
            except BlockingIOError:
                return found or None
            except OSError:
                packet = b""  # reset: conmon has gone
            if not packet:
                self._ended = True
                break
            stream = _STREAMS.get(packet[0])
            if stream is None:
                continue
            if found and found[-1][0] == stream:
                found[-1] = (stream, found[-1][1] + packet[1:])
            else:
                found.append((stream, packet[1:]))
            size += len(packet)
        return found

    def write(self, data: bytes) -> int:
        if not self._stdin:
            return len(data)
        try:
            return self._socket.send(data[:_CHUNK])
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # nobody reads any more: taken and dropped

    def write_fileno(self) -> int | None:
        return self._socket.fileno()

    def close_write(self) -> None:
        self._parking = None
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._parking is not None and not self._ended:
            parking, fd = self._parking, self._socket.detach()
            parking.drain.park(parking.container_id, fd, keep=parking.keep)
        else:
            self._socket.close()


def _parked(parking: Parking | None) -> socket.socket | None:
    """A connection whose client has gone, empty: what came before is not this client's."""
    fd = parking.drain.unpark(parking.container_id) if parking else None
    if fd is None:
        return None
    found = socket.socket(fileno=fd)
    found.settimeout(0)
    with contextlib.suppress(OSError):
        for _ in range(_PARKED_PACKETS):
            if not found.recv(_PACKET):
                break
    return found


def _connect(path: str) -> socket.socket:
    """Connect through a descriptor of the folder: sun_path holds only 107 bytes."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)
        connection.settimeout(0)
    except OSError as error:
        connection.close()
        raise internal(f"cannot attach to the container: {error.strerror}") from error
    return connection
