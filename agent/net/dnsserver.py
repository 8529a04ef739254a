"""The embedded name servers: one thread serves the sockets of all containers.

A container's sockets are opened in its namespace by a thread that enters it (namespaces.py) and are
served from here; dnsredirect.py leads 127.0.0.11:53 to them.  Questions about our own names are
answered from `Names`; all others travel as opaque bytes to the container's name servers, asked from
its own namespace (so its way out decides what can be reached), except for the host's loopback ones.
Bounds: MOST_HERE questions a container, MOST_ALL in all, PATIENCE each; what is beyond is SERVFAIL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from agent.engine.ports import NameServers
from agent.net import dnsredirect, dnswire
from agent.net.dnsnames import Names
from agent.net.dnswire import BadQueryError, NotAQueryError, Query
from agent.net.namespaces import open_namespace, run_inside

_log = logging.getLogger(__name__)
MOST_HERE: Final = 256
MOST_ALL: Final = 2048
MOST_STREAMS: Final = 64
PATIENCE: Final = 3.0  # seconds for one server's answer
IDLE: Final = 10.0  # seconds that a TCP client may be silent
_AT_ONCE: Final = 64  # datagrams of one container before the others get their turn
_TICK: Final = 0.25
_LARGEST: Final = 65535
_OURS: Final = {dnswire.A: 4, dnswire.AAAA: 6}

Respond = Callable[[bytes], None]


class _Sandbox:
    """One container's sockets."""

    def __init__(self, container: str, pid: int, upstream: NameServers) -> None:
        """Raises OSError."""
        self.container = container
        self.upstream = upstream
        self.asking = 0
        self.streams: set[_Stream] = set()
        self.namespace = open_namespace(pid)
        try:
            self.datagrams, self.listener = run_inside(self.namespace, _open)
        except (OSError, RuntimeError):
            os.close(self.namespace)
            raise

    def upstream_socket(self, server: str, kind: int) -> socket.socket:
        """Connected, or (TCP) on its way.  Raises OSError."""
        family = socket.AF_INET6 if ":" in server else socket.AF_INET

        def make() -> socket.socket:
            made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            try:
                with contextlib.suppress(BlockingIOError):
                    made.connect((server, dnsredirect.PORT))
            except OSError:
                made.close()
                raise
            return made

        return make() if self.upstream.from_host else run_inside(self.namespace, make)

    def close(self) -> None:
        self.datagrams.close()
        self.listener.close()
        os.close(self.namespace)


def _open() -> tuple[socket.socket, socket.socket]:
    """In the container's namespace."""
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags)
    try:
        here = str(dnsredirect.ADDRESS)
        datagrams.bind((here, 0))
        listener.bind((here, 0))
        listener.listen(16)
        dnsredirect.install(datagrams.getsockname()[1], listener.getsockname()[1])
    except OSError:
        datagrams.close()
        listener.close()
        raise
    return datagrams, listener


class _Stream:
    """A TCP client: length-prefixed questions (RFC 1035 4.2.2)."""

    def __init__(self, sandbox: _Sandbox, connection: socket.socket) -> None:
        self.sandbox = sandbox
        self.connection = connection
        self.received = b""
        self.waiting = b""  # to be sent
        self.deadline = time.monotonic() + IDLE
        self.closed = False


class _Question:
    """One that is asked elsewhere."""

    def __init__(self, sandbox: _Sandbox, query: Query, data: bytes, respond: Respond) -> None:
        self.sandbox = sandbox
        self.query = query
        self.data = data
        self.respond = respond
        self.servers = deque(sandbox.upstream.servers)
        self.connection: socket.socket | None = None
        self.received = b""
        self.sent = False
        self.deadline = 0.0


