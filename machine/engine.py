"""Thin client of the Docker Engine API: what `machine run`, `ps`, ... speak.

HTTP/1.1 by h11 over `machine.stream`; one connection a request, as the commands are short.
Specification: Docker Engine API v1.51.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode, urlsplit

import h11

from agent.wire.certrole import CertificateError, certificate_names, server_role
from machine.errors import MachineError
from machine.stream import PlainStream, Stream, TlsStream, tls_context

API_VERSION = "1.51"
CONNECT_TIMEOUT = 20.0  # seconds, docker-machine's


@dataclass(frozen=True)
class Target:
    """Where an engine is.  `url` unix:///path or tcp://host:port; `cert_path` for TLS."""

    url: str
    cert_path: Path | None = None
    machine: str = ""


class EngineApiError(MachineError):
    """The engine answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message


@dataclass
class Response:
    """Head of an answer; the body is read as it comes."""

    status: int
    headers: Mapping[str, str]
    _exchange: _Exchange = field(repr=False)

    def chunks(self) -> Iterator[bytes]:
        yield from self._exchange.body()

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> object:
        return json.loads(self.read() or b"null")

    def lines(self) -> Iterator[object]:
        """JSON documents, one a line (pull progress, events)."""
        rest = b""
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())
        if rest.strip():
            yield json.loads(rest)

    def close(self) -> None:
        self._exchange.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class Hijacked:
    """A raw connection after attach or exec start."""

    stream: Stream
    early: bytes  # bytes that came with the head


class Engine:
    """Requests to one engine.  Methods raise EngineApiError (the engine said no) and
    MachineError (it can't be reached, or isn't the one we trust)."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        upload: Iterator[bytes] | None = None,
    ) -> Response:
        """One request.  `body` is sent as JSON, `upload` as an archive, piece by piece.

        Close the response (or use `with`).
        """
        exchange = _Exchange(connect(self.target))
        try:
            if upload is not None:
                exchange.upload(method, _url(path, query), upload, headers or {})
                status, heads = exchange.answer()
            else:
                status, heads = exchange.request(method, _url(path, query), body, headers or {})
            response = Response(status, heads, exchange)
            _check(status, response.chunks())
        except BaseException:
            exchange.close()
            raise
        return response

    def get(self, path: str, **query: object) -> object:
        with self.call("GET", path, query=query) as response:
            return response.json()

    def post(self, path: str, body: object = None, **query: object) -> object:
        with self.call("POST", path, query=query, body=body) as response:
            return response.json()

    def delete(self, path: str, **query: object) -> object:
        with self.call("DELETE", path, query=query) as response:
            return response.json()

    def hijack(
        self,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Hijacked:
        """attach and exec start: the connection itself becomes the container's stdio."""
        exchange = _Exchange(connect(self.target))
        try:
            upgrade = {"Connection": "Upgrade", "Upgrade": "tcp", **(headers or {})}
            status, _ = exchange.request("POST", _url(path, query), body, upgrade)
            _check(status, exchange.body())
            return Hijacked(exchange.stream, exchange.leftover())
        except BaseException:
            exchange.close()
            raise


class _Exchange:
    """One request and its answer over one connection."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    def request(
        self, method: str, target: str, body: object, extra: Mapping[str, str]
    ) -> tuple[int, dict[str, str]]:
        data = b"" if body is None else json.dumps(body).encode()
        headers = [("Host", "docker"), ("User-Agent", "machine"), *extra.items()]
        if body is not None:
            headers.append(("Content-Type", "application/json"))
        if data or method == "POST":
            headers.append(("Content-Length", str(len(data))))
        request = h11.Request(method=method, target=target, headers=headers)
        parts = [self._http.send(request)]
        if data:
            parts.append(self._http.send(h11.Data(data=data)))
        parts.append(self._http.send(h11.EndOfMessage()))
        with contextlib.suppress(OSError):  # what can still be read says why
            self.stream.send(b"".join(part for part in parts if part))
        return self.answer()

    def upload(
        self, method: str, target: str, pieces: Iterator[bytes], extra: Mapping[str, str]
    ) -> None:
        """Send a request whose body is an archive; a refusal may come before its end."""
        headers = [("Host", "docker"), ("User-Agent", "machine"), *extra.items()]
        headers += [("Content-Type", "application/x-tar"), ("Transfer-Encoding", "chunked")]
        self._send(h11.Request(method=method, target=target, headers=headers))
        for piece in pieces:
            try:
                self._send(h11.Data(data=piece))
            except OSError:
                return  # the answer says why
        with contextlib.suppress(OSError):
            self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self.stream.send(data)

    def answer(self) -> tuple[int, dict[str, str]]:
        """The answer's status and headers."""
        while True:
            event = self._next()
            if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                continue
            if isinstance(event, h11.Response | h11.InformationalResponse):
                return event.status_code, {
                    name.decode().lower(): value.decode("latin-1") for name, value in event.headers
                }
            raise MachineError("The engine closed the connection without an answer")

    def _next(self) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise MachineError(f"The engine broke off its answer: {error}") from error
            if event is not h11.NEED_DATA:
                return event
            try:
                self._http.receive_data(self.stream.recv())
            except OSError as error:
                raise _lost(error) from error

    def body(self) -> Iterator[bytes]:
        """The answer's bytes as they come. Raises MachineError when they end too early."""
        while True:
            event = self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    def leftover(self) -> bytes:
        """Bytes behind the head of a hijacked answer (101, or 200 without a length)."""
        return bytes(self._http.trailing_data[0])

    def close(self) -> None:
        self.stream.close()


def _url(path: str, query: Mapping[str, object] | None) -> str:
    words: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        words += [
            (name, "1" if one is True else str(one))
            for one in (value if isinstance(value, tuple) else (value,))
            if one is not None and one is not False and one != ""
        ]
    return f"/v{API_VERSION}{quote(path, safe='/:@')}" + (f"?{urlencode(words)}" if words else "")


def _check(status: int, body: Iterator[bytes]) -> None:
    if status >= 400:
        raise EngineApiError(status, _message(b"".join(body), status))


def _message(body: bytes, status: int) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip() or f"status {status}"
    text = found.get("message") if isinstance(found, dict) else None
    return str(text or f"status {status}")


def connect(target: Target) -> Stream:
    """Open a stream to the engine, verified both ways when it is TCP."""
    where = urlsplit(target.url)
    if where.scheme == "unix":
        return _connect_unix(where.path, target)
    if where.scheme != "tcp" or not where.hostname:
        raise MachineError(
            f"Cannot speak to {target.url!r}",
            hint="Use a unix:// or tcp:// address; `machine env NAME` exports the right one.",
        )
    if target.cert_path is None:
        raise MachineError(
            f"{target.url} without TLS is refused",
            hint="Set DOCKER_CERT_PATH, as `machine env NAME` does.",
        )
    return _connect_tls(where.hostname, where.port or 2376, target.cert_path, target)


def _connect_unix(path: str, target: Target) -> Stream:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise _unreachable(target, error) from error
    return PlainStream(sock)


def _connect_tls(host: str, port: int, certs: Path, target: Target) -> Stream:
    try:
        context = tls_context(
            str(certs / "ca.pem"), str(certs / "cert.pem"), str(certs / "key.pem")
        )
    except (OSError, ssl.SSLError) as error:
        raise MachineError(
            f"Cannot read the certificates in {certs}",
            details=_reason(error),
            hint=f"Run `machine regenerate-certs {target.machine or 'NAME'}`.",
        ) from error
    try:
        sock = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT)
    except OSError as error:
        raise _unreachable(target, error) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        stream = TlsStream(sock, context, host)
    except (ssl.SSLError, OSError) as error:
        sock.close()
        raise _mistrusted(f" to {target.url}", error, target.machine or "NAME") from error
    try:
        _check_role(stream.peer_certificate(), certs / "cert.pem")
    except CertificateError as error:
        sock.close()
        raise MachineError(
            f"The engine at {target.url} shows a certificate that is not an engine's",
            details=str(error),
            hint="Somebody else may be answering there. Nothing was sent to it.",
        ) from error
    sock.settimeout(None)
    return stream


