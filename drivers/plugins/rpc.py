"""Go's net/rpc as a client: requests by number over one stream, answers in any order.

One thread does all: while it waits for an answer it passes on what the plugin prints, and sends
the heartbeats without which a plugin ends itself.
"""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from drivers.errors import DriverError, TransientError
from drivers.plugins import gob

Wait = Callable[[socket.socket, float], bool]  # whether there is something to read by then

REQUEST: Final = gob.Struct("Request", (("ServiceMethod", gob.STRING), ("Seq", gob.UINT)))
EMPTY: Final = gob.Struct("")
_GREETING: Final = b"CONNECT /_goRPC_ HTTP/1.0\n\n"
_WELCOME: Final = "200 Connected to Go RPC"
_HEADERS: Final = 4096  # bytes of the answer to the greeting
HEARTBEAT: Final = 4.0  # seconds; a plugin ends itself after ten without one
OLD_HEARTBEAT: Final = 0.2  # before docker-machine 0.5.1 it was half a second
_PENDING: Final = 3  # heartbeats and questions without an answer: then it is not asked more


class RpcError(Exception):
    """The other side's error: only a text, as net/rpc has it."""


class HangupError(Exception):
    """The connection has ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Aside:
    """A question to ask with every heartbeat of a long call, and who hears the answer."""

    method: str
    hear: Callable[[object], None]


class Client:
    """One connection. `wait` is Child.wait; after any exception but RpcError it is of no use."""

    def __init__(self, sock: socket.socket, wait: Wait) -> None:
        self._sock = sock
        self._wait = wait
        self._encoder = gob.Encoder()
        self._decoder = gob.Decoder(self)
        self._buffer = b""
        self._sequence = 0
        self._answers: dict[int, tuple[str, object]] = {}
        self._asides: dict[int, Callable[[object], None]] = {}
        self._aside: Aside | None = None
        self._deadline = 0.0
        self._doing = ""
        self._beaten = time.monotonic()
        self.service = "RPCServerDriver"
        self.usable = True

    def greet(self, seconds: float) -> None:
        """The HTTP part before the calls. Raises DriverError when nothing of net/rpc is there."""
        self._begin("connect", seconds)
        self._send_bytes(_GREETING)
        head = b""
        while not head.endswith((b"\n\n", b"\r\n\r\n")):
            byte = self.read(1)
            head += byte
            if not byte or len(head) > _HEADERS:
                raise DriverError("what listens at the plugin's port speaks no net/rpc")
        status = head.split(b"\n", 1)[0].decode("latin-1").strip()
        if status.partition(" ")[2] != _WELCOME:
            raise DriverError(f"what listens at the plugin's port speaks no net/rpc: {status!r}")

    def call(
        self,
        method: str,
        kind: gob.Type = EMPTY,
        value: object = None,
        *,
        seconds: float,
        aside: Aside | None = None,
    ) -> object:
        """The answer of `method`. Raises RpcError, HangupError, TransientError after `seconds`."""
        self._begin(method, seconds)
        self._aside = aside
        number = self._send(method, kind, {} if value is None else value)
        try:
            while number not in self._answers:
                self._receive()
        finally:
            self._aside = None
        error, answer = self._answers.pop(number)
        if error:
            raise RpcError(error)
        return answer

    def close(self) -> None:
        self._sock.close()

    def read(self, most: int) -> bytes:
        """gob.Source: waits, with heartbeats, until the deadline of the call."""
        while not self._buffer:
            if self._readable():
                self._buffer = self._take()
                if not self._buffer:
                    return b""
        portion, self._buffer = self._buffer[:most], self._buffer[most:]
        return portion

    def _take(self) -> bytes:
        try:
            return self._sock.recv(65536)
        except TimeoutError:
            raise
        except OSError:
            return b""

    def _begin(self, doing: str, seconds: float) -> None:
        self._doing, self._deadline = doing, time.monotonic() + seconds

    def _readable(self) -> bool:
        now = time.monotonic()
        if now >= self._deadline:
            self.usable = False
            raise TransientError(f"the plugin did not answer {self._doing} in time")
        beat = OLD_HEARTBEAT if self.service == "RpcServerDriver" else HEARTBEAT
        due = self._beaten + beat
        if now >= due and self._sequence:  # not before the first call
            self._beat(now)
            due = now + beat
        return self._wait(self._sock, min(self._deadline, max(due, now + 0.01)) - now)

    def _beat(self, now: float) -> None:
        self._beaten = now
        if len(self._asides) >= _PENDING:
            return
        self._asides[self._send("Heartbeat", EMPTY, {})] = _unheard
        if self._aside is not None:
            self._asides[self._send(self._aside.method, EMPTY, {})] = self._aside.hear

    def _send(self, method: str, kind: gob.Type, value: object) -> int:
        number = self._sequence
        self._sequence += 1
        request: Mapping[str, object] = {
            "ServiceMethod": f"{self.service}.{method}",
            "Seq": number,
        }
        data = self._encoder.encode(REQUEST, request) + self._encoder.encode(kind, value)
        self._send_bytes(data)
        return number

    def _send_bytes(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as err:
            self.usable = False
            raise HangupError(str(err)) from err

    def _receive(self) -> None:
        try:
            head, body = self._decoder.next(), self._decoder.next()
        except gob.EndOfStreamError as err:
            self.usable = False
            raise HangupError("the plugin hung up") from err
        except gob.GobError as err:
            self.usable = False
            raise DriverError(f"the plugin's answer to {self._doing} is no gob: {err}") from err
        if not isinstance(head, dict):
            self.usable = False
            raise DriverError("the plugin's answer has no head")
        number, error = head.get("Seq", 0), str(head.get("Error", ""))
        if not isinstance(number, int):
            self.usable = False
            raise DriverError("the plugin's answer has no number")
        hear = self._asides.pop(number, None)
        if hear is None:
            self._answers = {number: (error, body)}  # one call at a time waits
        elif not error:
            hear(body)


def _unheard(answer: object) -> None:
    del answer
