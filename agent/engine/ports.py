"""What the engine needs of the world, as small interfaces whose comments are the law.

All methods block (they run on the server's worker pool) unless they say otherwise, may be called
from several threads at once for different containers, and raise `agent.errors.EngineError` for
anything a client may be told.  The engine holds a per-container lock around calls for one id.
Everything an adapter makes in the kernel or below $ROOT/$RUN is named after the container's id, so
that what nobody owns can be recognised and removed by `reconcile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from agent.engine.model import (
    Container,
    Endpoint,
    EndpointRequest,
    ExecConfig,
    Image,
    IpamPool,
    LogQuery,
    MountPoint,
    NetworkSpec,
    PortBinding,
    Progress,
    RegistryAuth,
    Volume,
)
from agent.values import frozen
from agent.wire.streams import Duplex, PullStream


class Clock(Protocol):
    """Time: `now` is wall-clock ns since the epoch, `monotonic` seconds."""

    def now(self) -> int: ...

    def monotonic(self) -> float: ...


# ------------------------------------------------------------------------------------------ images


@frozen
class Removed:
    """One line of DELETE /images: untagged "name:tag" or deleted "sha256:..."."""

    untagged: str = ""
    deleted: str = ""


class Images(Protocol):
    """The image store and registry client (agent.images)."""

    def pull(
        self,
        reference: str,
        *,
        platform: str,
        auth: RegistryAuth | None,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Image:
        """Fetch, verify, unpack and tag.  `platform` "" = the host's; "os/arch[/variant]".

        Progress lines are docker's ("Pulling from library/x", "Pulling fs layer", "Downloading",
        "Pull complete", "Digest: ...", "Status: ...").  Concurrent pulls share downloads.
        """
        ...

    def get(self, reference: str) -> Image:
        """By name, name:tag, name@digest, id or unique id prefix; else NOT_FOUND "No such image: x"."""
        ...

    def all(self) -> list[Image]: ...

    def tag(self, source: str, repo: str, tag: str) -> Image: ...

    def remove(
        self, reference: str, *, force: bool, users: Callable[[str], Sequence[tuple[str, bool]]]
    ) -> list[Removed]:
        """Untag or delete with docker's conflict rules.

        `users(image_id)` gives (container id, running) of each container of that image.
        """
        ...


@frozen
class Rootfs:
    """How to mount a container's root: an overlay.  Paths absolute; `lower` top layer first."""

    lower: tuple[str, ...]
    upper: str
    work: str


class Snapshots(Protocol):
    """Writable layers on image layers (agent.images).  Returns mount descriptions; never mounts."""

    def prepare(self, container_id: str, image_id: str) -> Rootfs:
        """Make (idempotent) the writable layer, and pin the image's layers until `remove`."""
        ...

    def rootfs(self, container_id: str) -> Rootfs: ...

    def remove(self, container_id: str) -> None:
        """Idempotent.  Rename away first, delete behind."""
        ...

    def reconcile(self, known: Iterable[str]) -> None:
        """Remove writable layers whose container is not in `known`."""
        ...


# ----------------------------------------------------------------------------------------- runtime


@frozen
class Launch:
    """All that the runtime needs to make a container's process; paths are absolute host paths."""

    container: Container
    rootfs: Rootfs
    hostname: str
    # Files bound over the init layer's: /etc/hosts, /etc/hostname, /etc/resolv.conf.
    etc_hosts: str
    etc_hostname: str
    etc_resolv_conf: str
    # "private" (runtime makes a netns), "host", or "/proc/<pid>/ns/net" of another container.
    network_namespace: str = "private"
    mounts: tuple[MountPoint, ...] = ()


@frozen
class Exit:
    """How a container's init ended, from conmon's exit file."""

    container_id: str
    code: int
    finished_at: int  # ns
    oom_killed: bool = False
    error: str = ""


@frozen
class Survivor:
    """A container found on the host at agent start."""

    container_id: str
    pid: int  # 0 when it has ended
    exit: Exit | None