def _check_role(server: bytes, identity: Path) -> None:
    """An authority signs clients too, and no client of the store may pass for a host (C7, C8).

    Identities that docker-machine made carry no role: then the authority and the name must do.
    """
    own = certificate_names(ssl.PEM_cert_to_DER_cert(identity.read_text()))
    stores = [uri.split("/")[3] for uri in own.uris if uri.startswith("spiffe://machine/")]
    if stores:
        server_role(server, stores[0])


def _mistrusted(where: str, error: OSError, machine: str) -> MachineError:
    return MachineError(
        f"Error checking TLS connection{where}",
        details=_reason(error),
        hint="The certificates and the host don't match. You can attempt to regenerate them "
        f"using `machine regenerate-certs {machine}`.",
    )


def _lost(error: OSError) -> MachineError:
    """With TLS 1.3 a refused client certificate shows up in the first read, not in the handshake."""
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return _mistrusted("", error, "NAME")
    return MachineError("Lost the connection to the engine", details=_reason(error))


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the host's certificate is not of this store: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error)


def _unreachable(target: Target, error: OSError) -> MachineError:
    name = target.machine or "NAME"
    return MachineError(
        f"Cannot connect to the engine at {target.url}",
        details=_reason(error),
        # refused: the host itself is up, so `machine status` would not help
        hint=f"The engine does not run there. Start it: machine provision {name}"
        if isinstance(error, ConnectionRefusedError)
        else f"Is the machine running? Try `machine status {name}`.",
    )
