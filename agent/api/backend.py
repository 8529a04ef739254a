"""What the API's handlers need of the engine, stated by the consumer.

`agent.engine` satisfies these; the handlers never see an adapter.  References are ids, unique id
prefixes or names, as users write them.  Errors are `agent.errors.EngineError` with docker's texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Protocol

from agent.engine.building import BuildOutput, BuildRequest, CommitRequest, Gone, Pruned
from agent.engine.changes import Change
from agent.engine.inside import PathStat, Process, Sample
from agent.engine.model import (
    Container,
    ContainerConfig,
    EndpointRequest,
    Event,
    ExecConfig,
    ExecInfo,
    HostConfig,
    Image,
    LogQuery,
    NetworkSpec,
    Progress,
    RegistryAuth,
    RestartPolicy,
    Volume,
)
from agent.engine.ports import NetworkInfo, Removed
from agent.engine.transfers import Transfers
from agent.values import frozen
from agent.wire.streams import BodyReader, ChunkSource, Duplex, PullStream


@frozen
class CreateRequest:
    """POST /containers/create, decoded.  `name` "" = the engine makes one up."""

    name: str
    config: ContainerConfig
    host_config: HostConfig
    platform: str
    given_config: Mapping[str, object]
    given_host_config: Mapping[str, object]
    networks: tuple[EndpointRequest, ...] = ()


@frozen
class Created:
    id: str
    warnings: tuple[str, ...] = ()


@frozen
class WaitResult:
    status_code: int
    error: str = ""


class Waiter(Protocol):
    """`fileno()` becomes readable when `result()` may be there (an eventfd)."""

    def fileno(self) -> int: ...

    def result(self) -> WaitResult | None: ...

    def close(self) -> None: ...


@frozen
class AttachRequest:
    """`logs` replays what was written before; `stream` goes on with what comes."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = False
    logs: bool = False


class Subscription(Protocol):
    """Events in order.  `fileno()` is an eventfd; `next()` None = nothing now.  `done` = until
    was reached or the subscriber was too slow and was dropped."""

    @property
    def done(self) -> bool: ...

    def fileno(self) -> int: ...

    def next(self) -> Event | None: ...

    def close(self) -> None: ...


class Containers(Protocol):
    """agent.engine.containers"""

    def create(self, request: CreateRequest) -> Created: ...

    def get(self, reference: str) -> Container:
        """NOT_FOUND "No such container: x"; INVALID for an ambiguous prefix."""
        ...

    def all(self) -> list[Container]: ...

    def start(self, reference: str) -> bool:
        """False when it already runs (304)."""
        ...

    def stop(self, reference: str, *, timeout: int | None, signal: str) -> bool:
        """False when it is already stopped (304).  timeout in s, -1 = wait for ever."""
        ...

    def restart(self, reference: str, *, timeout: int | None, signal: str) -> None: ...

    def kill(self, reference: str, signal: str) -> None: ...

    def remove(self, reference: str, *, force: bool, volumes: bool) -> None: ...

    def rename(self, reference: str, name: str) -> None: ...

    def pause(self, reference: str) -> None: ...

    def unpause(self, reference: str) -> None: ...

    def wait(self, reference: str, condition: str) -> Waiter:
        """condition: not-running | next-exit | removed."""
        ...

    def attach(self, reference: str, request: AttachRequest) -> Duplex: ...

    def logs(self, reference: str, query: LogQuery) -> PullStream: ...

    def resize(self, reference: str, height: int, width: int) -> None: ...

    def sizes(self, reference: str) -> tuple[int, int]:
        """(SizeRw, SizeRootFs) in bytes."""
        ...


class Execs(Protocol):
    """agent.engine.execs"""

    def create(self, reference: str, config: ExecConfig) -> str: ...

    def get(self, exec_id: str) -> ExecInfo: ...

    def start(self, exec_id: str, *, detach: bool, tty: bool) -> Duplex | None: ...

    def resize(self, exec_id: str, height: int, width: int) -> None: ...

    def of(self, container_id: str) -> list[str]: ...


