"""An exec's streams before the exec runs.

Docker Engine answers `101 UPGRADED` first and starts the process then; so do we.  It matters:
docker-py reads the answer's head through a buffer and the stream past it, and loses output that
comes together with the head.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable

from agent.engine.bell import Bell
from agent.errors import EngineError
from agent.wire.streams import STDOUT, Duplex


class DeferredDuplex:
    """A `Duplex` that calls `start` (blocking, on a thread of its own) at its first read.

    The server reads only after it has sent the head.  An error of `start` becomes text on the
    stream, as Docker Engine shows it.  `tty` decides how the client is sent output.
    """

    def __init__(self, start: Callable[[], Duplex | None], *, tty: bool) -> None:
        self._start = start
        self._tty = tty
        self._lock = threading.Lock()
        self._bell = Bell()
        self._epoll = select.epoll()
        self._epoll.register(self._bell.fileno(), select.EPOLLIN)
        self._begun = False
        self._inner: Duplex | None = None
        self._ended = False
        self._text = b""
        self._input_ended = False
        self._closed = False

    @property
    def tty(self) -> bool:
        return self._tty

    def fileno(self) -> int:
        return self._epoll.fileno()

    def _run(self) -> None:
        duplex, text = None, b""
        try:
            duplex = self._start()
        except EngineError as error:
            text = f"{error.message}\r\n".encode()
        finally:
            # Also when the thread dies of a defect: the client must see an end.
            self._bind(duplex, text)

    def _bind(self, duplex: Duplex | None, text: bytes) -> None:
        with self._lock:
            if self._closed:
                if duplex is not None:
                    duplex.close()
                return
            self._inner, self._text, self._ended = duplex, text, duplex is None
            if duplex is not None:
                self._epoll.register(duplex.fileno(), select.EPOLLIN)
                if self._input_ended:
                    duplex.close_write()
            self._bell.ring()

    def read(self) -> list[tuple[int, bytes]] | None:
        self._bell.reset()
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._run, name="exec", daemon=True).start()
            return None
        with self._lock:
            inner, ended, text, self._text = self._inner, self._ended, self._text, b""
        if text:
            self._bell.ring()  # the end comes with the next read
            return [(STDOUT, text)]
        if inner is not None:
            return inner.read()
        return [] if ended else None

    def write(self, data: bytes) -> int:
        with self._lock:
            inner, ended = self._inner, self._ended
        if inner is None:
            return len(data) if ended else 0
        return inner.write(data)

    def write_fileno(self) -> int | None:
        with self._lock:
            return None if self._inner is None else self._inner.write_fileno()

    def close_write(self) -> None:
        with self._lock:
            self._input_ended = True
            if self._inner is not None:
                self._inner.close_write()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            inner = self._inner
        self._epoll.close()
        self._bell.close()
        if inner is not None:
            inner.close()