class ExecProcess(Protocol):
    """A running exec: a Duplex (tty or pipes) plus its end."""

    pid: int

    def stream(self) -> Duplex | None:
        """None when started detached."""
        ...

    def resize(self, height: int, width: int) -> None: ...


class Runtime(Protocol):
    """crun or runc under conmon (agent.runtime)."""

    name: str  # "crun" | "runc"

    def create(self, launch: Launch) -> int:
        """Mount, write the OCI bundle, start conmon, create the container; returns init's pid.

        The process waits for `start`.  On failure nothing is left (conmon, mounts, cgroup,
        bundle).  An unknown user, a missing bind source, ... are INVALID EngineErrors with
        docker's text; a command that can't be executed raises INVALID at `create` or `start`.
        """
        ...

    def attach(self, container_id: str) -> Duplex:
        """The container's stdio; call after `create`, before or after `start`.  No data is lost
        between an attach made before `start` and the first read."""
        ...

    def start(self, container_id: str) -> None: ...

    def signal(self, container_id: str, signal: int) -> None:
        """To init.  NOT_FOUND when it has ended."""
        ...

    def pause(self, container_id: str) -> None: ...

    def resume(self, container_id: str) -> None: ...

    def resize(self, container_id: str, height: int, width: int) -> None: ...

    def delete(self, container_id: str) -> None:
        """Idempotent.  Kills what still runs in the cgroup; removes runtime state, cgroup, bundle
        and exit file.  The log stays (it belongs to the container, see `remove_logs`)."""
        ...

    def remove_logs(self, container_id: str) -> None: ...

    def exec(
        self,
        container: Container,
        config: ExecConfig,
        exec_id: str,
        *,
        detach: bool,
        on_exit: Callable[[int], None],
    ) -> ExecProcess:
        """`on_exit(code)` is called once, from the watcher thread."""
        ...

    def logs(self, container: Container, query: LogQuery) -> PullStream: ...

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        """Start the watcher thread.  `on_exit` is called once per ended container (exit file, or
        conmon's death: then the whole cgroup was killed, code 137 and `error` set), also for exits
        that happened before the call."""
        ...

    def survivors(self) -> list[Survivor]:
        """What earlier agents left: read from $RUN and checked against the kernel."""
        ...

    def close(self) -> None: ...


# ----------------------------------------------------------------------------------------- network


@frozen
class NetworkInfo:
    """A network as the API shows it.  `subnet` and `gateway` are its IPv4 ones."""

    name: str
    id: str
    driver: str
    subnet: str = ""
    gateway: str = ""
    created: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    pools: tuple[IpamPool, ...] = ()
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    builtin: bool = False  # bridge, host, none

    @property
    def named(self) -> bool:
        """Whether its containers have the embedded name server: all but the built-in ones."""
        return not self.builtin


@frozen
class NameServers:
    """Where a container's name server asks for names that are not of its networks."""

    servers: tuple[str, ...] = ()
    from_host: bool = False  # the host's own loopback servers: asked from the host's namespace


