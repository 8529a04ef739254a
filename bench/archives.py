"""Load, save and push of an image of 100 MB, and the removal of one of five layers."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import itertools
import json
import math
import os
import random
import socket
import tarfile
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from bench.client import Api, ApiError, pull
from bench.engines import Engine

_FILES = 200
_SIZE = 500_000  # bytes a file
_NUMBERS = itertools.count()


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _archive(name: str) -> bytes:
    """A docker archive of one layer, never the same twice; half of it does not compress."""
    noise = random.Random(os.urandom(8))
    half = _SIZE // 2
    words = b" ".join(noise.randbytes(6).hex().encode() for _ in range(200))
    text = (words * (half // len(words) + 1))[:half]
    layer = _tar({f"srv/{n}": noise.randbytes(half) + text for n in range(_FILES)})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()
    path = f"{hashlib.sha256(config).hexdigest()}.json"
    entry = {"Config": path, "RepoTags": [name], "Layers": ["layer.tar"]}
    return _tar({path: config, "layer.tar": layer, "manifest.json": json.dumps([entry]).encode()})


def _load(api: Api, body: bytes) -> float:
    """Seconds from the request to the end of the answer."""
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(300)
    connection.sock.connect(api.url.removeprefix("unix://"))
    start = time.perf_counter()
    headers = {"Content-Type": "application/x-tar"}
    connection.request("POST", "/v1.41/images/load?quiet=1", body, headers)
    answer = connection.getresponse()
    said = answer.read()
    spent = time.perf_counter() - start
    connection.close()
    if answer.status != 200 or b'"error"' in said:
        raise ApiError(said[-500:].decode(errors="replace"))
    return spent


def load_large(engine: Engine, api: Api) -> float:
    name = "bench-load:1"
    spent = _load(api, _archive(name))
    api.raw("DELETE", f"/images/{name}", force=1)
    return spent


def save_large(engine: Engine, api: Api) -> float:
    name = "bench-save:1"
    _load(api, _archive(name))
    start = time.perf_counter()
    size = sum(len(piece) for piece in api.stream(f"/images/{name}/get"))
    spent = time.perf_counter() - start
    api.raw("DELETE", f"/images/{name}", force=1)
    return spent if size > _FILES * _SIZE else math.nan


def push_large(engine: Engine, api: Api) -> float:
    """To the registry whose mirror the engine uses."""
    info = api.send("GET", "/info")
    mirrors = info["RegistryConfig"]["Mirrors"] if isinstance(info, dict) else []
    if not mirrors:
        return math.nan
    repository = f"{urlsplit(mirrors[0]).netloc}/bench/push{os.getpid()}-{next(_NUMBERS)}"
    _load(api, _archive(f"{repository}:1"))
    start = time.perf_counter()
    said = b"".join(_push(api, repository))
    spent = time.perf_counter() - start
    api.raw("DELETE", f"/images/{repository}:1", force=1)
    if b'"error"' in said:
        raise ApiError(said[-500:].decode(errors="replace"))
    return spent


def _push(api: Api, repository: str) -> list[bytes]:
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(300)
    connection.sock.connect(api.url.removeprefix("unix://"))
    headers = {"X-Registry-Auth": "e30="}
    connection.request("POST", f"/v1.41/images/{repository}/push?tag=1", None, headers)
    answer = connection.getresponse()
    found = [answer.read()]
    connection.close()
    if answer.status != 200:
        raise ApiError(found[0][:300].decode(errors="replace"))
    return found


def remove_layers(engine: Engine, api: Api) -> float:
    """DELETE of an image of five layers, about 6,000 files each."""
    for other in ("gzip", "zstd"):
        with contextlib.suppress(ApiError):
            api.raw("DELETE", f"/images/layers:{other}", force=1)
    pull(api, "layers", "latest")
    start = time.perf_counter()
    api.raw("DELETE", "/images/layers:latest")
    return time.perf_counter() - start