class ImagesBackend(Protocol):
    """agent.engine.images_use"""

    def pull(
        self,
        reference: str,
        *,
        platform: str,
        auth: RegistryAuth | None,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Image: ...

    def get(self, reference: str) -> Image: ...

    def all(self) -> list[Image]: ...

    def tag(self, source: str, repo: str, tag: str) -> None: ...

    def remove(self, reference: str, *, force: bool) -> list[Removed]: ...


class Networking(Protocol):
    """agent.engine.networks_use"""

    def get(self, reference: str) -> NetworkInfo: ...

    def create(self, spec: NetworkSpec) -> NetworkInfo: ...

    def remove(self, reference: str) -> None: ...

    def prune(self, matches: Callable[[NetworkInfo], bool]) -> list[str]: ...

    def connect(self, reference: str, container: str, request: EndpointRequest) -> None: ...

    def disconnect(self, reference: str, container: str, *, force: bool) -> None: ...


class TransfersBackend(Transfers, Protocol):
    """agent.engine.transfers_use"""

    def pull_all(
        self,
        name: str,
        *,
        platform: str,
        auth: RegistryAuth | None,
        progress: Callable[[Progress], None],
        gone: Callable[[], bool],
    ) -> list[Image]:
        """Every tag of a repository, one after the other."""
        ...

    def prune(self, chosen: Callable[[Image], bool]) -> tuple[list[Removed], int]:
        """Remove the chosen images that no container uses; (what went, bytes)."""
        ...


class VolumesBackend(Protocol):
    def create(
        self, name: str, driver: str, labels: Mapping[str, str], options: Mapping[str, str]
    ) -> Volume: ...

    def get(self, name: str) -> Volume: ...

    def all(self) -> list[Volume]: ...

    def remove(self, name: str, *, force: bool) -> None: ...


class ContainerFiles(Protocol):
    """agent.engine.files"""

    def stat(self, reference: str, path: str) -> PathStat:
        """NOT_FOUND "Could not find the file PATH in container NAME"."""
        ...

    def read(self, reference: str, path: str) -> tuple[PathStat, ChunkSource]:
        """A tar stream of what is at `path`."""
        ...

    def write(
        self, reference: str, path: str, body: BodyReader, *, keep_kinds: bool, as_user: bool
    ) -> None:
        """Unpacks a tar archive (plain or compressed) into the folder `path`.

        `keep_kinds`: a directory never replaces a file, nor a file a directory.  `as_user`: all
        of it belongs to the container's user.
        """
        ...

    def export(self, reference: str) -> ChunkSource: ...

    def changes(self, reference: str) -> list[Change]: ...


class SampleFeed(Protocol):
    """Samples about each second.  `fileno()` is an eventfd; `next()` None = nothing now."""

    def fileno(self) -> int: ...

    def next(self) -> tuple[Container, Sample | None] | None:
        """The container, and what it uses (None: it does not run)."""
        ...

    def close(self) -> None: ...


class Usage(Protocol):
    """agent.engine.usage"""

    def processes(self, reference: str) -> tuple[int, list[Process]]:
        """(the init's pid, all processes).  CONFLICT when it does not run."""
        ...

    def sample(self, reference: str) -> tuple[Container, Sample | None]: ...

    def samples(self, reference: str) -> SampleFeed: ...


class Upkeep(Protocol):
    """agent.engine.upkeep"""

    def update(
        self,
        reference: str,
        limits: Mapping[str, object],
        policy: RestartPolicy | None,
        given: Mapping[str, object],
    ) -> tuple[str, ...]:
        """`limits`: fields of Resources to change; `given`: the same in the API's spelling.
        Returns warnings."""
        ...

    def prune_containers(self, chosen: Callable[[Container], bool]) -> tuple[list[str], int]:
        """(removed ids, bytes) of those that don't run and are chosen."""
        ...

    def volume_size(self, volume: Volume) -> int:
        """Bytes on disk of a volume's files."""
        ...

    def prune_volumes(self, chosen: Callable[[Volume], bool]) -> tuple[list[str], int]:
        """(removed names, bytes) of those that nobody uses and are chosen."""
        ...


@frozen
class HostFacts:
    """What /info and /version tell of the host; read once at start."""

    id: str  # stable engine id
    name: str  # hostname
    kernel: str
    operating_system: str
    os_version: str
    architecture: str  # x86_64
    go_architecture: str  # amd64
    cpus: int
    memory: int
    cgroup_version: str  # "1" | "2"
    runtime: str  # "crun" | "runc"
    runtime_version: str
    conmon_version: str
    root: str
    agent_version: str
    labels: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    debug: bool = False
    runtimes: Mapping[str, str] = field(default_factory=dict)  # every OCI runtime's name -> path
    warnings: tuple[str, ...] = ()  # for /info


class Builds(Protocol):
    """agent.engine.builds_use; see `agent.engine.building` for the contract."""

    def build(
        self, request: BuildRequest, context: BodyReader, output: BuildOutput, gone: Gone
    ) -> str: ...

    def commit(self, request: CommitRequest) -> str: ...

    def prune(self, *, everything: bool) -> Pruned: ...

    def session(self, token: str) -> Duplex: ...


class Backend(Protocol):
    """All that the API needs, by family."""

    @property
    def containers(self) -> Containers: ...

    @property
    def execs(self) -> Execs: ...

    @property
    def images(self) -> ImagesBackend: ...

    @property
    def transfers(self) -> TransfersBackend: ...

    @property
    def builds(self) -> Builds: ...

    @property
    def volumes(self) -> VolumesBackend: ...

    @property
    def files(self) -> ContainerFiles: ...

    @property
    def usage(self) -> Usage: ...

    @property
    def upkeep(self) -> Upkeep: ...

    @property
    def facts(self) -> HostFacts: ...

    @property
    def networking(self) -> Networking: ...

    def networks(self) -> list[NetworkInfo]: ...

    def subscribe(
        self, since: int | None, until: int | None, matches: Callable[[Event], bool]
    ) -> Subscription:
        """since/until in ns."""
        ...
