"""A scripted registry on 127.0.0.x, and hand-made layers and images for it.

Standard library only.  Every request is logged with its headers; a path can be scripted with
replies in order (the last one repeats) or with a function that writes to the socket itself.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import socket
import ssl
import struct
import tarfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # Content-Length to claim; -1: none, the end of connection ends it
    reset: bool = False  # send an RST after the body


Script = Callable[[socket.socket, Seen], None]


@dataclass
class Layer:
    """A layer: its tar, its compressed blob, its media type."""

    tar: bytes
    blob: bytes
    media_type: str = GZIP_LAYER

    @property
    def diff_id(self) -> str:
        return sha256(self.tar)

    @property
    def digest(self) -> str:
        return sha256(self.blob)

    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.blob)}


def layer(tar: bytes, media_type: str = GZIP_LAYER) -> Layer:
    return Layer(tar, gzip.compress(tar, 1, mtime=0), media_type)


def member(
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    **other: object,
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    for key, value in other.items():
        setattr(info, key, value)
    return info, data


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw_header(name: bytes, length: int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """A ustar header byte by byte; fields: mode, uid, gid, size, mtime, link, chksum."""
    block = bytearray(512)
    block[0 : len(name[:100])] = name[:100]
    block[100:108] = fields.get("mode", b"0000644\0")
    block[108:116] = fields.get("uid", b"0000000\0")
    block[116:124] = fields.get("gid", b"0000000\0")
    block[124:136] = fields.get("size", b"%011o\0" % length)
    block[136:148] = fields.get("mtime", b"%011o\0" % 1700000000)
    block[156:157] = kind
    link = fields.get("link", b"")[:100]
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = fields.get("chksum", b"%06o\0 " % sum(block))
    return bytes(block)


def pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


END = b"\0" * 1024


def config_for(layers: Iterable[Layer], /, **extra: object) -> bytes:
    document: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
    }
    return json.dumps({**document, **extra}).encode()


def manifest_for(layers: Iterable[Layer], config: bytes, /, **extra: object) -> bytes:
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)},
        "layers": [one.descriptor() for one in layers],
    }
    return json.dumps({**document, **extra}).encode()


class EvilRegistry:
    """Use as a context manager.  `address` is host:port."""

    def __init__(self, host: str = "127.0.0.2", tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server((host, 0), backlog=256)
        self._tls = tls
        self.port: int = self._listener.getsockname()[1]
        self.address = f"{host}:{self.port}"
        self.log: list[Seen] = []
        self.accepted = 0
        self._scripts: dict[str, list[Reply | Script]] = {}
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = False
        self.on_accept: Callable[[socket.socket], bool] | None = None  # True: swallowed

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in list(self._open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------------------------- scripting

    def script(self, path: str, *steps: Reply | Script) -> None:
        self._scripts[path] = list(steps)

    def blob(self, repo: str, data: bytes) -> str:
        digest = sha256(data)
        self.script(f"/v2/{repo}/blobs/{digest}", self._ranged(data))
        return digest

    def manifest(self, repo: str, tag: str, raw: bytes, media_type: str = OCI_MANIFEST) -> str:
        digest = sha256(raw)
        for name in (tag, digest):
            if name:
                reply = Reply(200, raw, {"Content-Type": media_type})
                self.script(f"/v2/{repo}/manifests/{name}", reply)
        return digest

    def image(self, repo: str, tag: str, layers: list[Layer], **config: object) -> str:
        """Serve a whole image; returns its manifest's digest."""
        raw_config = config_for(layers, **config)
        self.blob(repo, raw_config)
        for one in layers:
            self.blob(repo, one.blob)
        return self.manifest(repo, tag, manifest_for(layers, raw_config))

    def requests(self, part: str) -> list[Seen]:
        return [seen for seen in self.log if part in seen.path]

    @staticmethod
    def _ranged(data: bytes) -> Script:
        def answer(connection: socket.socket, seen: Seen) -> None:
            wanted = seen.headers.get("range", "")
            if wanted:
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
                headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
                send(connection, Reply(206, data[start:], headers))
            else:
                send(connection, Reply(200, data))

        return answer

    # --------------------------------------------------------------------------------- serving

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._connection, args=(connection,), daemon=True).start()

    def _connection(self, raw: socket.socket) -> None:
        connection = raw
        with self._lock:
            self._open.add(raw)
        try:
            if self.on_accept is not None and self.on_accept(raw):
                return
            if self._tls is not None:
                connection = self._tls.wrap_socket(raw, server_side=True)
            elif raw.recv(1, socket.MSG_PEEK) == b"\x16":
                return  # a TLS hello for a plain server
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._one(connection):
                pass
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(raw)
            connection.close()

    def _one(self, connection: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(65536)
            if not more:
                return False
            head += more
        head, _, body = head.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        while len(body) < int(headers.get("content-length", "0")):
            body += connection.recv(65536)
        seen = Seen(method, path, headers, body)
        with self._lock:
            self.log.append(seen)
            steps = self._scripts.get(path.partition("?")[0], [Reply(404)])
            step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, Reply):
            return send(connection, step)
        step(connection, seen)
        return True


def send(connection: socket.socket, reply: Reply) -> bool:
    """Write a reply; False when the connection is over."""
    length = len(reply.body) if reply.length is None else reply.length
    lines = [f"HTTP/1.1 {reply.status} X"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if length >= 0:
        lines.append(f"Content-Length: {length}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body)
    if reply.reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if reply.reset or length != len(reply.body):
        connection.close()
        return False
    return True