class NameService:
    """Threads may call; the server's thread starts with the first container."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        self._todo: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._sandboxes: dict[str, _Sandbox] = {}
        self._questions: set[_Question] = set()
        self._streams: set[_Stream] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="names", daemon=True)
        self._thread.start()

    def serve(self, container: str, pid: int, upstream: NameServers) -> None:
        """See agent.engine.ports.Network.  Raises OSError."""
        sandbox = _Sandbox(container, pid, upstream)
        self._in_thread(lambda: self._add(sandbox))

    def silence(self, container: str) -> None:
        """Idempotent; nothing holds the container's namespace on return."""
        if container in self._sandboxes:
            self._in_thread(lambda: self._remove(container))

    def close(self) -> None:
        """Idempotent."""
        if self._stopping:
            return

        def stop() -> None:
            for container in list(self._sandboxes):
                self._remove(container)
            self._stopping = True

        self._in_thread(stop)
        self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # ------------------------------------------------------------------------- the thread's own

    def _in_thread(self, action: Callable[[], None]) -> None:
        if self._stopping:
            return
        done = threading.Event()
        self._todo.append((action, done))
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")
        while not done.wait(1.0) and self._thread.is_alive():
            pass

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except (OSError, ValueError, KeyError, RuntimeError, struct.error):
                # One container's mishap must not end the names of all.
                _log.exception("the name server stumbled")
        while self._todo:
            self._todo.popleft()[1].set()

    def _turn(self) -> None:
        busy = self._questions or self._streams
        for key, mask in self._selector.select(_TICK if busy else None):
            # A socket of a container that went in this very round is no longer registered.
            if self._selector.get_map().get(key.fd) is key:
                key.data(mask)
        if busy:
            self._expire(time.monotonic())

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._todo:
            action, done = self._todo.popleft()
            try:
                action()
            except OSError as error:
                _log.error("the name server failed: %s", error)
            finally:
                done.set()

    def _add(self, sandbox: _Sandbox) -> None:
        self._remove(sandbox.container)
        self._sandboxes[sandbox.container] = sandbox
        read = selectors.EVENT_READ
        self._selector.register(sandbox.datagrams, read, lambda _: self._on_datagrams(sandbox))
        self._selector.register(sandbox.listener, read, lambda _: self._on_connections(sandbox))

    def _remove(self, container: str) -> None:
        sandbox = self._sandboxes.pop(container, None)
        if sandbox is None:
            return
        for stream in list(sandbox.streams):
            self._end_stream(stream)
        for question in [one for one in self._questions if one.sandbox is sandbox]:
            self._forget(question)
        self._selector.unregister(sandbox.datagrams)
        self._selector.unregister(sandbox.listener)
        sandbox.close()

    # ------------------------------------------------------------------------------ clients by UDP

    def _on_datagrams(self, sandbox: _Sandbox) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, peer = sandbox.datagrams.recvfrom(dnswire.MOST)
            except OSError:
                return

            def respond(reply: bytes, peer: tuple[str, int] = peer) -> None:
                with contextlib.suppress(OSError):
                    sandbox.datagrams.sendto(reply, peer)

            self._handle(sandbox, data, respond, by_udp=True)

    # ------------------------------------------------------------------------------ clients by TCP

    def _on_connections(self, sandbox: _Sandbox) -> None:
        with contextlib.suppress(OSError):
            connection, _ = sandbox.listener.accept()
            if len(sandbox.streams) >= MOST_STREAMS:
                connection.close()
                return
            connection.settimeout(0)
            stream = _Stream(sandbox, connection)
            sandbox.streams.add(stream)
            self._streams.add(stream)
            self._selector.register(
                connection, selectors.EVENT_READ, lambda mask: self._on_stream(stream, mask)
            )

    def _on_stream(self, stream: _Stream, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                self._flush(stream)
            if not mask & selectors.EVENT_READ:
                return
            data = stream.connection.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end_stream(stream)
            return
        stream.deadline = time.monotonic() + IDLE
        stream.received += data
        while (message := _framed(stream.received)) is not None:
            stream.received = stream.received[2 + len(message) :]
            self._handle(stream.sandbox, message, lambda reply: self._send(stream, reply))
            if stream.closed:
                return

    def _send(self, stream: _Stream, reply: bytes) -> None:
        if stream.closed:
            return
        stream.waiting += struct.pack(">H", len(reply)) + reply
        try:
            self._flush(stream)
        except OSError:
            self._end_stream(stream)

    def _flush(self, stream: _Stream) -> None:
        if stream.waiting:
            with contextlib.suppress(BlockingIOError):
                stream.waiting = stream.waiting[stream.connection.send(stream.waiting) :]
        if len(stream.waiting) > 4 * _LARGEST:  # asks, but does not read
            self._end_stream(stream)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if stream.waiting else 0)
        key = self._selector.get_key(stream.connection)
        if key.events != wanted:
            self._selector.modify(stream.connection, wanted, key.data)

    def _end_stream(self, stream: _Stream) -> None:
        if stream.closed:
            return
        stream.closed = True
        stream.sandbox.streams.discard(stream)
        self._streams.discard(stream)
        self._selector.unregister(stream.connection)
        stream.connection.close()

    # ------------------------------------------------------------------------------------- answers

    def _handle(
        self, sandbox: _Sandbox, data: bytes, respond: Respond, *, by_udp: bool = False
    ) -> None:
        try:
            query = dnswire.parse(data)
        except NotAQueryError:
            return
        except BadQueryError as error:
            respond(dnswire.refusal(data, error.rcode))
            return
        reply = self._own(sandbox.container, query, data, query.size if by_udp else None)
        if reply is not None:
            respond(reply)
        else:
            self._ask(_Question(sandbox, query, data, respond), by_udp=by_udp)

    def _own(self, container: str, query: Query, data: bytes, limit: int | None) -> bytes | None:
        """None = not ours to answer."""
        if query.klass != dnswire.IN:
            return None
        if query.type == dnswire.PTR:
            address = dnswire.pointed(query.name)
            name = self._names.owner(container, address) if address is not None else None
            if name is None:
                return None
            try:
                return dnswire.answer(query, data, records=[dnswire.rdata(name)], limit=limit)
            except ValueError:  # a network's name may be none that DNS can carry
                return dnswire.answer(query, data, dnswire.NXDOMAIN, limit=limit)
        found = self._names.find(container, query.name, _OURS.get(query.type, 4))
        if found is None:
            return None
        addresses = found.addresses if query.type in _OURS else ()
        return dnswire.answer(query, data, records=[one.packed for one in addresses], limit=limit)

    # ------------------------------------------------------------------------------------ elsewhere

    def _ask(self, question: _Question, *, by_udp: bool) -> None:
        sandbox = question.sandbox
        full = sandbox.asking >= MOST_HERE or len(self._questions) >= MOST_ALL
        if full or not self._names.leads_out(sandbox.container):
            question.respond(dnswire.answer(question.query, question.data, dnswire.SERVFAIL))
            return
        sandbox.asking += 1
        self._questions.add(question)
        self._next_server(question, socket.SOCK_DGRAM if by_udp else socket.SOCK_STREAM)

    def _next_server(self, question: _Question, kind: int) -> None:
        """Asks the next of its servers; the end is SERVFAIL."""
        self._hang_up(question)
        while question.servers:
            server = question.servers.popleft()
            try:
                connection = question.sandbox.upstream_socket(server, kind)
                if kind == socket.SOCK_DGRAM:
                    # Each question has a socket, and so a port, of its own.
                    connection.send(question.data)
            except (OSError, RuntimeError):
                continue
            question.connection = connection
            question.received, question.sent = b"", kind == socket.SOCK_DGRAM
            question.deadline = time.monotonic() + PATIENCE
            stream = kind == socket.SOCK_STREAM
            event = selectors.EVENT_WRITE if stream else selectors.EVENT_READ
            self._selector.register(
                connection,
                event,
                (lambda _: self._on_stream_answer(question))
                if stream
                else (lambda _: self._on_answer(question)),
            )
            return
        self._finish(question, dnswire.answer(question.query, question.data, dnswire.SERVFAIL))

    def _on_answer(self, question: _Question) -> None:
        connection = question.connection
        if connection is None:
            return
        try:
            data = connection.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._next_server(question, socket.SOCK_DGRAM)
            return
        if dnswire.answers_to(data, question.query.id):
            self._finish(question, data)

    def _on_stream_answer(self, question: _Question) -> None:
        connection = question.connection
        if connection is None:
            return
        try:
            if not question.sent:
                connection.sendall(struct.pack(">H", len(question.data)) + question.data)
                question.sent = True
                key = self._selector.get_key(connection)
                self._selector.modify(connection, selectors.EVENT_READ, key.data)
                return
            data = connection.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        question.received += data
        message = _framed(question.received)
        if message is not None and dnswire.answers_to(message, question.query.id):
            self._finish(question, message)
        elif not data or len(question.received) > _LARGEST + 2:
            self._next_server(question, socket.SOCK_STREAM)

    def _finish(self, question: _Question, reply: bytes) -> None:
        respond = question.respond
        self._forget(question)
        respond(reply)

    def _forget(self, question: _Question) -> None:
        self._hang_up(question)
        if question in self._questions:
            self._questions.discard(question)
            question.sandbox.asking -= 1

    def _hang_up(self, question: _Question) -> None:
        connection, question.connection = question.connection, None
        if connection is not None:
            self._selector.unregister(connection)
            connection.close()

    def _expire(self, now: float) -> None:
        for question in [one for one in self._questions if one.deadline <= now]:
            kind = question.connection.type if question.connection else socket.SOCK_DGRAM
            self._next_server(question, int(kind))
        for stream in [one for one in self._streams if one.deadline <= now]:
            self._end_stream(stream)


def _framed(data: bytes) -> bytes | None:
    """The first whole message of a stream."""
    if len(data) < 2:
        return None
    end = 2 + struct.unpack_from(">H", data)[0]
    return data[2:end] if len(data) >= end else None
