"""How blocking code below hands long-lived streams to the event loop, without holding a worker.

The rules here are normative. Each method of `PullStream` and `Duplex` is called on the event
loop's thread, one call at a time, and must never block, nor take a lock that another thread may
hold for long. Each descriptor must be pollable (pipe, socket, eventfd, inotify, timerfd, epoll -
an epoll descriptor is itself pollable, so several sources can be merged into one; a regular file
is not pollable) and must stay the same open descriptor until `close()`.

The loop waits level-triggered: after `read()` has returned None the descriptor must not stay
readable, or the loop spins. So an implementation that learns by eventfd resets it before it looks
for data (reset, then look: the other order loses wake-ups). Being readable with nothing to read
(a spurious wake-up) is allowed now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

STDIN = 0
STDOUT = 1
STDERR = 2


class PullStream(Protocol):
    """A stream of bytes that the loop pulls: logs -f, events, stats, wait.

    Order: any number of `read()`, then exactly one `close()`, on every path, also after an error
    and after the end. What is kept for a slow reader must be bounded (1 MiB): the loop does not
    call `read()` while the client takes nothing.
    """

    def fileno(self) -> int:
        """A descriptor that is readable when `read()` may return something other than None."""

    def read(self) -> bytes | None:
        """What there is now, at most about 64 KiB; None = nothing now; b"" = end of the stream.

        Each returned piece is sent to the client at once, as one HTTP chunk. Raises EngineError
        when the source has failed: the response is then cut off (the client sees an unfinished
        body), since its status has been sent already.
        """

    def close(self) -> None:
        """Releases everything. Called once; the client may be gone, or the stream at its end."""


class Duplex(Protocol):
    """A container's standard streams, attached: attach and exec.

    Closing any of it never signals or ends the process; detaching is closing.
    """

    @property
    def tty(self) -> bool:
        """True: output is one raw stream. False: the loop frames it (8-byte headers)."""

    def fileno(self) -> int:
        """A descriptor that is readable when output came, or the stream's state changed."""

    def read(self) -> list[tuple[int, bytes]] | None:
        """Output in order: (STDOUT or STDERR, bytes); None = nothing now; [] = ended.

        At most about 64 KiB together. "Ended" means that every output stream is at its end (the
        process has gone and nothing is left to read): the connection is then closed cleanly.
        """

    def write(self, data: bytes) -> int:
        """Takes input for the process; returns how many bytes were taken, 0 = would block.

        A process that reads no more (EPIPE, or no stdin at all) takes all bytes and drops them:
        that must not end the output side.
        """

    def write_fileno(self) -> int | None:
        """A descriptor to await writability on after `write()` took less than it was given.

        None: there is no such descriptor; the loop tries again after a short while.
        """

    def close_write(self) -> None:
        """The client's end of input. Output goes on. Called at most once, never after close()."""

    def close(self) -> None:
        """Releases everything. Called once, on every path; the process is left alone."""


class ChunkSource(Iterator[bytes], Protocol):
    """What a `BlockingStream` is produced by; every generator of bytes is one.

    Runs on a worker thread, and may block. `close()` is called on that same thread when the
    client has gone, and is harmless after the end.
    """

    def close(self) -> None: ...


class BodyReader(Protocol):
    """A request body as a file, for code on a worker thread (tar uploads, build contexts)."""

    def read(self, size: int = 65536, /) -> bytes:
        """Blocks for 1 to `size` bytes; b"" = the body is complete.

        May return fewer bytes than asked for. Raises EngineError (CANCELLED or INVALID) when the client
        broke off or the body is malformed: it is never cut off silently.
        """


class Gone(Protocol):
    """Set when the client has gone or the engine is stopping (`threading.Event` is one).

    For workers: look at it between steps of anything long, or wait on it with a timeout in place
    of a plain sleep.
    """

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...
