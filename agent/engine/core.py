"""What the use cases share: the ports, the containers in memory, the bus, the waiters."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from agent.api.backend import HostFacts
from agent.engine import runtimefloor
from agent.engine.attachments import Attachments
from agent.engine.book import Book
from agent.engine.claims import VolumeClaims
from agent.engine.events import Bus
from agent.engine.inside import Inside
from agent.engine.lifecycle import Happening, step
from agent.engine.model import Container, State
from agent.engine.ports import Clock, Images, Network, Records, Runtime, Snapshots, Volumes
from agent.engine.sandboxfiles import SandboxFiles
from agent.engine.timers import Timers
from agent.engine.transfers import Transfers
from agent.engine.volumes_held import HeldVolumes
from agent.engine.waits import Waits
from agent.values import frozen

_log = logging.getLogger(__name__)


@frozen
class Ports:
    """The adapters, made by the composition root."""

    clock: Clock
    images: Images
    snapshots: Snapshots
    runtime: Runtime
    network: Network
    volumes: Volumes
    records: Records
    inside: Inside
    transfers: Transfers | None = None  # an engine without registries and archives has none


@frozen
class Settings:
    """`root`: absolute path of $ROOT; times in seconds.

    `boot_id` is /proc/sys/kernel/random/boot_id: a recorded pid means nothing under another one.
    """

    root: str
    boot_id: str
    host_etc: str = "/etc"
    stop_timeout: int = 10
    kill_timeout: float = 10.0  # how long an exit may take after SIGKILL
    exec_memory: float = 300.0  # how long an ended exec can still be inspected
    sweep_interval: float = 60.0
    workers: int = 4  # threads for exits and restarts


class Jobs:
    """A few threads for what must not hold up the runtime's watcher thread or the timers."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="engine")
        self._closed = threading.Event()

    def submit(self, function: Callable[[], None]) -> None:
        """Runs it soon; a failure is logged.  After `close` nothing is taken any more."""
        if not self._closed.is_set():
            self._pool.submit(function).add_done_callback(_report)

    def close(self) -> None:
        """Waits for what runs."""
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _report(future: Future[None]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _log.error("a job of the engine failed: %s", error, exc_info=error)


class Core:
    """One engine's shared state; a value holder with the few operations that everyone needs."""

    def __init__(self, ports: Ports, facts: HostFacts, settings: Settings) -> None:
        self.ports = ports
        self.facts = dataclasses.replace(
            facts,
            runtimes=ports.inside.runtimes,
            warnings=tuple(
                filter(None, [runtimefloor.warning(facts.runtime, facts.runtime_version)])
            ),
        )
        self.settings = settings
        self.book = Book()
        self.timers = Timers(ports.clock)
        self.bus = Bus(ports.clock, self.timers)
        self.waits = Waits()
        self.attachments = Attachments()
        self.claims = VolumeClaims()
        self.held_volumes = HeldVolumes(ports.volumes)
        self.files = SandboxFiles(settings.root, settings.host_etc)
        self.jobs = Jobs(settings.workers)

    def save(self, container: Container) -> Container:
        """Durable first, then visible."""
        self.ports.records.save(container)
        self.book.put(container)
        return container

    def event(self, container: Container, action: str, **extra: str) -> None:
        """A container event: image, name and labels are in every one."""
        self.event_with(container, action, extra)

    def event_with(self, container: Container, action: str, extra: Mapping[str, str]) -> None:
        attributes = {
            **container.config.labels,
            "image": container.config.image,
            "name": container.name,
            **extra,
        }
        self.bus.publish("container", action, container.id, attributes)


def stepped(container: Container, happening: Happening) -> State:
    """The state with the phase that follows.  Raises as `lifecycle.step` does."""
    phase = step(container.state.phase, happening, identity=container.id, name=container.name)
    return dataclasses.replace(container.state, phase=phase)


def with_state(container: Container, state: State) -> Container:
    return dataclasses.replace(container, state=state)
