"""The pump between a hijacked connection and a container's standard streams."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from agent.errors import EngineError
from agent.server.answers import pulled
from agent.server.channel import Channel
from agent.server.limits import Limits
from agent.server.readiness import readable, writable
from agent.wire import frames
from agent.wire.detach import DetachFilter
from agent.wire.http import Hijack, printable

_log = logging.getLogger("agent.server")
_RETRY: Final = 0.05  # seconds between writes to a duplex that cannot say when it is writable


class _DetachedError(Exception):
    """The attachment ends though the container goes on."""


class HijackPump:
    """Runs one hijacked connection to its end.

    The container's end of output ends the connection. The client's end of input is passed on, and
    output goes on. The client's death, or the detach keys, end the attachment only. A client that
    takes no output holds up the container, as a pipe's reader does, but only for `Limits.stall`
    seconds where the answer says so (case 93): then its streams are given back, and it finds a
    notice behind what it had not read.
    """

    def __init__(self, channel: Channel, hijack: Hijack, leftover: bytes, limits: Limits) -> None:
        self._channel = channel
        self._hijack = hijack
        self._duplex = hijack.duplex
        self._leftover = leftover
        self._limits = limits
        self._closed = False
        self._let_go = False
        self._input_task: asyncio.Future[None] | None = None
        self._sends = 0  # that were begun
        self._sending = False

    async def run(self, head: bytes) -> None:
        """Sends `head`, pumps, and closes duplex and channel on every path."""
        try:
            try:
                await self._channel.send(head)
                await self._pump()
            except _DetachedError as end:
                _log.debug("attachment ended: %s", end)
            finally:
                self._close_streams()
            await self._channel.finish(self._limits.linger)
        except ConnectionError as error:
            _log.debug("hijacked client has gone: %s", error)
        finally:
            self._channel.abort()

    def _close_streams(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._duplex.close()
        if self._hijack.logs_first is not None:
            self._hijack.logs_first.close()

    async def _pump(self) -> None:
        """Raises ConnectionError, _DetachedError."""
        output = asyncio.ensure_future(self._output())
        self._input_task = asyncio.ensure_future(self._input())
        pending = {
            output,
            self._input_task,
            asyncio.ensure_future(self._watch()),
        }
        try:
            while not output.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not task.cancelled():  # the input of a client that was let go
                        task.result()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _output(self) -> None:
        if self._hijack.logs_first is not None:
            async for data in pulled(self._hijack.logs_first):
                await self._channel.send(data)
        while not self._let_go:
            pieces = self._read()
            if pieces is None:
                await readable(self._duplex.fileno())
                continue
            if not pieces:
                return
            if self._duplex.tty:
                await self._send(b"".join(data for _, data in pieces))
            else:
                await self._send(frames.encode_all(pieces))
            # A talkative container and a quick client would else never let anyone else run.
            await asyncio.sleep(0)
        await self._channel.send(self._hijack.stall_notice)

    async def _send(self, data: bytes) -> None:
        self._sends += 1
        self._sending = True
        await self._channel.send(data)
        self._sending = False

    def _read(self) -> list[tuple[int, bytes]] | None:
        try:
            return self._duplex.read()
        except (EngineError, OSError) as error:
            _log.warning("reading a container's output failed: %s", printable(str(error)))
            return []

    async def _input(self) -> None:
        keys = self._hijack.detach_keys if self._duplex.tty else b""
        detach = DetachFilter(keys)
        data, self._leftover = self._leftover, b""
        while data or (data := await self._channel.recv()):
            if self._hijack.stdin:
                taken, detached = detach.feed(data)
                await self._write(taken)
                if detached:
                    raise _DetachedError("detach keys")
            data = b""
        if self._hijack.stdin:
            await self._write(detach.finish())
            self._duplex.close_write()

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                taken = self._duplex.write(bytes(view))
            except (EngineError, OSError) as error:
                _log.debug("writing a container's input failed: %s", printable(str(error)))
                return  # its output may still matter
            view = view[taken:]
            if view:
                await self._writable()

    async def _writable(self) -> None:
        fd = self._duplex.write_fileno()
        if fd is None:
            await asyncio.sleep(_RETRY)
        else:
            await writable(fd)

    async def _watch(self) -> None:
        """A client that half-closed, or whose input nobody takes, dies without a read telling."""
        loop = asyncio.get_running_loop()
        seen, since = self._progress(), loop.time()
        while not self._channel.peer_vanished():
            await asyncio.sleep(self._limits.liveness)
            now = self._progress()
            if now != seen or not self._sending:
                seen, since = now, loop.time()
            elif self._hijack.stall_notice and loop.time() - since >= self._limits.stall:
                await self._detach()
        raise ConnectionResetError("client vanished")

    def _progress(self) -> tuple[int, int]:
        """Changes whenever the client takes something."""
        return self._sends, self._channel.raw.unsent()

    async def _detach(self) -> None:
        """Gives the streams back; what the client had not read stays here, a bounded piece."""
        if self._let_go:
            return
        self._let_go = True
        _log.warning("an attached client takes no output: it is detached, the container goes on")
        if self._input_task is not None:
            self._input_task.cancel()
            await asyncio.gather(self._input_task, return_exceptions=True)
        self._close_streams()
