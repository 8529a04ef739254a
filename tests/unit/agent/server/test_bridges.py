"""The pipes between the loop and worker threads, and the listener's small parts."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from agent.errors import EngineError, Kind, invalid
from agent.server.bridges import DownloadPipe, UploadPipe
from agent.server.listeners import inherited_fds


def test_upload_arrives_in_order_with_back_pressure():
    async def run() -> tuple[bytes, int]:
        pipe = UploadPipe(1000)
        loop = asyncio.get_running_loop()
        data = os.urandom(20_000)
        largest = 0

        def consume() -> bytes:
            got = b""
            while piece := pipe.read(333):
                got += piece
            return got

        future = loop.run_in_executor(None, consume)
        for start in range(0, len(data), 400):
            await pipe.put(data[start : start + 400])
            largest = max(largest, pipe._size)
        pipe.end()
        assert await future == data
        return data, largest

    _, largest = asyncio.run(run())
    assert largest <= 1400


def test_upload_error_reaches_the_reader_after_the_data():
    async def run() -> None:
        pipe = UploadPipe(1000)
        await pipe.put(b"abc")
        pipe.end(invalid("cut"))
        pipe.end()
        assert pipe.read(2) == b"ab"
        assert pipe.read(2) == b"c"
        for _ in range(2):
            with pytest.raises(EngineError, match="cut"):
                pipe.read(2)

    asyncio.run(run())


def test_upload_nobody_wants_does_not_block():
    async def run() -> None:
        pipe = UploadPipe(10)
        blocked = asyncio.ensure_future(pipe.put(b"x" * 100))
        await asyncio.sleep(0)
        assert not blocked.done()
        pipe.end()
        await asyncio.wait_for(blocked, 1)
        await asyncio.wait_for(pipe.put(b"x" * 100), 1)

    asyncio.run(run())


def chunks(count: int, closed: threading.Event, error: Exception | None = None):
    try:
        for number in range(count):
            yield b"%d," % number
        if error is not None:
            raise error
    finally:
        closed.set()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(None, None), (invalid("x"), Kind.INVALID), (RuntimeError("secret"), Kind.INTERNAL)],
)
def test_download(error, kind):
    async def run() -> None:
        pipe, closed = DownloadPipe(50), threading.Event()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, pipe.produce, chunks(500, closed, error))
        got = b""
        try:
            while data := await asyncio.wait_for(pipe.get(), 5):
                got += data
            caught = None
        except EngineError as raised:
            caught = raised
        assert got == b"".join(b"%d," % number for number in range(500))
        assert (caught.kind if caught else None) is kind
        assert caught is None or "secret" not in caught.message
        await future
        assert closed.is_set()

    asyncio.run(run())


def test_download_stops_with_the_client():
    async def run() -> None:
        pipe, closed = DownloadPipe(50), threading.Event()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, pipe.produce, chunks(10**9, closed))
        await pipe.get()
        pipe.stop()
        await asyncio.wait_for(future, 5)
        assert closed.is_set()

    asyncio.run(run())


def test_inherited_fds():
    assert inherited_fds({"LISTEN_FDS": "2", "LISTEN_PID": "7"}, 7) == (3, 4)
    assert inherited_fds({"LISTEN_FDS": "2", "LISTEN_PID": "8"}, 7) == ()
    assert inherited_fds({"LISTEN_FDS": "x", "LISTEN_PID": "7"}, 7) == ()
    assert inherited_fds({}, 7) == ()
