"""In-memory stand-ins for every port of the engine, for tests of the engine and of the API.

Each keeps the contract of agent/engine/ports.py.  `World` is a set of them with an Engine; a test
makes containers end with `world.runtime.end(id, code)`.  Failures: `fake.fail["method"] = error`
raises it at the next calls of that method until removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from agent.api.backend import CreateRequest, HostFacts
from agent.engine.engine import Engine, Ports, Settings
from agent.engine.inside import Process, Sample
from agent.engine.model import (
    Container,
    ContainerConfig,
    Endpoint,
    EndpointRequest,
    ExecConfig,
    HostConfig,
    Image,
    ImageConfig,
    LogQuery,
    NetworkSpec,
    PortBinding,
    Progress,
    PublishedPort,
    RegistryAuth,
    Resources,
    Volume,
)
from agent.engine.ports import Exit, Launch, NameServers, NetworkInfo, Removed, Rootfs, Survivor
from agent.errors import EngineError, conflict, forbidden, internal, not_found
from agent.wire.streams import STDOUT, Duplex, PullStream

SECOND = 1_000_000_000
BUSYBOX = Image(
    id="sha256:" + "b" * 64,
    created="2026-01-01T00:00:00Z",
    architecture="amd64",
    os="linux",
    variant="",
    config=ImageConfig(
        env=("PATH=/bin", "LANG=C"),
        cmd=("sh",),
        labels={"maker": "test"},
        exposed_ports=("80/tcp",),
    ),
    size=1000,
    diff_ids=("sha256:" + "d" * 64,),
    tags=("busybox:latest",),
)
FACTS = HostFacts(
    id="engine-id",
    name="host1",
    kernel="6.1",
    operating_system="Debian",
    os_version="12",
    architecture="x86_64",
    go_architecture="amd64",
    cpus=4,
    memory=8 << 30,
    cgroup_version="2",
    runtime="crun",
    runtime_version="1.8",
    conmon_version="2.1",
    root="/nowhere",
    agent_version="0.1",
)


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000 * SECOND
        self.steady = 1000.0

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def advance(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.steady += seconds


class Fake:
    """Failures on demand, and a journal of (method, id) in call order."""

    def __init__(self, journal: list[tuple[str, str]] | None = None) -> None:
        self.fail: dict[str, Exception] = {}
        self.journal: list[tuple[str, str]] = [] if journal is None else journal

    def _call(self, method: str, identity: str = "") -> None:
        self.journal.append((f"{type(self).__name__[4:].lower()}.{method}", identity))
        if method in self.fail:
            raise self.fail[method]


class FakeImages(Fake):
    """Knows `BUSYBOX`; a pull "downloads" any name with the same content."""

    def __init__(self, journal: list[tuple[str, str]] | None = None) -> None:
        super().__init__(journal)
        self.images: dict[str, Image] = {BUSYBOX.id: BUSYBOX}
        self.pull_lines = (
            Progress("Pulling fs layer", id="abc"),
            Progress("Pull complete", id="abc"),
        )

    def pull(
        self,
        reference: str,
        *,
        platform: str,
        auth: RegistryAuth | None,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Image:
        self._call("pull", reference)
        for line in self.pull_lines:
            progress(line)
        tag = reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"
        image = dataclasses.replace(BUSYBOX, tags=tuple({*BUSYBOX.tags, tag}))
        self.images[image.id] = image
        return image

    def get(self, reference: str) -> Image:
        self._call("get", reference)
        for image in self.images.values():
            plain = image.id.removeprefix("sha256:")
            tagged = reference in image.tags or f"{reference}:latest" in image.tags
            if (
                tagged
                or reference == image.id
                or (len(reference) > 3 and plain.startswith(reference))
            ):
                return image
        raise not_found(f"No such image: {reference}")

    def all(self) -> list[Image]:
        return list(self.images.values())

    def tag(self, source: str, repo: str, tag: str) -> Image:
        image = self.get(source)
        tagged = dataclasses.replace(image, tags=(*image.tags, f"{repo}:{tag or 'latest'}"))
        self.images[image.id] = tagged
        return tagged

    def remove(
        self, reference: str, *, force: bool, users: Callable[[str], Sequence[tuple[str, bool]]]
    ) -> list[Removed]:
        image = self.get(reference)
        found = users(image.id)
        if found and not force:
            raise conflict(
                f'conflict: unable to remove repository reference "{reference}" (must force) -'
                f" container {found[0][0][:12]} is using its referenced image {image.id[7:19]}"
            )
        del self.images[image.id]
        return [*(Removed(untagged=one) for one in image.tags), Removed(deleted=image.id)]


class FakeSnapshots(Fake):
    """Writable layers as names; `known` after `reconcile`."""

    def __init__(self, journal: list[tuple[str, str]] | None = None) -> None:
        super().__init__(journal)
        self.layers: dict[str, Rootfs] = {}
        self.folder = "/nowhere"

    def prepare(self, container_id: str, image_id: str) -> Rootfs:
        self._call("prepare", container_id)
        top = f"{self.folder}/{container_id}"
        rootfs = Rootfs(lower=("/nowhere/layer",), upper=f"{top}/upper", work=f"{top}/work")
        return self.layers.setdefault(container_id, rootfs)

    def rootfs(self, container_id: str) -> Rootfs:
        if container_id not in self.layers:
            raise not_found(f"No such container: {container_id}")
        return self.layers[container_id]

    def remove(self, container_id: str) -> None:
        self._call("remove", container_id)
        self.layers.pop(container_id, None)

    def reconcile(self, known: Iterable[str]) -> None:
        keep = set(known)
        self.layers = {one: value for one, value in self.layers.items() if one in keep}


class FakeDuplex:
    """A Duplex that a test feeds with `push` and `finish`; what was written is in `written`."""

    def __init__(self, *, tty: bool = False) -> None:
        self._tty = tty
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._output: deque[tuple[int, bytes]] = deque()
        self._ended = False
        self.written = b""
        self.write_closed = False
        self.closed = False

    @property
    def tty(self) -> bool:
        return self._tty

    def push(self, stream: int, data: bytes) -> None:
        with self._lock:
            if not self.closed:
                self._output.append((stream, data))
                os.eventfd_write(self._fd, 1)

    def finish(self) -> None:
        with self._lock:
            self._ended = True
            if not self.closed:
                os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[tuple[int, bytes]] | None:
        with self._lock:
            found = list(self._output)
            self._output.clear()
            if found:
                return found
            if self._ended:
                return []
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)
            return None

    def write(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def write_fileno(self) -> int | None:
        return None

    def close_write(self) -> None:
        assert not self.write_closed
        self.write_closed = True

    def close(self) -> None:
        with self._lock:
            assert not self.closed
            self.closed = True
            os.close(self._fd)


class FakeStream:
    """A PullStream over given pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = deque(pieces)
        self._fd = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.closed = False

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes | None:
        return self._pieces.popleft() if self._pieces else b""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._fd)


