"""The server: opens listeners, admits connections, runs them, stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agent.server.channel import RawChannel
from agent.server.connection import HttpConnection, Phase
from agent.server.exchange import Service
from agent.server.limits import Limits
from agent.server.listeners import (
    BACKLOG,
    InheritedListener,
    Listener,
    TlsListener,
    UnixListener,
    open_inherited,
    open_tcp,
    open_unix,
    remove_unix,
    tune_tcp,
    unix_client,
)
from agent.server.tls import (
    Identity,
    TlsChannel,
    TlsConfig,
    TlsError,
    file_stamp,
    load_identity,
    revoked_clients,
)
from agent.wire.certrole import CertificateError
from agent.wire.http import Application, Client, printable

_log = logging.getLogger("agent.server")
_REFUSAL_LINGER: Final = 1.0  # seconds for a refused client to read the alert
_FILE_CHECK: Final = 1.0  # seconds between looks at the certificate files, at an accept
_REVOCATION_CHECK: Final = 15.0  # seconds between looks at open connections
# Rounds of the loop that an accepted connection needs before it reaches _opened().
_ACCEPT_ROUNDS: Final = 4

DEFAULT_LIMITS: Final = Limits()


class _TlsPort:
    """A TLS listener with its current identity."""

    def __init__(self, listener: TlsListener) -> None:
        self.config: TlsConfig = listener.tls
        self._listener = listener
        self._identity = load_identity(listener.tls)
        self._looked = 0.0

    @property
    def hosts(self) -> frozenset[str]:
        return self._listener.hosts or self._identity.host_names

    def reload(self) -> None:
        """Raises TlsError; the old identity stays then."""
        self._identity = load_identity(self.config)

    def identity(self, now: float) -> Identity:
        """The current one; changed files are taken up by themselves."""
        if now - self._looked >= _FILE_CHECK:
            self._looked = now
            stamp = file_stamp(self.config)
            if stamp and stamp != self._identity.stamp:
                try:
                    self.reload()
                    _log.info("took up the changed TLS files of port %s", self._listener.port)
                except TlsError as error:  # half-way through a rotation, or broken
                    _log.warning("keeping the old TLS identity: %s", error)
        return self._identity

    def is_revoked(self, client: Client) -> bool:
        """Raises TlsError when the list cannot be read."""
        revoked = revoked_clients(self.config)
        return client.name in revoked or client.fingerprint in revoked


class Server:
    """One run of the server. `start()`, then `stop()` once."""

    def __init__(
        self,
        application: Application,
        listeners: Sequence[Listener],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._listeners = tuple(listeners)
        self._workers = ThreadPoolExecutor(limits.workers, thread_name_prefix="worker")
        self._producers = ThreadPoolExecutor(limits.producers, thread_name_prefix="producer")
        self._service = Service(application, limits, self._workers, self._producers)
        self._servers: list[asyncio.Server] = []
        self._sockets: list[tuple[str, int]] = []  # path and inode of our socket files
        self._tls: list[_TlsPort] = []
        self._connections: dict[asyncio.Task[None], HttpConnection | None] = {}
        self._ports: dict[HttpConnection, _TlsPort] = {}
        self._addresses: Counter[str] = Counter()
        self._open: set[RawChannel] = set()
        self._none_open = asyncio.Event()
        self._handshakes = 0
        self._stopping = False
        self._sweeper: asyncio.Task[None] | None = None

    # life

    async def start(self) -> None:
        """All listeners, or none. Raises ListenError, TlsError."""
        try:
            for listener in self._listeners:
                await self._listen(listener)
            self._sweeper = asyncio.ensure_future(self._sweep())
        finally:
            if self._sweeper is None:
                await self.stop()

    async def _listen(self, listener: Listener) -> None:
        if isinstance(listener, TlsListener):
            port = _TlsPort(listener)
            sock = open_tcp(listener)
            self._tls.append(port)
            await self._accept(sock, lambda raw: self._run_tls(raw, port))
            return
        if isinstance(listener, InheritedListener):
            sock = open_inherited(listener)
        else:
            sock = open_unix(listener)
            self._sockets.append((listener.path, os.lstat(listener.path).st_ino))
        await self._accept(sock, self._run_unix)

    async def _accept(
        self, sock: socket.socket, run: Callable[[RawChannel], Coroutine[None, None, None]]
    ) -> None:
        def factory() -> RawChannel:
            return RawChannel(lambda raw: self._opened(raw, run), self._closed)

        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(factory, sock=sock, backlog=BACKLOG)
        else:
            server = await loop.create_server(factory, sock=sock, backlog=BACKLOG)
        self._servers.append(server)

    @property
    def tcp_addresses(self) -> list[tuple[str, int]]:
        """Address and port of each TLS listener."""
        names: list[object] = [
            sock.getsockname() for server in self._servers for sock in server.sockets
        ]
        return [(str(name[0]), int(name[1])) for name in names if isinstance(name, tuple)]

    @property
    def connection_count(self) -> int:
        return len(self._open)

    def reload(self) -> None:
        """Reads the TLS files anew for new connections. Raises TlsError; the old ones stay then."""
        for port in self._tls:
            port.reload()

    async def stop(self, grace: float | None = None) -> None:
        """Accepts no more, ends streams and idle connections, lets short requests finish.

        `grace`: seconds for these; None = the limit's. Worker threads that still run then are left
        behind (they are told by their `Gone`).
        """
        self._stopping = True
        for server in self._servers:
            server.close()
        for path, inode in self._sockets:
            remove_unix(path, inode)
        for _ in range(_ACCEPT_ROUNDS):
            await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task, connection in list(self._connections.items()):
            if connection is not None:
                connection.stopping = True
            if connection is None or connection.phase is not Phase.BUSY:
                task.cancel()
        await self._wait_for_connections(self._limits.shutdown if grace is None else grace)
        for task in list(self._connections):
            task.cancel()
        await self._wait_for_connections(self._limits.linger)
        await self._close_transports()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._producers.shutdown(wait=False, cancel_futures=True)

    async def _close_transports(self) -> None:
        """They close in the loop's next rounds; none may outlive the loop.

        Some are only now made: a connection that was accepted in the round of the stop.
        """
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_open.wait(), self._limits.linger)
        for _ in range(_ACCEPT_ROUNDS):
            for raw in list(self._open):
                raw.abort()
            await asyncio.sleep(0)

    async def _wait_for_connections(self, limit: float) -> None:
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=limit)

    # connections

    def _opened(
        self, raw: RawChannel, run: Callable[[RawChannel], Coroutine[None, None, None]]
    ) -> None:
        address = raw.peer_address()
        self._open.add(raw)
        self._none_open.clear()
        self._addresses[address] += 1
        crowded = bool(address) and self._addresses[address] > self._limits.per_address
        if self._stopping or crowded or len(self._open) > self._limits.total:
            _log.debug("connection refused: too many (from %s)", address or "unix")
            raw.abort()
            return
        task = asyncio.ensure_future(run(raw))
        self._connections[task] = None
        task.add_done_callback(self._done)

    def _closed(self, raw: RawChannel) -> None:
        address = raw.peer_address()
        self._open.discard(raw)
        if not self._open:
            self._none_open.set()
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def _done(self, task: asyncio.Task[None]) -> None:
        connection = self._connections.pop(task, None)
        if connection is not None:
            self._ports.pop(connection, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection failed", exc_info=error)

    async def _run_unix(self, raw: RawChannel) -> None:
        client = unix_client(raw.socket())
        await self._run_http(HttpConnection(raw, client, self._service, frozenset()))

    async def _run_http(self, connection: HttpConnection) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections[task] = connection
        await connection.run()

    async def _run_tls(self, raw: RawChannel, port: _TlsPort) -> None:
        try:
            channel, client = await self._verified(raw, port)
        except (OSError, CertificateError, TlsError) as error:  # TimeoutError is an OSError
            level = logging.DEBUG if isinstance(error, OSError) else logging.WARNING
            _log.log(level, "refused %s: %s", raw.peer_address(), printable(str(error)))
            await raw.finish(_REFUSAL_LINGER)
            return
        except asyncio.CancelledError:
            raw.abort()
            raise
        connection = HttpConnection(channel, client, self._service, port.hosts)
        self._ports[connection] = port
        await self._run_http(connection)

    async def _verified(self, raw: RawChannel, port: _TlsPort) -> tuple[TlsChannel, Client]:
        """Raises OSError, CertificateError, TlsError."""
        if self._handshakes >= self._limits.handshakes:
            raise ConnectionAbortedError("too many unauthenticated connections")
        tune_tcp(raw.socket())
        channel = TlsChannel(raw, port.identity(asyncio.get_running_loop().time()))
        client = await self._handshake(channel)
        if port.is_revoked(client):
            raise CertificateError(f"client {client.name} is revoked")
        return channel, client

    async def _handshake(self, channel: TlsChannel) -> Client:
        self._handshakes += 1
        try:
            return await channel.handshake(self._limits.handshake)
        finally:
            self._handshakes -= 1

    async def _sweep(self) -> None:
        """Cuts off connections of clients that have been revoked since they connected."""
        while True:
            await asyncio.sleep(_REVOCATION_CHECK)
            self.cut_revoked()

    def cut_revoked(self) -> None:
        """Ends the open connections of revoked clients now."""
        for task, connection in list(self._connections.items()):
            port = self._ports.get(connection) if connection is not None else None
            if connection is None or port is None:
                continue
            try:
                revoked = port.is_revoked(connection.client)
            except TlsError as error:
                _log.warning("%s", error)
                return
            if revoked:
                _log.warning("cutting off revoked client %s", connection.client.label())
                task.cancel()


async def serve(
    application: Application,
    listeners: Sequence[Listener],
    stop: asyncio.Event,
    *,
    limits: Limits = DEFAULT_LIMITS,
    ready: Callable[[Server], None] | None = None,
) -> None:
    """Serves until `stop` is set, then ends in order. `ready` is called once all listeners accept.

    Raises ListenError, TlsError when it cannot start.
    """
    server = Server(application, listeners, limits)
    await server.start()
    try:
        if ready is not None:
            ready(server)
        await stop.wait()
    finally:
        await server.stop()


__all__ = [
    "InheritedListener",
    "Limits",
    "Listener",
    "Server",
    "TlsConfig",
    "TlsListener",
    "UnixListener",
    "serve",
]
