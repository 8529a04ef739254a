"""A build's progress as the answer's lines (JSONMessage documents)."""

from __future__ import annotations

import queue
import threading

from agent.api.backend import Builds
from agent.api.schema.images import progress_line
from agent.engine.building import BuildRequest, CommandFailedError
from agent.engine.model import Progress
from agent.errors import EngineError, internal
from agent.wire import jsonlines
from agent.wire.http import Body

_QUEUE = 256  # lines that a slow client may be behind
_LOOK_AGAIN = 0.2  # seconds between looks at whether the client has gone
_TEXT = 16 << 10  # characters of output in one line


class BuildLines:
    """An iterator of lines; the build runs on a thread of its own.

    It is also the build's output.  An error that comes before anything was said becomes the
    answer's status, a later one its last line, with the command's exit code where there is one.
    """

    def __init__(self, builds: Builds, request: BuildRequest, body: Body) -> None:
        self._builds = builds
        self._request = request
        self._body = body
        self._closed = threading.Event()
        self._lines: queue.Queue[bytes | EngineError | None] = queue.Queue(_QUEUE)
        self._thread: threading.Thread | None = None
        self._held: list[bytes] = []  # of a quiet build: shown when it fails
        self._said = False

    # --------------------------------------------------------------------------------- BuildOutput

    def stream(self, text: str) -> None:
        for start in range(0, len(text), _TEXT):
            self._say(jsonlines.encode({"stream": text[start : start + _TEXT]}))

    def progress(self, one: Progress) -> None:
        self._say(jsonlines.encode(progress_line(one)))

    def aux(self, image_id: str) -> None:
        self._say(jsonlines.encode({"aux": {"ID": image_id}}))

    def _say(self, line: bytes) -> None:
        if self._request.quiet:
            self._held.append(line)
            del self._held[:-1000]
            return
        self._put(line)

    # ------------------------------------------------------------------------------------- thread

    def _gone(self) -> bool:
        return self._closed.is_set() or self._body.gone.is_set()

    def _run(self) -> None:
        # Said when the thread dies of a defect: the iterator must end, and not as a success.
        last: EngineError | None = internal("the build failed unexpectedly (see the agent's log)")
        try:
            image_id = self._builds.build(self._request, self._body.reader, self, self._gone)
            if self._request.quiet:
                self._put(jsonlines.encode({"stream": f"{image_id}\n"}))
            last = None
        except EngineError as error:
            last = error
            for line in self._held:
                self._put(line)
        finally:
            self._put(last)

    def _put(self, line: bytes | EngineError | None) -> None:
        while not self._gone():
            try:
                self._lines.put(line, timeout=_LOOK_AGAIN)
            except queue.Full:
                continue
            return

    # ------------------------------------------------------------------------------------ iterator

    def __iter__(self) -> BuildLines:
        return self

    def __next__(self) -> bytes:
        if self._closed.is_set():
            raise StopIteration
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="build", daemon=True)
            self._thread.start()
        line = self._next_line()
        if isinstance(line, bytes):
            self._said = True
            return line
        self._closed.set()
        if line is None:
            raise StopIteration
        if self._said and isinstance(line, CommandFailedError):
            return _failure(line)
        raise line

    def _next_line(self) -> bytes | EngineError | None:
        while not self._gone():
            try:
                return self._lines.get(timeout=_LOOK_AGAIN)
            except queue.Empty:
                continue
        return None

    def close(self) -> None:
        self._closed.set()


def _failure(error: CommandFailedError) -> bytes:
    detail = {"code": error.code, "message": error.message}
    return jsonlines.encode({"errorDetail": detail, "error": error.message})