class FakeExec:
    """A running exec; ends with `world.runtime.finish_exec(exec_id, code)`."""

    def __init__(self, config: ExecConfig, on_exit: Callable[[int], None], *, detach: bool) -> None:
        self.pid = 4242
        self.config = config
        self.on_exit = on_exit
        self.size: tuple[int, int] | None = None
        self.duplex = None if detach else FakeDuplex(tty=config.tty)

    def stream(self) -> Duplex | None:
        return self.duplex

    def resize(self, height: int, width: int) -> None:
        self.size = (height, width)


@dataclasses.dataclass
class FakeProcess:
    """One container's process in the fake runtime."""

    launch: Launch
    pid: int
    started: bool = False
    paused: bool = False
    exit: Exit | None = None
    attached: list[FakeDuplex] = dataclasses.field(default_factory=list)
    signals: list[int] = dataclasses.field(default_factory=list)


class FakeView:
    """A folder of the test as a container's root."""

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd

    def close(self) -> None:
        os.close(self.root_fd)


class FakeRuntime(Fake):
    """Processes that end when a test says so, or by SIGTERM and SIGKILL as usual.

    `ignored` signals don't end a process.  `on_start(container_id)` is called inside `start`.
    `forget_agent()` is what a killed agent leaves: the processes stay, the watcher is gone.
    """

    name = "fake"

    def __init__(self, clock: ManualClock, journal: list[tuple[str, str]] | None = None) -> None:
        super().__init__(journal)
        self._clock = clock
        self._pids = itertools.count(100)
        self._lock = threading.RLock()
        self._watcher: Callable[[Exit], None] | None = None
        self.inits: dict[str, FakeProcess] = {}
        self.execs: dict[str, FakeExec] = {}
        self.ignored: set[int] = set()
        self.log: dict[str, list[bytes]] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.samples: dict[str, Sample] = {}
        self.limits: dict[str, Resources] = {}
        self.on_start: Callable[[str], None] = lambda _identity: None

    def create(self, launch: Launch) -> int:
        identity = launch.container.id
        self._call("create", identity)
        with self._lock:
            assert identity not in self.inits, "create twice"
            self.inits[identity] = FakeProcess(launch, next(self._pids))
            return self.inits[identity].pid

    def attach(self, container_id: str) -> Duplex:
        self._call("attach", container_id)
        process = self._process(container_id)
        duplex = FakeDuplex(tty=process.launch.container.config.tty)
        process.attached.append(duplex)
        return duplex

    def start(self, container_id: str) -> None:
        self._call("start", container_id)
        self._process(container_id).started = True
        self.on_start(container_id)

    def signal(self, container_id: str, signal: int) -> None:
        self._call("signal", container_id)
        process = self._process(container_id)
        if process.exit is not None:
            raise not_found(f"container {container_id} has ended")
        process.signals.append(signal)
        if signal in {2, 9, 15} and signal not in self.ignored and not process.paused:
            self.end(container_id, 128 + signal)

    def pause(self, container_id: str) -> None:
        self._call("pause", container_id)
        self._process(container_id).paused = True

    def resume(self, container_id: str) -> None:
        self._call("resume", container_id)
        process = self._process(container_id)
        process.paused = False
        fatal = [one for one in process.signals if one in {2, 9, 15} and one not in self.ignored]
        if fatal and process.exit is None:
            self.end(container_id, 128 + fatal[0])

    def resize(self, container_id: str, height: int, width: int) -> None:
        self._process(container_id)
        self.sizes[container_id] = (height, width)

    def delete(self, container_id: str) -> None:
        self._call("delete", container_id)
        with self._lock:
            process = self.inits.pop(container_id, None)
        for duplex in process.attached if process else ():
            duplex.finish()

    def remove_logs(self, container_id: str) -> None:
        self._call("remove_logs", container_id)
        self.log.pop(container_id, None)

    def exec(
        self,
        container: Container,
        config: ExecConfig,
        exec_id: str,
        *,
        detach: bool,
        on_exit: Callable[[int], None],
    ) -> FakeExec:
        self._call("exec", container.id)
        self.execs[exec_id] = FakeExec(config, on_exit, detach=detach)
        return self.execs[exec_id]

    def logs(self, container: Container, query: LogQuery) -> PullStream:
        self._call("logs", container.id)
        pieces = self.log.get(container.id, [])
        if query.framed:
            pieces = [bytes([STDOUT, 0, 0, 0]) + len(one).to_bytes(4) + one for one in pieces]
        return FakeStream(pieces)

    def view(
        self, container: Container, rootfs: Rootfs, *, writable: bool, mounts: bool = True
    ) -> FakeView:
        self._call("view", container.id)
        return FakeView(os.open(rootfs.upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    block_weight = False
    real_time = False
    runtimes: Mapping[str, str] = {"crun": "/usr/bin/crun"}

    def owner(self, root_fd: int, user: str) -> tuple[int, int]:
        return 1000, 1000

    def processes(self, container_id: str) -> list[Process]:
        return []

    def sample(self, container_id: str) -> Sample:
        self._process(container_id)
        return self.samples[container_id]

    def update(self, container: Container, resources: Resources) -> None:
        self._call("update", container.id)
        self.limits[container.id] = resources

    def end_exec(self, container_id: str, pid: int) -> None:
        self._call("end_exec", container_id)

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        self._call("watch")
        self._watcher = on_exit
        for process in list(self.inits.values()):
            if process.exit is not None:
                on_exit(process.exit)

    def survivors(self) -> list[Survivor]:
        self._call("survivors")
        return [
            Survivor(identity, 0 if one.exit else one.pid, one.exit)
            for identity, one in self.inits.items()
        ]

    def close(self) -> None:
        self._watcher = None

    # ---- for tests

    def end(
        self,
        container_id: str,
        code: int = 0,
        *,
        oom: bool = False,
        finished_at: int = 0,
        error: str = "",
    ) -> None:
        """The container's init ends."""
        process = self._process(container_id)
        at = finished_at or self._clock.now()
        process.exit = Exit(container_id, code, at, oom_killed=oom, error=error)
        for duplex in process.attached:
            duplex.finish()
        if self._watcher is not None:
            self._watcher(process.exit)

    def output(self, container_id: str, data: bytes, stream: int = STDOUT) -> None:
        """The container writes."""
        self.log.setdefault(container_id, []).append(data)
        for duplex in self._process(container_id).attached:
            duplex.push(stream, data)

    def finish_exec(self, exec_id: str, code: int) -> None:
        found = self.execs[exec_id]
        if found.duplex is not None:
            found.duplex.finish()
        found.on_exit(code)

    def forget_agent(self) -> None:
        self._watcher = None

    def reboot(self) -> None:
        self._watcher = None
        self.inits.clear()

    def _process(self, container_id: str) -> FakeProcess:
        with self._lock:
            found = self.inits.get(container_id)
        if found is None:
            raise not_found(f"container {container_id} is not there")
        return found


class FakeNetwork(Fake):
    """Bridges with a /16 each; host ports are taken by (protocol, port)."""

    def __init__(self, journal: list[tuple[str, str]] | None = None) -> None:
        super().__init__(journal)
        self._lock = threading.Lock()
        self.made: dict[str, NetworkInfo] = {}
        self.endpoints: dict[str, Endpoint] = {}  # by container, one for all networks' sake
        self.by_endpoint: dict[str, Endpoint] = {}
        self.connected: dict[str, int] = {}
        self.host_ports: dict[tuple[str, int], str] = {}
        self.name_servers: dict[str, NameServers] = {}
        self._numbers = itertools.count(1)

    def setup(self, endpoints: Iterable[tuple[str, Endpoint]]) -> None:
        self._call("setup")
        live = list(endpoints)
        self.endpoints = dict(live)
        self.by_endpoint = {one.endpoint_id: one for _, one in live}
        self.connected = dict.fromkeys(self.endpoints, 0)
        self.name_servers.clear()
        self.host_ports = {
            (port.protocol, port.host_port): identity
            for identity, endpoint in live
            for port in endpoint.ports
        }

    def networks(self) -> list[NetworkInfo]:
        return [
            NetworkInfo("bridge", "n" * 64, "bridge", "172.17.0.0/16", "172.17.0.1", builtin=True),
            NetworkInfo("host", "h" * 64, "host", builtin=True),
            NetworkInfo("none", "0" * 64, "null", builtin=True),
            *self.made.values(),
        ]

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        self._call("create-network", spec.name)
        if any(one.name == spec.name for one in self.networks()):
            raise conflict(f"network with name {spec.name} already exists")
        number = next(self._numbers)
        made = NetworkInfo(
            spec.name,
            f"{number:064x}",
            spec.driver,
            f"172.{17 + number}.0.0/16",
            f"172.{17 + number}.0.1",
            internal=spec.internal,
            labels=spec.labels,
        )
        self.made[made.id] = made
        return made

    def remove(self, network_id: str) -> None:
        self._call("remove-network", network_id)
        if any(one.network_id == network_id for one in self.by_endpoint.values()):
            raise forbidden(f"network {network_id} has active endpoints")
        del self.made[network_id]

    def reserve(
        self,
        container_id: str,
        ports: Sequence[PortBinding],
        requests: Sequence[EndpointRequest] = (EndpointRequest("bridge"),),
    ) -> tuple[Endpoint, ...]:
        self._call("reserve", container_id)
        with self._lock:
            published = [self._port(one) for one in ports]
            found = tuple(
                self._endpoint(container_id, request, number)
                for number, request in enumerate(requests)
            )
            first = dataclasses.replace(found[0], ports=tuple(published))
            self.endpoints[container_id] = first
            self.by_endpoint[first.endpoint_id] = first
            self.host_ports.update(
                {(one.protocol, one.host_port): container_id for one in published}
            )
            return (first, *found[1:])

    def _endpoint(self, container_id: str, request: EndpointRequest, number: int) -> Endpoint:
        """With the lock held."""
        network = next((one for one in self.networks() if one.name == request.network), None)
        if network is None:
            raise not_found(f"network {request.network} not found")
        start = network.gateway.removesuffix(".0.1")
        taken = {one.address for one in self.by_endpoint.values()}
        host = next(n for n in range(2, 60000) if f"{start}.{n >> 8}.{n & 255}" not in taken)
        endpoint = Endpoint(
            network=network.name,
            network_id=network.id,
            endpoint_id=f"{container_id}-{network.name}" if number else container_id,
            mac="02:42:ac:11:00:02",
            address=request.address or f"{start}.{host >> 8}.{host & 255}",
            prefix=16,
            gateway=network.gateway,
            interface=f"eth{number}",
            way_out=not number,
            dns_names=request.dns_names,
            links=request.links,
        )
        self.by_endpoint[endpoint.endpoint_id] = endpoint
        return endpoint

    def connect(self, container_id: str, endpoint: Endpoint, pid: int) -> None:
        self._call("connect", container_id)
        self.connected[container_id] = pid

    def release(self, container_id: str, endpoint: Endpoint) -> None:
        self._call("release", container_id)
        with self._lock:
            self.connected.pop(container_id, None)
            self.endpoints.pop(container_id, None)
            self.by_endpoint.pop(endpoint.endpoint_id, None)
            self.host_ports = {
                key: owner for key, owner in self.host_ports.items() if owner != container_id
            }

    def attach(
        self,
        container_id: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        request: EndpointRequest,
        ports: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        self._call("attach", container_id)
        with self._lock:
            made = self._endpoint(container_id, request, len(endpoints))
        return (*endpoints, dataclasses.replace(made, way_out=not endpoints))

    def detach(
        self,
        container_id: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        endpoint: Endpoint,
        ports: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        self._call("detach", container_id)
        self.by_endpoint.pop(endpoint.endpoint_id, None)
        return tuple(one for one in endpoints if one.endpoint_id != endpoint.endpoint_id)

    def serve_names(self, container_id: str, pid: int, upstream: NameServers) -> None:
        self._call("serve-names", container_id)
        self.name_servers[container_id] = upstream

    def silence_names(self, container_id: str) -> None:
        self.name_servers.pop(container_id, None)

    def rename(self, endpoint: Endpoint) -> None:
        self._call("rename", endpoint.endpoint_id)
        self.by_endpoint[endpoint.endpoint_id] = endpoint

    def close(self) -> None:
        """Nothing to give back."""

    def _port(self, asked: PortBinding) -> PublishedPort:
        number = int(asked.host_port or 0)
        if not number:
            number = next(
                n for n in range(49153, 65536) if (asked.protocol, n) not in self.host_ports
            )
        if (asked.protocol, number) in self.host_ports:
            raise internal(
                "driver failed programming external connectivity on endpoint x: Bind for"
                f" 0.0.0.0:{number} failed: port is already allocated"
            )
        return PublishedPort(
            asked.container_port, asked.protocol, asked.host_ip or "0.0.0.0", number
        )


class FakeVolumes(Fake):
    """Volumes as values."""

    def __init__(self, journal: list[tuple[str, str]] | None = None) -> None:
        super().__init__(journal)
        self.volumes: dict[str, Volume] = {}

    def create(
        self,
        name: str,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> Volume:
        self._call("create", name)
        name = name or os.urandom(32).hex()
        volume = Volume(
            name=name,
            mountpoint=f"/nowhere/volumes/{name}/_data",
            created=0,
            labels=labels or {},
            options=options or {},
            anonymous=anonymous,
        )
        return self.volumes.setdefault(name, volume)

    def get(self, name: str) -> Volume:
        if name not in self.volumes:
            raise not_found(f"get {name}: no such volume")
        return self.volumes[name]

    def all(self) -> list[Volume]:
        return list(self.volumes.values())

    def mount(self, name: str) -> None:
        self._call("mount", name)
        self.get(name)

    def release(self, name: str) -> None:
        self._call("release", name)

    def remove(self, name: str) -> None:
        self._call("remove", name)
        self.volumes.pop(name, None)


class FakeRecords(Fake):
    """Durable in the sense that a second engine may be given the same object."""

    def __init__(self, journal: list[tuple[str, str]] | None = None) -> None:
        super().__init__(journal)
        self._lock = threading.Lock()
        self._rows = itertools.count(1)
        self.saved: dict[str, Container] = {}
        self.intents: dict[int, tuple[str, str, Mapping[str, str]]] = {}

    def save(self, container: Container) -> None:
        self._call("save", container.id)
        with self._lock:
            for one in self.saved.values():
                if one.name == container.name and one.id != container.id:
                    raise conflict(f"the name {container.name} is already in use")
            self.saved[container.id] = container

    def delete(self, container_id: str) -> None:
        self._call("delete", container_id)
        self.saved.pop(container_id, None)

    def retire(self, container_id: str, detail: Mapping[str, str]) -> int:
        self._call("retire", container_id)
        with self._lock:
            self.saved.pop(container_id, None)
            return self._begin(container_id, "remove", detail)

    def all(self) -> list[Container]:
        return list(self.saved.values())

    def begin(self, container_id: str, intent: str, detail: Mapping[str, str]) -> int:
        self._call("begin", container_id)
        with self._lock:
            return self._begin(container_id, intent, detail)

    def end(self, row: int) -> None:
        self.intents.pop(row, None)

    def pending(self) -> list[tuple[int, str, str, Mapping[str, str]]]:
        return [(row, *rest) for row, rest in self.intents.items()]

    def _begin(self, container_id: str, intent: str, detail: Mapping[str, str]) -> int:
        row = next(self._rows)
        self.intents[row] = (container_id, intent, dict(detail))
        return row


class World:
    """All fakes, and an engine on them; `restarted()` is the next agent on the same host."""

    def __init__(self, root: Path, boot_id: str = "boot-1") -> None:
        self.root = root
        self.boot_id = boot_id
        self.journal: list[tuple[str, str]] = []
        self.clock = ManualClock()
        self.images = FakeImages(self.journal)
        self.snapshots = FakeSnapshots(self.journal)
        self.snapshots.folder = str(root)
        self.runtime = FakeRuntime(self.clock, self.journal)
        self.network = FakeNetwork(self.journal)
        self.volumes = FakeVolumes(self.journal)
        self.records = FakeRecords(self.journal)
        self.engine = self._engine()

    def _engine(self) -> Engine:
        ports = Ports(
            clock=self.clock,
            images=self.images,
            snapshots=self.snapshots,
            runtime=self.runtime,
            network=self.network,
            volumes=self.volumes,
            records=self.records,
            inside=self.runtime,
        )
        settings = Settings(root=str(self.root), boot_id=self.boot_id, kill_timeout=2.0)
        return Engine(ports, FACTS, settings)

    def restarted(
        self, *, reboot: bool = False, before: Callable[[], None] | None = None
    ) -> Engine:
        """Kills the agent (its memory is gone), lets `before` happen, starts the next one."""
        self.runtime.forget_agent()
        self.engine.close()
        if reboot:
            self.boot_id = f"{self.boot_id}+"
            self.runtime.reboot()
        if before is not None:
            before()
        self.engine = self._engine()
        self.engine.start()
        return self.engine

    def advance(self, seconds: float) -> None:
        """Moves the clock and lets the timers look at it."""
        self.clock.advance(seconds)
        self.engine._core.timers.wake()

    def make(
        self,
        *cmd: str,
        name: str = "",
        config: ContainerConfig | None = None,
        host: HostConfig | None = None,
    ) -> str:
        """Creates a container of busybox; returns its id."""
        config = config or ContainerConfig()
        config = dataclasses.replace(config, image="busybox", cmd=cmd or config.cmd or ("true",))
        request = CreateRequest(name, config, host or HostConfig(), "", {}, {})
        return self.engine.containers.create(request).id

    def run(self, *cmd: str, name: str = "", host: HostConfig | None = None) -> str:
        """Creates and starts one."""
        identity = self.make(*cmd, name=name, host=host)
        self.engine.containers.start(identity)
        return identity

    def wait_until(self, happened: Callable[[], bool], timeout: float = 5.0) -> None:
        """For what the engine does on its own threads."""
        gate = threading.Event()
        for _ in range(int(timeout / 0.002)):
            if happened():
                return
            gate.wait(0.002)
        raise AssertionError("it did not happen")

    def end(self, identity: str, code: int = 0) -> None:
        """The container ends, and the engine has seen it."""
        waiter = self.engine.containers.wait(identity, "next-exit")
        self.runtime.end(identity, code)
        self.wait_until(lambda: waiter.result() is not None)
        waiter.close()
        lock = self.engine._core.book.lock(identity)
        with lock:
            pass


@contextlib.contextmanager
def world() -> Iterator[World]:
    """A started World in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="engine-test-") as folder:
        made = World(Path(folder))
        made.engine.start()
        try:
            yield made
        finally:
            made.engine.close()


def refused(error: EngineError | None) -> tuple[str, str]:
    """(kind, message) of an error, for comparisons in tables."""
    return ("", "") if error is None else (error.kind.name, error.message)
