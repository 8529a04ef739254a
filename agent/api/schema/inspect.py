"""GET /containers/{id}/json: what Docker Engine shows of one container."""

from __future__ import annotations

from typing import Final

from agent.api.schema.fields import Document
from agent.api.schema.host import HOST_CONFIG
from agent.api.schema.networking import LIVE_PHASES, settings_document
from agent.api.schema.times import rfc3339
from agent.api.version import CURRENT, Version
from agent.engine.model import (
    Container,
    ContainerConfig,
    Health,
    HostConfig,
    MountPoint,
    Phase,
)
from agent.values import frozen

DEFAULT_SHM: Final = 64 * 1024 * 1024

# Docker Engine's defaults (oci.DefaultSpec); shown unless the container is privileged.
MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: Final = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

_EMPTY_LISTS: Final = frozenset(
    {
        "BlkioWeightDevice",
        "BlkioDeviceReadBps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteIOps",
        "Devices",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "Ulimits",
    }
)
_NULLS: Final = [
    "Binds",
    "VolumesFrom",
    "CapAdd",
    "CapDrop",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "SecurityOpt",
    "DeviceCgroupRules",
    "DeviceRequests",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
]
_EMPTY_TEXTS: Final = [
    "ContainerIDFile",
    "VolumeDriver",
    "Cgroup",
    "PidMode",
    "UTSMode",
    "UsernsMode",
    "Isolation",
    "CgroupParent",
    "CpusetCpus",
    "CpusetMems",
]
_ZEROES: Final = [
    "OomScoreAdj",
    "CpuShares",
    "Memory",
    "NanoCpus",
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "MemoryReservation",
    "MemorySwap",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
]
_FALSES: Final = ["AutoRemove", "Privileged", "PublishAllPorts", "ReadonlyRootfs"]
# Left out of the answer when empty (Go's omitempty).
_OMITTED_EMPTY: Final = frozenset(
    {"Mounts", "Tmpfs", "Annotations", "Init", "StorageOpt", "Sysctls", "KernelMemoryTCP"}
)


@frozen(slots=True)
class Surroundings:
    """What inspect shows beside the container's own record."""

    root: str  # the engine's data folder
    cgroup_version: str = "2"
    network_ids: tuple[tuple[str, str], ...] = ()
    exec_ids: tuple[str, ...] = ()
    size_rw: int | None = None
    size_root_fs: int | None = None
    version: Version = CURRENT


def inspect_document(container: Container, around: Surroundings) -> Document:
    """ContainerInspectResponse, in Docker Engine's order."""
    folder = f"{around.root}/containers/{container.id}"
    document: Document = {
        "Id": container.id,
        "Created": rfc3339(container.created),
        "Path": container.path,
        "Args": list(container.args),
        "State": state_document(container),
        "Image": container.image_id,
        "ResolvConfPath": f"{folder}/resolv.conf",
        "HostnamePath": f"{folder}/hostname",
        "HostsPath": f"{folder}/hosts",
        "LogPath": f"{folder}/ctr.log",
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": "overlay2",
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(around.exec_ids) or None,
        "HostConfig": host_config_document(container, around.cgroup_version),
        "GraphDriver": {"Data": None, "Name": "overlay2"},
    }
    if around.size_rw is not None:
        document["SizeRw"] = around.size_rw
        document["SizeRootFs"] = around.size_root_fs
    document["Mounts"] = mounts_document(container)
    document["Config"] = config_document(container)
    document["NetworkSettings"] = settings_document(
        container, dict(around.network_ids), around.version
    )
    return document


def state_document(container: Container) -> Document:
    state = container.state
    live = state.phase in LIVE_PHASES
    document: Document = {
        "Status": state.phase.value,
        "Running": live,
        "Paused": state.phase is Phase.PAUSED,
        "Restarting": state.phase is Phase.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.phase is Phase.DEAD,
        "Pid": state.pid if live else 0,
        "ExitCode": 0 if state.phase is Phase.RUNNING else state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at),
        "FinishedAt": rfc3339(state.finished_at),
    }
    if state.health is not None:
        document["Health"] = health_document(state.health)
    return document


def health_document(health: Health) -> Document:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": rfc3339(one.start),
                "End": rfc3339(one.end),
                "ExitCode": one.exit_code,
                "Output": one.output,
            }
            for one in health.log
        ],
    }


def config_document(container: Container) -> Document:
    """ContainerConfig as resolved with the image's."""
    config = container.config
    hostname = config.hostname
    if not hostname and container.host_config.uts_mode != "host":
        hostname = container.id[:12]
    document: Document = {
        "Hostname": hostname,
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "ExposedPorts": {port: {} for port in sorted(config.exposed_ports)},
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": list(config.env),
        "Cmd": _list_or_none(config.cmd),
        "Healthcheck": dict(config.healthcheck) if config.healthcheck else None,
        "Image": container.image_ref,
        "Volumes": {target: {} for target in sorted(config.volumes)} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": _list_or_none(config.entrypoint),
        "OnBuild": list(config.on_build) or None,
        "Labels": dict(sorted(config.labels.items())),
    }
    return _with_omitted(document, config)