class Network(Protocol):
    """Networks of this host: addresses, cables, published ports, names (agent.net)."""

    def setup(self, endpoints: Iterable[tuple[str, Endpoint]]) -> None:
        """At agent start: bridges and nft table exist, rules are exactly those of the live
        (container id, endpoint) pairs, their addresses are taken, orphaned veths are removed."""
        ...

    def networks(self) -> list[NetworkInfo]:
        """The built-in ones first, then by time of creation."""
        ...

    def create(self, spec: NetworkSpec) -> NetworkInfo:
        """Durable on return.  CONFLICT for a taken name, FORBIDDEN for a predefined one, INVALID or
        CONFLICT for subnets that can't be; nothing is left when it raises."""
        ...

    def remove(self, network_id: str) -> None:
        """FORBIDDEN for predefined networks and for those with endpoints."""
        ...

    def reserve(
        self,
        container_id: str,
        ports: Sequence[PortBinding],
        requests: Sequence[EndpointRequest] = (EndpointRequest("bridge"),),
    ) -> tuple[Endpoint, ...]:
        """Take an address on each of these networks, and the host ports on that which is the way
        out (gateway priority, then name; internal ones last).

        A taken port is CONFLICT-free text as docker's: INTERNAL "driver failed programming
        external connectivity on endpoint NAME: Bind for 0.0.0.0:80 failed: port is already
        allocated" (or "listen tcp4 ...: bind: address already in use" for host processes).
        Nothing is taken when it raises.
        """
        ...

    def connect(self, container_id: str, endpoint: Endpoint, pid: int) -> None:
        """An interface in pid's network namespace, addresses, default route and published ports'
        rules where it is the way out, its names."""
        ...

    def release(self, container_id: str, endpoint: Endpoint) -> None:
        """Idempotent: names, rules, interface, address and ports are given back."""
        ...

    def attach(
        self,
        container_id: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        request: EndpointRequest,
        ports: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        """One network more for a running container: all its endpoints as they are then, since the
        way out may have moved.  Nothing has changed when it raises."""
        ...

    def detach(
        self,
        container_id: str,
        pid: int,
        endpoints: Sequence[Endpoint],
        endpoint: Endpoint,
        ports: Sequence[PortBinding],
    ) -> tuple[Endpoint, ...]:
        """One less: the interface is gone on return; the others as they are then."""
        ...

    def serve_names(self, container_id: str, pid: int, upstream: NameServers) -> None:
        """Start (or start anew) the name server at 127.0.0.11 of a running container."""
        ...

    def silence_names(self, container_id: str) -> None:
        """End it.  Idempotent; must come when the container ends: it holds its namespace."""
        ...

    def rename(self, endpoint: Endpoint) -> None:
        """The endpoint's names are now those that it carries."""
        ...

    def close(self) -> None: ...


# ----------------------------------------------------------------------------------------- volumes


class Volumes(Protocol):
    """The local volume driver (agent.volumes)."""

    def create(
        self,
        name: str,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> Volume:
        """Idempotent for an existing name.  "" = a new 64-hex anonymous name.  Durable on return."""
        ...

    def get(self, name: str) -> Volume:
        """NOT_FOUND "get NAME: no such volume"."""
        ...

    def all(self) -> list[Volume]: ...

    def mount(self, name: str) -> None:
        """Before a use: a volume with options is mounted on its mount point, where it stays, also
        when the agent dies.  Idempotent.  NOT_FOUND; INTERNAL with what the kernel says."""
        ...

    def release(self, name: str) -> None:
        """After the last use.  Idempotent, also for a volume that is gone."""
        ...

    def remove(self, name: str) -> None:
        """The engine has checked that nobody uses it.  Idempotent."""
        ...


# ------------------------------------------------------------------------------------------- state


class Records(Protocol):
    """Durable container records (agent.state, SQLite WAL + FULL).  On return it is on disk."""

    def save(self, container: Container) -> None:
        """Insert or replace.  CONFLICT when the name belongs to another id."""
        ...

    def delete(self, container_id: str) -> None: ...

    def retire(self, container_id: str, detail: Mapping[str, str]) -> int:
        """Delete the record and begin a "remove" intent in one commit; returns the intent's row."""
        ...

    def all(self) -> list[Container]: ...

    def begin(self, container_id: str, intent: str, detail: Mapping[str, str]) -> int:
        """Write an intent row ("create", "start", "remove") before the first side effect."""
        ...

    def end(self, row: int) -> None:
        """Need not be durable on return: it is carried by the next commit.  A row that comes back
        after a crash is redone or undone once more, which must be harmless."""
        ...

    def pending(self) -> list[tuple[int, str, str, Mapping[str, str]]]:
        """(row, container id, intent, detail) that a dead agent left."""
        ...
