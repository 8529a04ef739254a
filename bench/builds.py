"""Builds by the classic API: ten steps cold and cached, and a COPY of 50 MB."""

from __future__ import annotations

import http.client
import io
import os
import socket
import tarfile
import time
from collections.abc import Mapping
from urllib.parse import urlencode

from bench.client import Api, ApiError
from bench.engines import Engine

TEN_STEPS = b"""FROM busybox
ENV A=1
LABEL step=three
WORKDIR /srv
COPY a.txt /srv/
RUN echo one > /one
RUN cat /one /srv/a.txt > /two
RUN ls / > /three
EXPOSE 80
CMD ["true"]
"""
_COPY = b"FROM scratch\nCOPY big /big/\n"
_SIZE = 50_000_000
_FILES = 50


def context(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _build(api: Api, body: bytes, **query: object) -> float:
    """Seconds from the request to the end of the answer."""
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(300)
    connection.sock.connect(api.url.removeprefix("unix://"))
    start = time.perf_counter()
    target = f"/v1.41/build?{urlencode({'version': 1, 'rm': 1, **query})}"
    connection.request("POST", target, body, {"Content-Type": "application/x-tar"})
    answer = connection.getresponse()
    said = answer.read()
    spent = time.perf_counter() - start
    connection.close()
    if answer.status != 200 or b'"error"' in said:
        raise ApiError(said[-500:].decode(errors="replace"))
    return spent


def ten_steps_cold(engine: Engine, api: Api) -> float:
    """Nothing from the cache; three of the steps are RUN."""
    del engine
    body = context({"Dockerfile": TEN_STEPS, "a.txt": b"a"})
    return _build(api, body, nocache=1, t="bench-ten")


def ten_steps_cached(engine: Engine, api: Api) -> float:
    """The same once more, all from the cache; the mean of five."""
    del engine
    body = context({"Dockerfile": TEN_STEPS, "a.txt": b"a"})
    _build(api, body, t="bench-ten")
    return sum(_build(api, body, t="bench-ten") for _ in range(5)) / 5


def copy_large(engine: Engine, api: Api) -> float:
    """50 MB of noise in 50 files, sent and copied."""
    del engine
    piece = _SIZE // _FILES
    files = {f"big/{number}": os.urandom(piece) for number in range(_FILES)}
    return _build(api, context({"Dockerfile": _COPY, **files}), nocache=1, t="bench-copy")
