"""Attach: before a start (`docker run` attaches first), while running, with logs replayed.

An attachment to a container that does not run waits: its descriptor is an epoll set that holds an
eventfd, and `bind`, called by the start between runtime.create and runtime.start, puts the
runtime's stream into the set.  So no output is lost and the descriptor never changes.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable

from agent.api.backend import AttachRequest
from agent.engine.bell import Bell
from agent.engine.model import Container
from agent.errors import EngineError
from agent.wire.streams import STDERR, STDIN, STDOUT, Duplex, PullStream

_HEADER = 8
Output = list[tuple[int, bytes]]


class Attachment:
    """A Duplex that is bound to the runtime's later; selects streams, and replays a log first."""

    def __init__(
        self,
        container: Container,
        request: AttachRequest,
        logs: PullStream | None = None,
        forget: Callable[[Attachment], None] | None = None,
    ) -> None:
        config = container.config
        self._tty = config.tty
        self._stdin = request.stdin and config.open_stdin
        self._live = request.stream
        self._closes_stdin = config.stdin_once and not config.tty
        wanted = {STDOUT} if request.stdout else set()
        self._wanted = wanted | ({STDERR} if request.stderr else set())
        self._logs = None if logs is None else _Replay(logs, tty=self._tty)
        self._forget = forget
        self._lock = threading.Lock()
        self._bell = Bell()
        self._epoll = select.epoll()
        self._epoll.register(self._bell.fileno(), select.EPOLLIN)
        self._inner: Duplex | None = None
        self._stdin_ended = False
        self._ended = not self._live
        self._closed = False
        if self._logs is not None:
            self._epoll.register(self._logs.fileno(), select.EPOLLIN)
            self._bell.ring()

    @property
    def tty(self) -> bool:
        return self._tty

    def bind(self, duplex: Duplex) -> None:
        """The container is made: from now on this is its stream."""
        with self._lock:
            if self._closed or self._inner is not None:
                duplex.close()
                return
            self._inner = duplex
            self._epoll.register(duplex.fileno(), select.EPOLLIN)
            if self._stdin_ended:
                duplex.close_write()
            self._bell.ring()

    def end(self) -> None:
        """The container will not run: the client sees the end of the streams."""
        with self._lock:
            self._ended = True
            self._bell.ring()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def read(self) -> Output | None:
        self._bell.reset()
        if self._logs is not None:
            return self._replay(self._logs)
        with self._lock:
            inner, ended = self._inner, self._ended
        if inner is None:
            return [] if ended else None
        found = inner.read()
        if not found:
            return found
        return [one for one in found if self._tty or one[0] in self._wanted] or None

    def _replay(self, logs: _Replay) -> Output | None:
        found = logs.read()
        if found == []:
            self._epoll.unregister(logs.fileno())
            logs.close()
            self._logs = None
            self._bell.ring()  # the loop must look again: live output may be there already
            return None
        return found

    def write(self, data: bytes) -> int:
        if not self._stdin or self._stdin_ended:
            return len(data)
        with self._lock:
            inner, ended = self._inner, self._ended
        if inner is None:
            return len(data) if ended else 0
        return inner.write(data)

    def write_fileno(self) -> int | None:
        with self._lock:
            return None if self._inner is None else self._inner.write_fileno()

    def close_write(self) -> None:
        """Ends the container's stdin only if it was made for one client (StdinOnce), as docker."""
        if not (self._stdin and self._closes_stdin):
            return
        with self._lock:
            if self._stdin_ended:
                return
            self._stdin_ended = True
            if self._inner is not None:
                self._inner.close_write()

    def close(self) -> None:
        self.close_write()  # a client that goes away has also ended its input
        with self._lock:
            if self._closed:
                return
            self._closed = True
            inner = self._inner
        if self._forget is not None:
            self._forget(self)
        self._epoll.close()
        self._bell.close()
        if self._logs is not None:
            self._logs.close()
        if inner is not None:
            inner.close()


class _Replay:
    """A container's log as pieces of (stream, bytes): takes the frame headers off again."""

    def __init__(self, logs: PullStream, *, tty: bool) -> None:
        self._logs = logs
        self._tty = tty
        self._rest = b""

    def fileno(self) -> int:
        return self._logs.fileno()

    def close(self) -> None:
        self._logs.close()

    def read(self) -> Output | None:
        piece = self._logs.read()
        if not piece:
            return None if piece is None else []
        if self._tty:
            return [(STDOUT, piece)]
        self._rest += piece
        found: Output = []
        while len(self._rest) >= _HEADER:
            size = int.from_bytes(self._rest[4:_HEADER])
            if len(self._rest) < _HEADER + size:
                break
            stream = self._rest[0] if self._rest[0] in {STDIN, STDOUT, STDERR} else STDOUT
            found.append((stream, self._rest[_HEADER : _HEADER + size]))
            self._rest = self._rest[_HEADER + size :]
        return found or None


class Attachments:
    """Those who wait for a container's start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Attachment]] = {}

    def add(
        self, container: Container, request: AttachRequest, logs: PullStream | None
    ) -> Attachment:
        """Call with the container's lock held."""
        identity = container.id

        def forget(attachment: Attachment) -> None:
            with self._lock, contextlib.suppress(KeyError, ValueError):
                self._waiting[identity].remove(attachment)

        attachment = Attachment(container, request, logs, forget)
        with self._lock:
            self._waiting.setdefault(identity, []).append(attachment)
        return attachment

    def bind(self, identity: str, attach: Callable[[str], Duplex]) -> None:
        """Binds everyone who waits; `attach` is the runtime's.  Raises what it raises."""
        with self._lock:
            waiting = self._waiting.pop(identity, [])
        try:
            for attachment in waiting:
                attachment.bind(attach(identity))
        except EngineError:
            for attachment in waiting:
                attachment.end()
            raise

    def end(self, identity: str) -> None:
        """The start failed, or the container was removed."""
        with self._lock:
            waiting = self._waiting.pop(identity, [])
        for attachment in waiting:
            attachment.end()


class Message:
    """A Duplex that only says something: a failed exec's error, as Docker Engine shows it."""

    def __init__(self, text: bytes, *, tty: bool) -> None:
        self._pieces: list[Output] = [[(STDOUT, text)]]
        self._tty = tty
        self._bell = Bell()
        self._bell.ring()

    @property
    def tty(self) -> bool:
        return self._tty

    def fileno(self) -> int:
        return self._bell.fileno()

    def read(self) -> Output | None:
        return self._pieces.pop() if self._pieces else []

    def write(self, data: bytes) -> int:
        return len(data)

    def write_fileno(self) -> int | None:
        return None

    def close_write(self) -> None:
        """Nothing reads."""

    def close(self) -> None:
        self._bell.close()
