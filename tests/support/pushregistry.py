"""A small writable registry (distribution specification) with faults to order, on loopback."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.support.evilregistry import sha256

_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([^?]*)(?:\?(.*))?")
_BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
_MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/?]+)")


class PushRegistry:
    """`blobs` and `manifests` by repository; `failures[method]` answers 503 that many times."""

    def __init__(self, host: str = "127.0.0.3") -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.log: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.mounts = True
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, 0), self._handler())
        self.address = f"{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(_Handler):
            owner = registry

        return Handler


class _Handler(BaseHTTPRequestHandler):
    owner: PushRegistry
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _serve(self) -> None:
        owner, data = self.owner, self._body()
        with owner.lock:
            owner.log[self.command] += 1
            if owner.failures[self.command] > 0:
                owner.failures[self.command] -= 1
                self._answer(503)
                return
            if self.path == "/v2/":
                self._answer(200, b"{}")
            elif found := _UPLOAD.fullmatch(self.path):
                self._upload(found[1], found[2], found[3] or "", data)
            elif found := _BLOB.fullmatch(self.path):
                blob = owner.blobs.get((found[1], found[2]))
                self._answer(404 if blob is None else 200, blob or b"")
            elif found := _MANIFEST.fullmatch(self.path):
                self._manifest(found[1], found[2], data)
            else:
                self._answer(404)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815

    def _upload(self, repo: str, session: str, query: str, data: bytes) -> None:
        owner = self.owner
        if self.command == "POST":
            given = dict(part.split("=", 1) for part in query.split("&") if part)
            source = owner.blobs.get((given.get("from", ""), given.get("mount", "")))
            if owner.mounts and source is not None:
                owner.blobs[repo, given["mount"]] = source
                self._answer(201)
                return
            session = str(owner.log["POST"])
            owner.uploads[session] = bytearray()
            self._answer(202, Location=f"/v2/{repo}/blobs/uploads/{session}")
        elif self.command == "PATCH":
            owner.uploads[session] += data
            self._answer(202, Location=f"/v2/{repo}/blobs/uploads/{session}?state=x")
        elif self.command == "PUT":
            digest = query.rpartition("digest=")[2].replace("%3A", ":")
            blob = bytes(owner.uploads.pop(session)) + data
            if sha256(blob) != digest:
                self._answer(400, json.dumps({"errors": [{"code": "DIGEST_INVALID"}]}).encode())
                return
            owner.blobs[repo, digest] = blob
            self._answer(201)
        else:
            owner.uploads.pop(session, None)
            self._answer(204)

    def _manifest(self, repo: str, target: str, data: bytes) -> None:
        owner = self.owner
        if self.command == "PUT":
            kind = self.headers["Content-Type"]
            owner.manifests[repo, target] = owner.manifests[repo, sha256(data)] = kind, data
            self._answer(201)
            return
        found = owner.manifests.get((repo, target))
        if found is None:
            self._answer(404)
        else:
            digest = sha256(found[1])
            self._answer(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest)
