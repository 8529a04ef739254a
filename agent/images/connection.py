"""HTTP to registries over http.client: guarded dialling, TLS from certs.d, redirects, keep-alive.

Everything that blocks has a deadline and ends when the pull is cancelled (the socket is shut
down).  A redirect to another origin loses Authorization, never goes from https to http, and is
dialled only at addresses that `addresses.may_follow` allows: the address that was checked is the
address that is connected to.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

from agent.errors import EngineError, Kind, forbidden
from agent.images import addresses
from agent.images.addresses import Address
from agent.images.cancel import Cancellation
from agent.images.settings import RegistrySettings, Timeouts
from agent.values import frozen
from agent.wire.http import public

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_URL = 8192
Origin = tuple[str, str, int]  # scheme, host, port


class TransientError(Exception):
    """Worth another try.  `retry_after`: seconds the server asked for; `reached`: it answered."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, reached: bool = True
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.reached = reached


class TlsError(Exception):
    """The handshake failed for a reason that a retry does not heal."""


@frozen
class Request:
    """One request.  `insecure` only for registries on the operator's list.

    `body`: bytes, or what makes the pieces of one (sent chunked; made anew for each try).
    """

    url: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes | Callable[[], Iterator[bytes]] | None = None
    insecure: bool = False
    guarded: bool = False  # even the first hop must pass the address guard (token realms)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:  # "[" without its "]"
        raise forbidden(f"refusing the URL {public(url)[:200]!r}") from error


def origin(parts: SplitResult) -> Origin:
    """(scheme, host, port) of a URL; FORBIDDEN for anything but http and https."""
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise forbidden(f"refusing the URL {public(parts.geturl())[:200]!r}")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


class Done(Protocol):
    """What becomes of a connection after its response."""

    def __call__(self, *, reusable: bool) -> None: ...


