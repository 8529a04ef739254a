"""A backend in memory: what the handlers are tested against."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.api.backend import AttachRequest, Created, CreateRequest, HostFacts, WaitResult
from agent.engine.building import BuildOutput, BuildRequest, CommitRequest, Pruned
from agent.engine.model import (
    Container,
    ContainerConfig,
    Endpoint,
    EndpointRequest,
    Event,
    ExecConfig,
    ExecInfo,
    HostConfig,
    Image,
    ImageConfig,
    LogQuery,
    MountPoint,
    NetworkSpec,
    Phase,
    PortBinding,
    Progress,
    PublishedPort,
    RegistryAuth,
    State,
    Volume,
)
from agent.engine.networks_use import find
from agent.engine.ports import NetworkInfo, Removed
from agent.engine.transfers import (
    Distribution,
    Gone,
    ImageSpace,
    ImportRequest,
    ManifestInfo,
    Read,
    Say,
    SearchHit,
)
from agent.errors import EngineError, Kind, not_found, not_implemented
from agent.wire.streams import BodyReader

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND

FACTS = HostFacts(
    id="5f0c8a2e-0000-4000-8000-000000000001",
    name="demo",
    kernel="6.1.0-30-amd64",
    operating_system="Debian GNU/Linux 12 (bookworm)",
    os_version="12",
    architecture="x86_64",
    go_architecture="amd64",
    cpus=4,
    memory=8 * 1024**3,
    cgroup_version="2",
    runtime="crun",
    runtime_version="1.8.1",
    conmon_version="2.1.6",
    root="/var/lib/machine",
    agent_version="0.1.0",
)

BRIDGE_ID = "b" * 64
NETWORKS = [
    NetworkInfo(
        "bridge", BRIDGE_ID, "bridge", "172.17.0.0/16", "172.17.0.1", NOW - SECOND * 90,
        {"com.docker.network.bridge.name": "machine0"}, builtin=True,
    ),
    NetworkInfo("host", "c" * 64, "host", created=NOW - SECOND * 90, builtin=True),
    NetworkInfo("none", "d" * 64, "null", created=NOW - SECOND * 90, builtin=True),
]  # fmt: skip

IMAGE = Image(
    id="sha256:" + "1" * 64,
    created="2023-11-01T10:00:00.5Z",
    architecture="amd64",
    os="linux",
    variant="",
    config=ImageConfig(
        env=("PATH=/usr/bin:/bin",),
        cmd=("httpd-foreground",),
        exposed_ports=("80/tcp",),
        working_dir="/srv",
        labels={"maintainer": "me"},
        stop_signal="SIGWINCH",
    ),
    size=123_456_789,
    diff_ids=("sha256:" + "2" * 64,),
    tags=("httpd:latest", "httpd:2.4"),
    digests=("httpd@sha256:" + "3" * 64,),
    history=(
        {"created": "2023-11-01T09:00:00Z", "created_by": "ADD rootfs"},
        {"created": "2023-11-01T10:00:00.5Z", "created_by": "CMD httpd", "empty_layer": True},
    ),
)

RUNNING = Container(
    id="a1" * 32,
    name="apache",
    created=NOW - 400 * SECOND,
    config=ContainerConfig(
        image="httpd",
        hostname="",
        exposed_ports=("80/tcp", "443/tcp"),
        env=("PATH=/usr/bin:/bin", "A=b c"),
        cmd=("httpd-foreground",),
        labels={"site": "home", "app": "web"},
        volumes=("/cache",),
        stop_signal="SIGWINCH",
        working_dir="/srv",
    ),
    host_config=HostConfig(
        binds=("/srv/www:/srv/www:ro", "data:/data"),
        port_bindings=(PortBinding(80, "tcp", "", "8080"),),
        tmpfs={"/tmp": "size=64m"},
    ),
    image_id=IMAGE.id,
    image_ref="httpd",
    path="httpd-foreground",
    args=("-D", "FOREGROUND now"),
    mounts=(
        MountPoint("bind", "/srv/www", "/srv/www", mode="ro", read_write=False),
        MountPoint(
            "volume", "/data", "/var/lib/machine/volumes/data/_data", "data", "local", mode="z"
        ),
        MountPoint("tmpfs", "/tmp", tmpfs_options="size=64m"),
    ),
    state=State(
        phase=Phase.RUNNING,
        pid=4242,
        started_at=NOW - 300 * SECOND + 5_000_000,
        endpoints=(
            Endpoint(
                "bridge", BRIDGE_ID, "e" * 64, "02:42:ac:11:00:02", "172.17.0.2", 16, "172.17.0.1",
                (
                    PublishedPort(80, "tcp", "0.0.0.0", 8080),
                    PublishedPort(80, "tcp", "::", 8080),
                ),
            ),
        ),
    ),
    given_config={"Image": "httpd"},
    given_host_config={
        "Binds": ["/srv/www:/srv/www:ro", "data:/data"],
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        "Tmpfs": {"/tmp": "size=64m"},
        "MemorySwappiness": -1,
        "PidsLimit": 0,
        "Dns": [],
    },
)  # fmt: skip

EXITED = replace(
    RUNNING,
    id="b2" * 32,
    name="job",
    created=NOW - 500 * SECOND,
    host_config=HostConfig(network_mode="none"),
    given_host_config={"NetworkMode": "none"},
    image_ref="gone:1",
    config=replace(RUNNING.config, labels={"site": "away"}, tty=True),
    mounts=(),
    state=State(
        Phase.EXITED, exit_code=3, started_at=NOW - 400 * SECOND, finished_at=NOW - 5400 * SECOND
    ),
)


@dataclass
class FakeWaiter:
    answer: WaitResult | None = None
    closed: bool = False
    fd: int = field(default_factory=lambda: os.eventfd(0))

    def fileno(self) -> int:
        return self.fd

    def result(self) -> WaitResult | None:
        return self.answer

    def close(self) -> None:
        os.close(self.fd)
        self.closed = True


class FakeDuplex:
    tty = False

    def __init__(self) -> None:
        self._fd = os.eventfd(1)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[tuple[int, bytes]] | None:
        return []

    def write(self, data: bytes) -> int:
        return len(data)

    def write_fileno(self) -> int | None:
        return None

    def close_write(self) -> None: ...

    def close(self) -> None:
        os.close(self._fd)


class FakeLog:
    def fileno(self) -> int:
        return -1

    def read(self) -> bytes | None:
        return b""

    def close(self) -> None: ...


@dataclass
class FakeContainers:
    known: dict[str, Container]
    calls: list[tuple[object, ...]] = field(default_factory=list)
    waiter: FakeWaiter | None = None
    changed: bool = True

    def create(self, request: CreateRequest) -> Created:
        self.calls.append(("create", request))
        return Created("f" * 64, ("a warning",))

    def get(self, reference: str) -> Container:
        for one in self.known.values():
            if reference in {one.id, one.name} or one.id.startswith(reference):
                return one
        raise not_found(f"No such container: {reference}")

    def all(self) -> list[Container]:
        return list(self.known.values())

    def start(self, reference: str) -> bool:
        self.get(reference)
        self.calls.append(("start", reference))
        return self.changed

    def stop(self, reference: str, *, timeout: int | None, signal: str) -> bool:
        self.calls.append(("stop", reference, timeout, signal))
        return self.changed

    def restart(self, reference: str, *, timeout: int | None, signal: str) -> None:
        self.calls.append(("restart", reference, timeout, signal))

    def kill(self, reference: str, signal: str) -> None:
        self.calls.append(("kill", reference, signal))

    def remove(self, reference: str, *, force: bool, volumes: bool) -> None:
        self.calls.append(("remove", reference, force, volumes))

    def rename(self, reference: str, name: str) -> None:
        self.calls.append(("rename", reference, name))

    def pause(self, reference: str) -> None:
        self.calls.append(("pause", reference))

    def unpause(self, reference: str) -> None:
        self.calls.append(("unpause", reference))

    def wait(self, reference: str, condition: str) -> FakeWaiter:
        self.get(reference)
        self.calls.append(("wait", reference, condition))
        self.waiter = FakeWaiter()
        return self.waiter

    def attach(self, reference: str, request: AttachRequest) -> FakeDuplex:
        self.calls.append(("attach", reference, request))
        return FakeDuplex()

    def logs(self, reference: str, query: LogQuery) -> FakeLog:
        self.calls.append(("logs", reference, query))
        return FakeLog()

    def resize(self, reference: str, height: int, width: int) -> None:
        self.calls.append(("resize", reference, height, width))

    def sizes(self, reference: str) -> tuple[int, int]:
        return 10, 1000


@dataclass
class FakeExecs:
    info: dict[str, ExecInfo] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def create(self, reference: str, config: ExecConfig) -> str:
        self.info["e1"] = ExecInfo("e1", reference, config)
        return "e1"

    def get(self, exec_id: str) -> ExecInfo:
        if exec_id not in self.info:
            raise not_found(f"No such exec instance: {exec_id}")
        return self.info[exec_id]

    def start(self, exec_id: str, *, detach: bool, tty: bool) -> FakeDuplex | None:
        self.calls.append(("start", exec_id, detach, tty))
        return None if detach else FakeDuplex()

    def resize(self, exec_id: str, height: int, width: int) -> None:
        self.calls.append(("resize", exec_id, height, width))

    def of(self, container_id: str) -> list[str]:
        return [one.id for one in self.info.values() if one.container_id == container_id]


@dataclass
class FakeImages:
    known: list[Image] = field(default_factory=lambda: [IMAGE])
    calls: list[tuple[object, ...]] = field(default_factory=list)
    lines: tuple[Progress, ...] = ()
    error: EngineError | None = None

    def pull(
        self,
        reference: str,
        *,
        platform: str,
        auth: RegistryAuth | None,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Image:
        self.calls.append(("pull", reference, platform, auth))
        for line in self.lines:
            progress(line)
        if self.error is not None:
            raise self.error
        return IMAGE

    def get(self, reference: str) -> Image:
        for one in self.known:
            names = {one.id, *one.tags, *one.digests}
            if reference in names or f"{reference}:latest" in names:
                return one
        raise not_found(f"No such image: {reference}")

    def all(self) -> list[Image]:
        return list(self.known)

    def tag(self, source: str, repo: str, tag: str) -> None:
        self.calls.append(("tag", source, repo, tag))

    def remove(self, reference: str, *, force: bool) -> list[Removed]:
        self.calls.append(("remove", reference, force))
        return [Removed(untagged=reference), Removed(deleted=IMAGE.id)]


@dataclass
class FakeVolumes:
    known: dict[str, Volume] = field(default_factory=dict)

    def create(
        self, name: str, driver: str, labels: Mapping[str, str], options: Mapping[str, str]
    ) -> Volume:
        name = name or "0" * 64
        volume = Volume(name, f"/volumes/{name}/_data", NOW, driver, labels, options)
        self.known[name] = volume
        return volume

    def get(self, name: str) -> Volume:
        if name not in self.known:
            raise not_found(f"get {name}: no such volume")
        return self.known[name]

    def all(self) -> list[Volume]:
        return list(self.known.values())

    def remove(self, name: str, *, force: bool) -> None:
        if name not in self.known and not force:
            raise EngineError(Kind.NOT_FOUND, f"get {name}: no such volume")
        self.known.pop(name, None)


@dataclass
class FakeSubscription:
    events: deque[Event] = field(default_factory=deque)
    done: bool = False
    closed: bool = False

    def fileno(self) -> int:
        return -1

    def next(self) -> Event | None:
        return self.events.popleft() if self.events else None

    def close(self) -> None:
        self.closed = True


class FakeNetworking:
    """Says what it was asked; `get` as the engine's."""

    def __init__(self) -> None:
        self.made: list[NetworkInfo] = []
        self.asked: list[tuple[object, ...]] = []

    def get(self, reference: str) -> NetworkInfo:
        return find([*NETWORKS, *self.made], reference)

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        self.made.append(NetworkInfo(spec.name, "e" * 64, spec.driver, pools=spec.pools))
        self.asked.append(("create", spec))
        return self.made[-1]

    def remove(self, reference: str) -> None:
        self.made.remove(self.get(reference))

    def prune(self, matches: Callable[[NetworkInfo], bool]) -> list[str]:
        return [one.name for one in self.made if matches(one)]

    def connect(self, reference: str, container: str, request: EndpointRequest) -> None:
        self.asked.append(("connect", reference, container, request))

    def disconnect(self, reference: str, container: str, *, force: bool) -> None:
        self.asked.append(("disconnect", reference, container, force))


