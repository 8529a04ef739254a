"""The engine's vocabulary: intent (what was asked for), observation (what runs), never handles.

Field names follow the Engine API v1.51 definitions (ContainerConfig, HostConfig, ...), in snake
case.  Everything here is a frozen value; a change makes a new value with `dataclasses.replace`.
Times are integer nanoseconds since the epoch, sizes bytes; 0 means "not set" as in the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from agent.values import frozen


class Phase(StrEnum):
    """Container status words of the Engine API (ContainerState.Status)."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


@frozen
class ContainerConfig:
    """ContainerConfig of the API: the portable half of a container's intent."""

    image: str = ""
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()  # anonymous volume targets
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    healthcheck: Mapping[str, object] | None = None  # API HealthConfig


@frozen
class RestartPolicy:
    """name: "" or "no", "always", "unless-stopped", "on-failure"."""

    name: str = "no"
    maximum_retry_count: int = 0


@frozen
class PortBinding:
    """One published port as asked for.  host_port "" or "0" = any; "8000-8010" = any of a range."""

    container_port: int
    protocol: str  # tcp | udp | sctp
    host_ip: str = ""
    host_port: str = ""


@frozen
class Ulimit:
    """A POSIX resource limit, name as in setrlimit(2) without RLIMIT_, lower case."""

    name: str
    soft: int
    hard: int


@frozen
class DeviceMapping:
    """A host device given to the container."""

    path_on_host: str
    path_in_container: str
    cgroup_permissions: str = "rwm"


@frozen
class MountRequest:
    """One entry of HostConfig.Mounts (API Mount)."""

    type: str  # bind | volume | tmpfs | image
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = ""
    no_copy: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = ""
    driver_options: Mapping[str, str] = field(default_factory=dict)
    tmpfs_size: int = 0
    tmpfs_mode: int | None = None
    tmpfs_flags: tuple[str, ...] = ()  # "exec", "uid=1000"
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    subpath: str = ""  # in the volume or image


@frozen
class BlockLimit:
    """A weight, or bytes or operations a second, of one block device."""

    path: str
    value: int


