"""Copies into and out of a container, by the archive API alone (no client's own work counts)."""

from __future__ import annotations

import http.client
import io
import tarfile
import time
from urllib.parse import urlencode

from bench.client import Api, ApiError, _UnixConnection, create
from bench.engines import Engine

_LARGE = 100 << 20
_COUNT = 2000
_FILE = b"0123456789abcdef" * 128  # 2 KiB


def _tar(files: int, size: int) -> bytes:
    buffer = io.BytesIO()
    data = _FILE * (size // len(_FILE))
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(files):
            member = tarfile.TarInfo(f"tree/{number // 100}/{number}")
            member.size = size
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _put(api: Api, container: str, data: bytes) -> float:
    connection = _UnixConnection(api.url.removeprefix("unix://"))
    start = time.perf_counter()
    connection.request("PUT", f"/v1.41/containers/{container}/archive?path=/tmp", data)
    _done(connection.getresponse())
    spent = time.perf_counter() - start
    connection.close()
    return spent


def _get(api: Api, container: str) -> float:
    connection = _UnixConnection(api.url.removeprefix("unix://"))
    start = time.perf_counter()
    connection.request("GET", f"/v1.41/containers/{container}/archive?path=/tmp/tree")
    response = connection.getresponse()
    size = 0
    while data := response.read1(1 << 20):
        size += len(data)
    spent = time.perf_counter() - start
    connection.close()
    if size < _COUNT * len(_FILE):
        raise ApiError(f"only {size} bytes came out")
    return spent


def _done(response: http.client.HTTPResponse) -> None:
    said = response.read()
    if response.status != 200:
        raise ApiError(f"copy: {response.status} {urlencode({'said': said[:200]})}")


class _Copy:
    """In, or out, of a running container."""

    def __init__(self, files: int, size: int, *, out: bool) -> None:
        self._files = files
        self._size = size
        self._out = out

    def __call__(self, engine: Engine, api: Api) -> float:
        container = create(api, ["sleep", "600"])
        try:
            api.raw("POST", f"/containers/{container}/start")
            inward = _put(api, container, _tar(self._files, self._size))
            return _get(api, container) if self._out else inward
        finally:
            api.raw("DELETE", f"/containers/{container}", force=1)


copy_large_in = _Copy(1, _LARGE, out=False)
copy_large_out = _Copy(1, _LARGE, out=True)
copy_many_in = _Copy(_COUNT, len(_FILE), out=False)
copy_many_out = _Copy(_COUNT, len(_FILE), out=True)
