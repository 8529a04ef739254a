"""A raw Engine API client for measurements: one kept connection, no cleverness."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlencode


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(300)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


class ApiError(Exception):
    """The engine answered 400 or more."""


class Api:
    """One engine by its unix:// address.  Not thread-safe: one a thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = _UnixConnection(url.removeprefix("unix://"))

    def send(self, method: str, path: str, body: object = None, **query: object) -> object:
        """One request; the decoded answer, or its bytes when it is not JSON."""
        data = self.raw(method, path, body, **query)
        try:
            return json.loads(data) if data else None
        except ValueError:
            return data

    def raw(self, method: str, path: str, body: object = None, **query: object) -> bytes:
        target = f"/v1.41{path}" + (f"?{urlencode(query)}" if query else "")
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if payload else {}
        self._connection.request(method, target, payload, headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status >= 400:
            raise ApiError(f"{method} {path}: {response.status} {data[:300]!r}")
        return data

    def stream(self, path: str, **query: object) -> Iterator[bytes]:
        """A GET whose body is taken as it comes; on a connection of its own."""
        connection = _UnixConnection(self.url.removeprefix("unix://"))
        connection.request("GET", f"/v1.41{path}?{urlencode(query)}")
        response = connection.getresponse()
        while chunk := response.read1(1 << 20):
            yield chunk
        connection.close()

    def hijack(self, path: str, body: object) -> bytes:
        """POST that becomes a raw stream; everything until its end."""
        payload = json.dumps(body).encode()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(300)
        sock.connect(self.url.removeprefix("unix://"))
        head = (
            f"POST /v1.41{path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        sock.sendall(head.encode() + payload)
        parts = []
        while chunk := sock.recv(1 << 16):
            parts.append(chunk)
        sock.close()
        return b"".join(parts)

    def close(self) -> None:
        self._connection.close()


def create(api: Api, command: list[str], **host: object) -> str:
    """POST /containers/create of the bench's image; the id."""
    published = host.get("PortBindings")
    exposed: dict[str, object] = (
        {port: {} for port in published} if isinstance(published, dict) else {}
    )
    body = {"Image": "busybox", "Cmd": command, "ExposedPorts": exposed, "HostConfig": host}
    answer = api.send("POST", "/containers/create", body)
    return str(answer["Id"])  # type: ignore[index]


def pull(api: Api, image: str, tag: str) -> None:
    """Pull; an error inside the progress stream is an ApiError."""
    data = api.raw("POST", "/images/create", fromImage=image, tag=tag)
    for line in data.splitlines():
        if b'"error"' in line:
            raise ApiError(line.decode())