@frozen
class Resources:
    """Limits; the API's HostConfig.Resources part."""

    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpu_realtime_period: int = 0  # microseconds
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[DeviceMapping, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()  # "c 42:* rmw"
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[BlockLimit, ...] = ()
    blkio_read_bps: tuple[BlockLimit, ...] = ()
    blkio_write_bps: tuple[BlockLimit, ...] = ()
    blkio_read_iops: tuple[BlockLimit, ...] = ()
    blkio_write_iops: tuple[BlockLimit, ...] = ()


ANY_RUNTIME = "io.containerd.runc.v2"  # containerd's name for it: the default one is meant


@frozen
class HostConfig:
    """HostConfig of the API: the host-bound half of a container's intent."""

    binds: tuple[str, ...] = ()  # "src:dst[:opts]" as given
    mounts: tuple[MountRequest, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)  # target -> options
    network_mode: str = "default"  # default|bridge|host|none|container:<id>|<network>
    port_bindings: tuple[PortBinding, ...] = ()
    publish_all_ports: bool = False
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    readonly_rootfs: bool = False
    init: bool | None = None
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # "container[:alias]"
    volumes_from: tuple[str, ...] = ()  # "container[:ro|rw]"
    group_add: tuple[str, ...] = ()
    ipc_mode: str = ""
    pid_mode: str = ""
    uts_mode: str = ""
    cgroupns_mode: str = ""
    shm_size: int = 0
    sysctls: Mapping[str, str] = field(default_factory=dict)
    oom_score_adj: int = 0
    log_driver: str = ""  # "" = json-file behaviour
    log_options: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    runtime: str = ""  # an OCI runtime's name; "" = the engine's default
    resources: Resources = Resources()


@frozen
class MountPoint:
    """A mount as resolved at create (API MountPoint): volumes have their host path."""

    type: str  # bind | volume | tmpfs | image
    target: str  # absolute, clean path in the container
    source: str = ""  # absolute host path; "" for tmpfs and images
    name: str = ""  # volume name, or the image as it was asked for
    driver: str = ""
    mode: str = ""  # as given: "ro", "z", ...
    read_write: bool = True
    propagation: str = ""
    copy_up: bool = False  # fill an empty volume from the image on first use
    anonymous: bool = False  # removed with the container (-v / --rm)
    tmpfs_options: str = ""
    recursive: bool = True
    # Of a read-only one: what is mounted below is read-only too, where the kernel can (5.12).
    read_only_recursive: bool = True
    read_only_forced: bool = False  # and where it can't, nothing starts
    subpath: str = ""  # in the volume or image
    create_source: bool = True  # a bind's missing source is made (-v; Mounts ask for it)
    image_id: str = ""  # of an image
    layers: tuple[str, ...] = ()  # of an image, top first: host paths, known while it is in use


@frozen
class PublishedPort:
    """A published port as really bound."""

    container_port: int
    protocol: str
    host_ip: str  # "0.0.0.0", "::", or the given address
    host_port: int


@frozen
class Endpoint:
    """A container's place on a network while it runs."""

    network: str  # network name, "bridge"
    network_id: str
    endpoint_id: str  # 64 hex
    mac: str
    address: str  # "172.17.0.2"
    prefix: int  # 16
    gateway: str
    ports: tuple[PublishedPort, ...] = ()
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    driver: str = "bridge"
    interface: str = "eth0"  # its name in the container
    gw_priority: int = 0
    way_out: bool = True  # default routes and published ports are this endpoint's
    dns_names: tuple[str, ...] = ()  # what others on the network find it by; the first is for PTR
    links: tuple[str, ...] = ()  # "container:alias", known to this container only


@frozen
class EndpointRequest:
    """A network that a container is to be on, as asked for (API EndpointSettings)."""

    network: str  # its name; whatever was written while no such network exists
    address: str = ""  # IPAMConfig.IPv4Address
    address6: str = ""  # IPAMConfig.IPv6Address
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # "container:alias"
    mac: str = ""
    gw_priority: int = 0
    driver_options: Mapping[str, str] = field(default_factory=dict)
    dns_names: tuple[str, ...] = ()  # filled in when it joins


@frozen
class IpamPool:
    """One entry of a network's IPAM.Config; all texts are addresses."""

    subnet: str = ""  # "10.0.0.0/24"; "" = chosen
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: Mapping[str, str] = field(default_factory=dict)  # never given to a container


@frozen
class NetworkSpec:
    """A network as asked for (POST /networks/create)."""

    name: str
    driver: str = "bridge"
    pools: tuple[IpamPool, ...] = ()
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@frozen
class HealthResult:
    """One health check that has ended (API HealthcheckResult)."""

    start: int
    end: int
    exit_code: int
    output: str


@frozen
class Health:
    """What a container's health checks say (API Health); status: starting, healthy, unhealthy."""

    status: str = "starting"
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()  # the last five


@frozen
class State:
    """What was observed of a container's process."""

    phase: Phase = Phase.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    manually_stopped: bool = False  # `stop`/`kill` by a user: "unless-stopped" stays down
    endpoints: tuple[Endpoint, ...] = ()
    boot_id: str = ""  # /proc/sys/kernel/random/boot_id when started: a pid means nothing after
    health: Health | None = None  # None: it has no health check


@frozen
class Container:
    """One container: intent as resolved at create, and its last known state."""

    id: str  # 64 hex
    name: str  # without the leading slash
    created: int
    config: ContainerConfig  # merged with the image's
    host_config: HostConfig
    image_id: str  # "sha256:..." config digest
    image_ref: str  # as the user wrote it
    path: str  # first word of the command
    args: tuple[str, ...]
    mounts: tuple[MountPoint, ...] = ()
    platform: str = "linux"
    state: State = State()
    # The create body as received (Docker-cased JSON): inspect gives HostConfig as it was given.
    given_config: Mapping[str, object] = field(default_factory=dict)
    given_host_config: Mapping[str, object] = field(default_factory=dict)
    # Every network that it is on, or will be when it starts; the first is HostConfig.NetworkMode's.
    networks: tuple[EndpointRequest, ...] = ()


@frozen
class ImageConfig:
    """The runnable part of an image (OCI image-spec config.config)."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    healthcheck: Mapping[str, object] | None = None


@frozen
class Image:
    """One image of the store."""

    id: str  # "sha256:<64 hex>" of the config
    created: str  # RFC 3339 as in the image
    architecture: str
    os: str
    variant: str
    config: ImageConfig
    size: int  # bytes on disk of all layers, uncompressed
    diff_ids: tuple[str, ...]
    tags: tuple[str, ...] = ()  # familiar names: "debian:latest", "10.0.0.1:5000/x:y"
    digests: tuple[str, ...] = ()  # "debian@sha256:..."
    author: str = ""
    comment: str = ""
    history: tuple[Mapping[str, object], ...] = ()


@frozen
class Volume:
    """A named volume of the local driver."""

    name: str
    mountpoint: str
    created: int
    driver: str = "local"
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False


@frozen
class ExecConfig:
    """API ExecConfig."""

    cmd: tuple[str, ...]
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    detach_keys: str = ""
    console_size: tuple[int, ...] = ()  # (rows, columns) of the terminal, or empty


@frozen
class ExecInfo:
    """What is known of an exec (API ExecInspectResponse)."""

    id: str
    container_id: str
    config: ExecConfig
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


@frozen
class LogQuery:
    """GET /containers/{id}/logs parameters.  Times in ns; None = unbounded; tail None = all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: int | None = None
    until: int | None = None
    tail: int | None = None
    timestamps: bool = False
    details: bool = False
    framed: bool = True  # 8-byte multiplex headers (false for tty containers)


@frozen
class Event:
    """API EventMessage."""

    type: str  # container | image | volume | network | daemon
    action: str
    actor_id: str
    attributes: Mapping[str, str]
    time_ns: int


@frozen
class RegistryAuth:
    """Decoded X-Registry-Auth.  repr() never shows the secrets."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server_address: str = ""


@frozen
class Progress:
    """One line of a pull's or push's progress stream (API JSONMessage).

    `stream` and `aux`: a line of text, or a document, without a status.
    """

    status: str
    id: str = ""
    current: int | None = None
    total: int | None = None
    aux: Mapping[str, object] | None = None
    stream: str = ""