class Response:
    """A response whose body is read in pieces; `close` on every path."""

    def __init__(self, raw: http.client.HTTPResponse, url: str, done: Done) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self.url = url
        self._raw = raw
        self._done: Done | None = done

    def read(self, size: int) -> bytes:
        """One receive of at most `size` bytes; b"" at the end.  TransientError when cut."""
        try:
            return self._raw.read1(size)
        except TimeoutError as error:
            raise TransientError("the registry sent nothing for too long") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"connection to the registry was lost: {_why(error)}") from error

    def document(self, limit: int, deadline: float) -> bytes:
        """The whole body, at most `limit` + 1 bytes, before the monotonic `deadline`."""
        pieces: list[bytes] = []
        got = 0
        while got <= limit and (piece := self.read(min(65536, limit + 1 - got))):
            pieces.append(piece)
            got += len(piece)
            if time.monotonic() > deadline:
                raise TransientError("the registry is too slow")
        return b"".join(pieces)

    def length(self) -> int | None:
        """Content-Length when there is a sane one."""
        value = self.headers.get("Content-Length", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None

    def close(self) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            reusable = self._raw.isclosed() and not self._raw.will_close
            self._raw.close()  # it holds the socket's file when the connection has let go of it
            done(reusable=reusable)


class _Plain(http.client.HTTPConnection):
    """An http.client connection over a socket that was connected by us."""

    def __init__(self, host: str, port: int, sock: socket.socket) -> None:
        super().__init__(host, port)
        self.sock = sock
        self.auto_open = 0


class Connector:
    """Opens requests for one pull.  Thread-safe; keeps idle connections per origin."""

    def __init__(self, settings: RegistrySettings, cancel: Cancellation) -> None:
        self._settings = settings
        self._timeouts: Timeouts = settings.timeouts
        self._cancel = cancel
        self._idle: dict[tuple[Origin, bool], list[_Plain]] = {}
        self._home: set[Address] = set()

    def close(self) -> None:
        while self._idle:
            _, connections = self._idle.popitem()
            for connection in connections:
                connection.close()

    def at_home(self, found: Iterable[Address]) -> None:
        """The addresses of a host that the user has named: what `addresses.may_follow` calls the
        registry's own.  For guarded requests, whose first hop is checked too."""
        self._home.update(found)

    def open(self, request: Request, cancel: Cancellation | None = None) -> Response:
        """Send, following up to five redirects.  Raises TransientError, TlsError, EngineError."""
        url, headers = request.url, dict(request.headers)
        first = origin(_split(url))
        scope = cancel or self._cancel
        foreign = request.guarded
        for _ in range(MAX_REDIRECTS + 1):
            parts = _split(url)
            response = self._once(parts, request, headers, scope, foreign=foreign)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            url = _redirected(url, location)
            target = origin(urlsplit(url))
            if parts.scheme == "https" and target[0] == "http":
                raise forbidden("refusing a redirect from https to http")
            if target != first:
                headers.pop("Authorization", None)
                foreign = True
        raise forbidden(f"stopped after {MAX_REDIRECTS} redirects")

    def _once(
        self,
        parts: SplitResult,
        request: Request,
        headers: Mapping[str, str],
        cancel: Cancellation,
        *,
        foreign: bool,
    ) -> Response:
        where = origin(parts)
        key = (where, request.insecure and not foreign)
        idle = self._idle.get(key, [])
        while idle:
            with suppress(IndexError, TransientError):  # an idle connection may be dead
                return self._send(idle.pop(), parts, request, headers, (key, cancel))
        connection = self._dial(
            where, cancel, foreign=foreign, insecure=request.insecure and not foreign
        )
        return self._send(connection, parts, request, headers, (key, cancel))

    def _send(
        self,
        connection: _Plain,
        parts: SplitResult,
        request: Request,
        headers: Mapping[str, str],
        scope: tuple[tuple[Origin, bool], Cancellation],
    ) -> Response:
        key, cancel = scope
        stack = ExitStack()
        sock = connection.sock

        def done(*, reusable: bool) -> None:
            stack.close()
            if reusable and not cancel.requested:
                self._idle.setdefault(key, []).append(connection)
            else:
                connection.close()

        try:
            stack.enter_context(cancel.on_cancel(lambda: _shut(sock)))
            target = parts.path or "/"
            target += f"?{parts.query}" if parts.query else ""
            body = request.body() if callable(request.body) else request.body
            connection.request(request.method, target, body, dict(headers))
            return Response(connection.getresponse(), parts.geturl(), done)
        except TimeoutError as error:
            done(reusable=False)
            raise TransientError(f"{parts.netloc} did not answer in time") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            done(reusable=False)
            cancel.check()
            raise TransientError(f"no valid answer from {parts.netloc}: {_why(error)}") from error
        except EngineError:
            done(reusable=False)
            raise

    def _dial(
        self, where: Origin, cancel: Cancellation, *, foreign: bool, insecure: bool
    ) -> _Plain:
        scheme, host, port = where
        cancel.check()
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise TransientError(f"lookup {host}: {_why(error)}", reached=False) from error
        targets = [str(entry[4][0]) for entry in found]
        if foreign:
            targets = [
                target
                for target in targets
                if addresses.may_follow(addresses.plain(target), self._home)
            ]
            if not targets:
                raise forbidden(f"refusing to follow the registry to the private address of {host}")
        else:
            self._home.update(addresses.plain(target) for target in targets)
        sock = self._connect(targets, where, cancel)
        if scheme == "https":
            sock = self._handshake(sock, where, cancel, insecure=insecure)
        sock.settimeout(self._timeouts.stall)
        return _Plain(host, port, sock)

    def _connect(
        self, targets: Iterable[str], where: Origin, cancel: Cancellation
    ) -> socket.socket:
        failure: OSError = OSError("no address")
        for target in targets:
            family = socket.AF_INET6 if ":" in target else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(self._timeouts.connect)
            try:
                with cancel.on_cancel(partial(_shut, sock)):
                    sock.connect((target, where[2]))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                cancel.check()
                failure = error
            except EngineError:
                sock.close()
                raise
        message = f"dial tcp {where[1]}:{where[2]}: connect: {_why(failure)}"
        raise TransientError(message, reached=False) from failure

    def _handshake(
        self, sock: socket.socket, where: Origin, cancel: Cancellation, *, insecure: bool
    ) -> socket.socket:
        folders, timeout = self._settings.certificates, self._timeouts.stall
        try:
            context = tls_context(folders, where[1], where[2], insecure=insecure)
            sock.settimeout(timeout)
            with cancel.on_cancel(lambda: _shut(sock)):
                return context.wrap_socket(sock, server_hostname=where[1])
        except TimeoutError as error:
            sock.close()
            raise TransientError(f"TLS handshake with {where[1]} timed out") from error
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise TlsError(
                f"tls: failed to verify certificate of {where[1]}: {error.verify_message}"
            ) from error
        except (ssl.SSLError, ssl.CertificateError) as error:
            sock.close()
            cancel.check()
            raise TlsError(f"tls: {where[1]}: {_why(error)}") from error
        except OSError as error:
            sock.close()
            cancel.check()
            raise TransientError(f"TLS handshake with {where[1]}: {_why(error)}") from error
        except EngineError:
            sock.close()
            raise


def tls_context(folders: Iterable[str], host: str, port: int, *, insecure: bool) -> ssl.SSLContext:
    """System roots plus `FOLDER/HOST[:PORT]/*.crt`; client pairs are `*.cert` with `*.key`."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for folder in folders:
        for name in (f"{host}:{port}", host):
            with suppress(FileNotFoundError, NotADirectoryError):
                _load_folder(context, os.path.join(folder, name))
    return context


def _load_folder(context: ssl.SSLContext, folder: str) -> None:
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(cafile=path)
            elif name.endswith(".cert"):
                context.load_cert_chain(path, path.removesuffix(".cert") + ".key")
        except (OSError, ssl.SSLError) as error:
            raise EngineError(Kind.INTERNAL, f"can't use {path}: {_why(error)}") from error


def _redirected(url: str, location: str) -> str:
    if len(location) > _MAX_URL or not location.isascii() or not location.isprintable():
        raise forbidden("refusing a malformed redirect")
    try:
        found = urljoin(url, location)
        parts = urlsplit(found)
    except ValueError as error:
        raise forbidden("refusing a malformed redirect") from error
    if parts.username is not None:
        raise forbidden("refusing a redirect with credentials in it")
    return found.replace(" ", "%20")


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error) or type(error).__name__
    return "".join(char if char.isprintable() else "?" for char in text[:200])
