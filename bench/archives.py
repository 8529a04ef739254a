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


def _layer(noise: random.Random, files: int) -> bytes:
    half = _SIZE // 2
    words = b" ".join(noise.randbytes(6).hex().encode() for _ in range(200))
    text = (words * (half // len(words) + 1))[:half]
    return _tar({f"srv/{n}": noise.randbytes(half) + text for n in range(files)})


def _archive(name: str, layers: int = 1) -> bytes:
    """A docker archive of 100 MB (200 MB in several layers), never the same twice; half of it
    does not compress."""
    noise = random.Random(os.urandom(8))
    files = _FILES if layers == 1 else 2 * _FILES // layers
    made = [_layer(noise, files) for _ in range(layers)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in made],
            },
        }
    ).encode()
    path = f"{hashlib.sha256(config).hexdigest()}.json"
    named = {f"layer{number}.tar": one for number, one in enumerate(made)}
    entry = {"Config": path, "RepoTags": [name], "Layers": list(named)}
    return _tar({path: config, **named, "manifest.json": json.dumps([entry]).encode()})


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


def _repository(api: Api, name: str) -> str:
    """A new one in the registry whose mirror the engine uses; "" = it uses none."""
    info = api.send("GET", "/info")
    mirrors = info["RegistryConfig"]["Mirrors"] if isinstance(info, dict) else []
    if not mirrors:
        return ""
    return f"{urlsplit(mirrors[0]).netloc}/bench/{name}{os.getpid()}-{next(_NUMBERS)}"


def push_large(engine: Engine, api: Api) -> float:
    repository = _repository(api, "push")
    if not repository:
        return math.nan
    _load(api, _archive(f"{repository}:1"))
    start = time.perf_counter()
    _push(api, repository)
    spent = time.perf_counter() - start
    api.raw("DELETE", f"/images/{repository}:1", force=1)
    return spent


def pushed(api: Api, name: str, layers: int) -> str:
    """A new image of 200 MB in the registry, and no longer in the engine; "" = no registry."""
    repository = _repository(api, name)
    if repository:
        _load(api, _archive(f"{repository}:1", layers))
        _push(api, repository)
        api.raw("DELETE", f"/images/{repository}:1", force=1)
    return repository and f"{repository}:1"


def _push(api: Api, repository: str) -> None:
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(300)
    connection.sock.connect(api.url.removeprefix("unix://"))
    headers = {"X-Registry-Auth": "e30="}
    connection.request("POST", f"/v1.41/images/{repository}/push?tag=1", None, headers)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.status != 200 or b'"error"' in said:
        raise ApiError(said[-500:].decode(errors="replace"))


def remove_layers(engine: Engine, api: Api) -> float:
    """DELETE of an image of five layers, about 6,000 files each."""
    for other in ("gzip", "zstd"):
        with contextlib.suppress(ApiError):
            api.raw("DELETE", f"/images/layers:{other}", force=1)
    pull(api, "layers", "latest")
    start = time.perf_counter()
    api.raw("DELETE", "/images/layers:latest")
    return time.perf_counter() - start