def _with_omitted(document: Document, config: ContainerConfig) -> Document:
    """Go's omitempty for the fields that have it."""
    for name in ("ExposedPorts", "Healthcheck"):
        if not document[name]:
            del document[name]
    if config.stop_signal:
        document["StopSignal"] = config.stop_signal
    if config.stop_timeout is not None:
        document["StopTimeout"] = config.stop_timeout
    if config.shell:
        document["Shell"] = list(config.shell)
    return document


def _list_or_none(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def host_config_document(container: Container, cgroup_version: str) -> Document:
    """HostConfig as it was given, with the engine's defaults where nothing was given."""
    config = container.host_config
    defaults: Document = dict.fromkeys(_EMPTY_TEXTS, "")
    defaults.update(dict.fromkeys(_ZEROES, 0))
    defaults.update(dict.fromkeys(_FALSES, False))
    defaults.update(dict.fromkeys(_NULLS, None))
    defaults.update({name: [] for name in _EMPTY_LISTS})
    defaults.update(_computed(config, cgroup_version))
    given = dict(container.given_host_config)
    for name in _COMPUTED:
        given.pop(name, None)
    merged = {**defaults, **given}
    ordered: Document = {}
    for field in HOST_CONFIG.fields:
        value = merged.get(field.name)
        if field.name not in _OMITTED_EMPTY or value:
            ordered[field.name] = value
    ordered.pop("Init", None)
    if config.init is not None:
        ordered["Init"] = config.init
    return ordered


# Shown as resolved, whatever the spelling given.
_COMPUTED: Final = frozenset(
    {
        "LogConfig",
        "NetworkMode",
        "PortBindings",
        "RestartPolicy",
        "ConsoleSize",
        "CgroupnsMode",
        "IpcMode",
        "ShmSize",
        "MemorySwap",
        "MemorySwappiness",
        "OomKillDisable",
        "PidsLimit",
        "MaskedPaths",
        "ReadonlyPaths",
    }
)


def _computed(config: HostConfig, cgroup_version: str) -> Document:
    limits = config.resources
    policy = config.restart_policy
    ports: dict[str, list[Document]] = {}
    for one in config.port_bindings:
        bound: Document = {"HostIp": one.host_ip, "HostPort": one.host_port}
        ports.setdefault(f"{one.container_port}/{one.protocol}", []).append(bound)
    mode = config.network_mode
    swap = limits.memory_swap or limits.memory * 2
    private_cgroup = cgroup_version == "2" and not config.privileged
    return {
        "LogConfig": {"Type": config.log_driver or "json-file", "Config": dict(config.log_options)},
        "NetworkMode": "bridge" if mode in {"", "default"} else mode,
        "PortBindings": ports,
        "RestartPolicy": {
            "Name": policy.name or "no",
            "MaximumRetryCount": policy.maximum_retry_count,
        },
        "ConsoleSize": [0, 0],
        "CgroupnsMode": config.cgroupns_mode or ("private" if private_cgroup else "host"),
        "IpcMode": config.ipc_mode or "private",
        "ShmSize": config.shm_size or DEFAULT_SHM,
        "Runtime": "runc",  # of containers made before it was kept
        "MemorySwap": swap,
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable if cgroup_version == "1" else None,
        "PidsLimit": limits.pids_limit,
        "MaskedPaths": _paths(config, config.masked_paths, MASKED_PATHS),
        "ReadonlyPaths": _paths(config, config.readonly_paths, READONLY_PATHS),
    }


def _paths(
    config: HostConfig, given: tuple[str, ...] | None, default: tuple[str, ...]
) -> list[str] | None:
    if given is not None:
        return list(given)
    return None if config.privileged else list(default)


def mounts_document(container: Container) -> list[Document]:
    """Mounts; those of HostConfig.Tmpfs are not among them, as in Docker Engine."""
    tmpfs = container.host_config.tmpfs
    return [
        mount_document(one)
        for one in container.mounts
        if not (one.type == "tmpfs" and one.target in tmpfs)
    ]


def mount_document(one: MountPoint) -> Document:
    document: Document = {"Type": one.type}
    if one.name:
        document["Name"] = one.name
    document["Source"] = one.source
    document["Destination"] = one.target
    if one.type == "volume":
        document["Driver"] = one.driver or "local"
    document["Mode"] = one.mode
    document["RW"] = one.read_write
    document["Propagation"] = one.propagation or ("rprivate" if one.type == "bind" else "")
    return document
