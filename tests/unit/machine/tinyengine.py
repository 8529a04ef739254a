"""A tiny engine for tests of its clients: canned answers on a unix socket, or over mutual TLS.

One request a connection. What was asked is kept in `asked`; an answer that is a list is sent in
chunks; a hijacked request gets its bytes, then what the client sends comes back until its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from tests.api.certs import STORE, Authority

Answer = tuple[int, object]


@dataclasses.dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str  # without the version
    query: dict[str, str]
    headers: dict[str, str]
    body: object


class TinyEngine:
    """Serves `answers` ("METHOD /path" -> (status, document)) until `close`."""

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.hijacked = b""
        self.asked: list[Asked] = []
        self._listener, self._tls = listener, tls
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def last(self) -> Asked:
        return self.asked[-1]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if self._tls:
                connection = stack.enter_context(
                    self._tls.wrap_socket(connection, server_side=True)
                )
            file = stack.enter_context(connection.makefile("rb"))
            if not file.peek(1):
                return  # a client that went away without a word
            asked = _read(iter(file.readline, b""), file.read)
            self.asked.append(asked)
            if asked.headers.get("upgrade") == "tcp":
                connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n"
                                   b"Upgrade: tcp\r\n\r\n" + self.hijacked)  # fmt: skip
                while data := file.read1(65536):
                    connection.sendall(data)
                return
            connection.sendall(self._answer(asked))

    def _answer(self, asked: Asked) -> bytes:
        status, document = self.answers.get(
            f"{asked.method} {asked.path}", (404, {"message": f"no answer for {asked.path}"})
        )
        head = f"HTTP/1.1 {status} X\r\nConnection: close\r\n"
        if isinstance(document, list) and document and isinstance(document[0], bytes):
            chunks = b"".join(f"{len(c):x}\r\n".encode() + c + b"\r\n" for c in document)
            return (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + chunks + b"0\r\n\r\n"
        if isinstance(document, bytes):
            return document
        body = b"" if document is None else json.dumps(document).encode()
        return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def _read(lines: Iterator[bytes], read: object) -> Asked:
    method, target, _ = next(lines).decode().split(" ")
    headers = {}
    for line in lines:
        if not line.strip():
            break
        name, _, value = line.decode().partition(":")
        headers[name.strip().lower()] = value.strip()
    assert callable(read)
    raw = read(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    path = "/" + parts.path.split("/", 2)[2]
    return Asked(
        method, path, dict(parse_qsl(parts.query)), headers, json.loads(raw) if raw else None
    )


@contextlib.contextmanager
def unix_engine(folder: Path, answers: Mapping[str, Answer] = {}) -> Iterator[TinyEngine]:
    """An engine on FOLDER/e.sock."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "e.sock"))
    listener.listen()
    with TinyEngine(listener) as engine:
        engine.answers.update(answers)
        yield engine


@contextlib.contextmanager
def tls_engine(folder: Path, store: str = STORE) -> Iterator[tuple[TinyEngine, int]]:
    """(engine, port) on 127.0.0.1; FOLDER gets ca.pem, cert.pem and key.pem for its clients."""
    authority = Authority(folder)
    server, client = authority.server(store=store), authority.client()
    Path(client.certificate).rename(folder / "cert.pem")
    Path(client.key).rename(folder / "key.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
    context.load_cert_chain(server.certificate, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    with TinyEngine(listener, context) as engine:
        yield engine, listener.getsockname()[1]
