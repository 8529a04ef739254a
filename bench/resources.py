"""Memory, and how soon an engine is there."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.archives import pushed
from bench.client import Api, ApiError, create, pull
from bench.engines import Engine

_MIB: Final = 1 << 20
_CONTAINERS: Final = 120
_RUNNING: Final = 20
_LOOK: Final = 0.05  # seconds between looks at the memory


def idle_memory(engine: Engine, api: Api) -> float:
    """MiB of the engine's own processes with nothing running."""
    del api
    value = engine.pss()
    return math.nan if value is None else value / _MIB


def container_memory(engine: Engine, api: Api) -> float:
    """MiB that each of twenty running containers adds to the engine's own processes."""
    removed(engine, [_sleeping(api)])  # what the first one ever costs is not theirs
    before = engine.pss()
    if before is None:
        return math.nan
    made = [_sleeping(api) for _ in range(_RUNNING)]
    after = engine.pss() or 0
    removed(engine, made)
    return (after - before) / _RUNNING / _MIB


def _sleeping(api: Api) -> str:
    container = create(api, ["sleep", "600"])
    api.raw("POST", f"/containers/{container}/start")
    return container


def pull_memory(engine: Engine, api: Api) -> float:
    """MiB at most above idle while 200 MB in four layers are pulled."""
    image = pushed(api, "pull-memory", layers=4)
    before = engine.pss()
    if not image or before is None:
        return math.nan
    highest, stop = before, threading.Event()

    def look() -> None:
        nonlocal highest
        while not stop.wait(_LOOK):
            highest = max(highest, engine.pss() or 0)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        repository, _, tag = image.rpartition(":")
        pull(api, repository, tag)
    finally:
        stop.set()
        looking.join()
        with contextlib.suppress(ApiError):
            api.raw("DELETE", f"/images/{image}", force=1)
    return (highest - before) / _MIB


def start_up(engine: Engine, api: Api) -> float:
    """Seconds from the program's start to its first ping, after an orderly stop."""
    if engine.start is None or engine.stop is None:
        return math.nan
    api.close()
    engine.stop()
    start = time.perf_counter()
    engine.start()
    return time.perf_counter() - start


def start_up_full(engine: Engine, api: Api) -> float:
    """The same with 120 containers, created."""
    if engine.start is None:
        return math.nan
    made = [create(api, ["true"]) for _ in range(_CONTAINERS)]
    spent = start_up(engine, api)
    removed(engine, made)
    return spent


def removed(engine: Engine, containers: list[str]) -> None:
    """All of them, running or not."""

    def one(container: str) -> None:
        api = engine.api()
        api.raw("DELETE", f"/containers/{container}", force=1)
        api.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, containers))
