"""Raw clients: bytes over a unix socket or TLS, with half-closes under the test's control."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from dataclasses import dataclass, field

from tests.api.certs import Authority, Files

TIMEOUT = 20.0


class UnixClient:
    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(path)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def recv(self, size: int = 65536) -> bytes:
        return self.socket.recv(size)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


class TlsClient:
    """TLS whose half-close is the docker CLI's: close_notify, and reading on."""

    def __init__(self, address, authority: Authority, files: Files | None, **options) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(authority.path)
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        for name, value in options.items():
            if name == "alpn":
                context.set_alpn_protocols(value)
            elif name == "ciphers":
                context.set_ciphers(value)
            else:
                setattr(context, name, value)
        self.socket = socket.create_connection(address, TIMEOUT)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")
        self._lock = threading.RLock()
        self._aside = b""
        try:
            self._until_done(self.tls.do_handshake)
        except BaseException:
            self.socket.close()
            raise

    def _flush(self) -> None:
        with self._lock:
            data = self._out.read()
            if data:
                self.socket.sendall(data)

    def _until_done(self, call):
        while True:
            try:
                with self._lock:
                    if self._aside:
                        aside, self._aside = self._aside, b""
                        return aside
                    result = call()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.socket.recv(65536)
                with self._lock:
                    self._in.write(data) if data else self._in.write_eof()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()
                raise
            else:
                self._flush()
                return result

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), 65536):
            with self._lock:
                self.tls.write(data[start : start + 65536])
                out = self._out.read()
            self.socket.sendall(out)

    def recv(self, size: int = 65536) -> bytes:
        try:
            return bytes(self._until_done(lambda: self.tls.read(size)))
        except ssl.SSLZeroReturnError:
            return b""

    def half_close(self) -> None:
        with self._lock:
            # Python's unwrap() also looks for the peer's close_notify and takes pending data for
            # an error, so that is put aside first.
            with contextlib.suppress(ssl.SSLWantReadError):
                while data := self.tls.read(65536):
                    self._aside += data
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
        self._flush()

    def close(self) -> None:
        self.socket.close()


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    rest: bytes = field(default=b"", repr=False)


def read_head(client) -> Response:
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv()
        if not more:
            raise EOFError(data)
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    return Response(int(first.split()[1]), headers, rest=rest)


def read_response(client, *, head: bool = False) -> Response:
    response = read_head(client)
    if head or response.status in {204, 304}:
        return response
    if response.headers.get("transfer-encoding") == "chunked":
        data = response.rest
        while True:
            while b"\r\n" not in data:
                data += _more(client)
            size_text, _, data = data.partition(b"\r\n")
            size = int(size_text, 16)
            while len(data) < size + 2:
                data += _more(client)
            response.body += data[:size]
            assert data[size : size + 2] == b"\r\n"
            data = data[size + 2 :]
            if not size:
                response.rest = data
                return response
    length = int(response.headers["content-length"])
    data = response.rest
    while len(data) < length:
        data += _more(client)
    response.body, response.rest = data[:length], data[length:]
    return response


def _more(client) -> bytes:
    data: bytes = client.recv()
    if not data:
        raise EOFError("response cut off")
    return data


def request(method: str, target: str, body: bytes | None = None, *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: docker", *fields]
    if body is not None and not any(line.lower().startswith("content-length") for line in fields):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


JSON_TYPE = "Content-Type: application/json"
UPGRADE = ("Connection: Upgrade", "Upgrade: tcp")


def read_all(client) -> bytes:
    parts = []
    while data := client.recv():
        parts.append(data)
    return b"".join(parts)


def digest_of(pieces) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