class FakeTransfers:
    """`agent.api.backend.TransfersBackend`; `calls` says what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def _say(self, progress: Say, *call: object) -> None:
        self.calls.append(call)
        progress(Progress("", stream=f"{call[0]} done\n"))

    def push(
        self, name: str, tag: str, *, auth: RegistryAuth | None, progress: Say, gone: Gone
    ) -> list[str]:
        self._say(progress, "push", name, tag, auth.username if auth else "")
        return [tag]

    def pull_all(
        self, name: str, *, platform: str, auth: RegistryAuth | None, progress: Say, gone: Gone
    ) -> list[Image]:
        self._say(progress, "pull_all", name, platform)
        return []

    def tags(self, name: str, auth: RegistryAuth | None) -> list[str]:
        return ["latest"]

    def login(self, auth: RegistryAuth) -> None:
        self.calls.append(("login", auth.username, auth.password, auth.server_address))

    def distribution(self, name: str, auth: RegistryAuth | None) -> Distribution:
        return Distribution("sha256:" + "1" * 64, "type", 7, (("linux", "arm", "v7"),))

    def search(self, term: str, limit: int, auth: RegistryAuth | None) -> list[SearchHit]:
        return [
            SearchHit(term, "of the people", 9, official=True),
            SearchHit("x", "", 0, official=False),
        ]

    def save(self, names: Sequence[str], platform: str) -> Generator[bytes, None, None]:
        self.calls.append(("save", *names, platform))
        yield b"tar"

    def load(
        self, read: Read, *, platform: str, quiet: bool, progress: Say, gone: Gone
    ) -> list[Image]:
        self._say(progress, "load", read(100), platform, quiet)
        return []

    def import_tree(
        self, read: Read, request: ImportRequest, *, progress: Say, gone: Gone
    ) -> Image:
        self._say(progress, "import", request)
        raise not_found("no image in this fake")

    def layer_sizes(self, reference: str) -> list[int]:
        return [5]

    def manifests(self, image_id: str) -> list[ManifestInfo]:
        kind = "application/vnd.oci.image.manifest.v1+json"
        platform = ("linux", "arm64", "v8")
        return [
            ManifestInfo("sha256:1", kind, 9, "image", platform, "", True, 20, 300),
            ManifestInfo("sha256:2", kind, 8, "attestation", ("", "", ""), "sha256:1"),
        ]

    def space(self) -> ImageSpace:
        return ImageSpace({}, {}, 12)

    def prune(self, chosen: Callable[[Image], bool]) -> tuple[list[Removed], int]:
        return [Removed(deleted=one.id) for one in [IMAGE] if chosen(one)], 3


class FakeUpkeep:
    """The part of `agent.api.backend.Upkeep` that df asks."""

    def volume_size(self, volume: Volume) -> int:
        return len(volume.name)


class FakeBuilds:
    """`agent.api.backend.Builds`; the handler's own tests have a fuller one."""

    def build(
        self, request: BuildRequest, context: BodyReader, output: BuildOutput, gone: Gone
    ) -> str:
        raise not_implemented("no builds here")

    def commit(self, request: CommitRequest) -> str:
        raise not_implemented("no commits here")

    def prune(self, *, everything: bool) -> Pruned:
        return Pruned((), 0)


class FakeBackend:
    def __init__(self) -> None:
        self.builds = FakeBuilds()
        self.containers = FakeContainers({one.id: one for one in (RUNNING, EXITED)})
        self.execs = FakeExecs()
        self.images = FakeImages()
        self.transfers = FakeTransfers()
        self.upkeep = FakeUpkeep()
        self.volumes = FakeVolumes()
        self.facts = FACTS
        self.subscription = FakeSubscription()
        self.asked: tuple[int | None, int | None] = (None, None)
        self.matches: Callable[[Event], bool] = lambda _event: True

        self.networking = FakeNetworking()

    def networks(self) -> list[NetworkInfo]:
        return [*NETWORKS, *self.networking.made]

    def subscribe(
        self, since: int | None, until: int | None, matches: Callable[[Event], bool]
    ) -> FakeSubscription:
        self.asked = (since, until)
        self.matches = matches
        return self.subscription
