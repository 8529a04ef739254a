"""HostConfig: the host-bound half of POST /containers/create."""

from __future__ import annotations

import re
from dataclasses import fields as dataclass_fields
from typing import Final, cast

from agent.api.schema.fields import (
    Document,
    Field,
    Reader,
    Table,
    array_of,
    boolean,
    built,
    integer,
    integers,
    refused,
    text,
    text_map,
    texts,
    unserved,
)
from agent.api.schema.mounts import mounts
from agent.api.schema.ports import bindings
from agent.engine.model import (
    BlockLimit,
    DeviceMapping,
    HostConfig,
    Resources,
    RestartPolicy,
    Ulimit,
)
from agent.errors import invalid
from agent.wire.http import printable

LOG_CONFIG: Final = Table(
    "HostConfig.LogConfig",
    (Field("Type", text, "log_driver"), Field("Config", text_map, "log_options")),
)
RESTART_POLICY: Final = Table(
    "RestartPolicy",
    (Field("Name", text, "name"), Field("MaximumRetryCount", integer, "maximum_retry_count")),
)
DEVICE: Final = Table(
    "DeviceMapping",
    (
        Field("PathOnHost", text, "path_on_host"),
        Field("PathInContainer", text, "path_in_container"),
        Field("CgroupPermissions", text, "cgroup_permissions"),
    ),
)
ULIMIT: Final = Table(
    "Ulimit",
    (Field("Name", text, "name"), Field("Soft", integer, "soft"), Field("Hard", integer, "hard")),
)


def restart_policy(value: object, where: str) -> RestartPolicy:
    """Raises EngineError (INVALID) with docker's texts."""
    policy = built(RestartPolicy, RESTART_POLICY.decode(value, where))
    if policy.name not in {"", "no", "always", "unless-stopped", "on-failure"}:
        raise invalid(
            f"invalid restart policy: unknown policy '{printable(policy.name)}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count < 0:
        raise invalid("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    return policy


def _device(value: object, where: str) -> DeviceMapping:
    decoded = DEVICE.decode(value, where)
    on_host = str(decoded.get("path_on_host", ""))
    in_container = str(decoded.get("path_in_container", "")) or on_host
    permissions = str(decoded.get("cgroup_permissions", "")) or "rwm"
    if not on_host.startswith("/") or not in_container.startswith("/"):
        raise invalid(f"invalid device path: '{printable(on_host)}:{printable(in_container)}'")
    if not set(permissions) <= set("rwm"):
        raise invalid(f"invalid device mode: {printable(permissions)}")
    return DeviceMapping(on_host, in_container, permissions)


def _ulimit(value: object, where: str) -> Ulimit:
    decoded = {"name": "", "soft": 0, "hard": 0, **ULIMIT.decode(value, where)}
    limit = built(Ulimit, decoded)
    if limit.name not in ULIMIT_NAMES:
        raise invalid(f"invalid ulimit type: {printable(limit.name)}")
    if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
        raise invalid(
            f"ulimit soft limit must be less than or equal to hard limit: "
            f"{limit.soft} > {limit.hard}"
        )
    return limit


ULIMIT_NAMES: Final = frozenset(
    [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


def _swappiness(value: object, where: str) -> int | None:
    """-1 is how the docker CLI says "not set"."""
    amount = integer(value, where)
    if amount != -1 and not 0 <= amount <= 100:
        raise invalid(f"Invalid value: {amount}, valid memory swappiness range is 0-100")
    return None if amount == -1 else amount


def _pids_limit(value: object, where: str) -> int | None:
    """0 and -1 are unlimited, which inspect shows as null."""
    amount = integer(value, where)
    return amount if amount > 0 else None


def _network_mode(value: object, where: str) -> str:
    mode = text(value, where)
    if not mode:
        return "default"
    if mode.startswith("container:"):
        if not mode.removeprefix("container:"):
            raise invalid("invalid container format container:<name|id>")
        return mode
    return mode


def _mode_of(*allowed: str) -> Reader:
    def read(value: object, where: str) -> str:
        mode = text(value, where)
        joins = mode.startswith("container:") and len(mode) > len("container:")
        if (mode in allowed and mode != "container:") or (joins and "container:" in allowed):
            return mode
        raise invalid(f"invalid {where.rpartition('.')[2]}: {printable(mode)}")

    return read


_SIZE: Final = re.compile(r"[0-9]{1,15}([bkmg]|[kmg]b)?", re.IGNORECASE)


_LOG_OPTIONS: Final = frozenset({"max-size", "max-file", "mode", "compress"})


def _log_config(value: object, where: str) -> dict[str, object]:
    """json-file, local (both kept as conmon writes them) and none; other drivers are refused."""
    decoded = LOG_CONFIG.decode(value, where)
    driver = decoded.get("log_driver", "")
    if driver not in {"", "json-file", "local", "none"}:
        raise refused(f"{where}.Type {driver}")
    options = cast("dict[str, str]", decoded.get("log_options", {}))
    for option, setting in options.items():
        if driver == "none" or option not in _LOG_OPTIONS:
            raise refused(f"{where}.Config {option}={setting}")
        _check_log_option(option, setting, where)
    return decoded


def _check_log_option(option: str, setting: str, where: str) -> None:
    if option == "max-size":
        if not _SIZE.fullmatch(setting):
            raise invalid(f"invalid size: '{printable(setting)}'")
        if not setting.strip("0bkmgBKMG"):
            raise invalid("max-size must be a positive number")
    elif option == "max-file":
        if not (setting.isascii() and setting.isdigit() and len(setting) < 5):
            raise invalid(f'strconv.Atoi: parsing "{printable(setting)}": invalid syntax')
        if int(setting) < 1:
            raise invalid("max-file cannot be less than 1")
    elif (option, setting) not in {("mode", "blocking"), ("compress", "false")}:
        raise refused(f"{where}.Config {option}={setting}")


WEIGHT_DEVICE: Final = Table(
    "WeightDevice", (Field("Path", text, "path"), Field("Weight", integer, "value"))
)
THROTTLE_DEVICE: Final = Table(
    "ThrottleDevice", (Field("Path", text, "path"), Field("Rate", integer, "value"))
)
DEVICE_REQUEST: Final = Table(
    "DeviceRequest",
    (
        Field("Driver", text, "driver"),
        Field("Count", integer),
        Field("DeviceIDs", texts),
        Field("Capabilities", array_of(texts), "capabilities"),
        Field("Options", text_map),
    ),
)
_DEVICE_RULE: Final = re.compile(r"[acb] ([0-9]{1,9}|\*):([0-9]{1,9}|\*) [rwm]{1,3}")


def _block_weight(value: object, where: str) -> int:
    weight = integer(value, where)
    if weight and not 10 <= weight <= 1000:
        raise invalid("Range of blkio weight is from 10 to 1000")
    return weight


def _weight_device(value: object, where: str) -> BlockLimit:
    found = built(BlockLimit, {"path": "", "value": 0, **WEIGHT_DEVICE.decode(value, where)})
    _block_weight(found.value, where)
    return _block_device(found, where)


def _block_rate(value: object, where: str) -> BlockLimit:
    found = built(BlockLimit, {"path": "", "value": 0, **THROTTLE_DEVICE.decode(value, where)})
    if found.value < 0:
        raise invalid(f"invalid rate for device {printable(found.path)} in {where}")
    return _block_device(found, where)


def _block_device(found: BlockLimit, where: str) -> BlockLimit:
    if not found.path.startswith("/") or "/.." in found.path:
        raise invalid(f"invalid device path in {where}: '{printable(found.path)}'")
    return found


def _device_rule(value: object, where: str) -> str:
    rule = text(value, where)
    if not _DEVICE_RULE.fullmatch(rule):
        raise invalid(f"invalid device cgroup rule format: '{printable(rule)}'")
    return rule


def _user_namespace(value: object, where: str) -> None:
    """ "host" means no user namespace, which is all there is."""
    mode = text(value, where)
    if mode not in {"", "host"}:
        raise invalid(
            f'invalid UsernsMode: "{printable(mode)}": this engine remaps no users, so only "host"'
            " can be asked for"
        )


def cgroup_parent(value: object, where: str) -> str:
    """An absolute cgroup path; "x" is "/x", as with Docker Engine's cgroupfs driver."""
    path = text(value, where)
    if not path:
        return ""
    parts = [part for part in path.split("/") if part]
    if not parts or any(part in {".", ".."} or not part.isprintable() for part in parts):
        raise invalid(f"invalid cgroup parent: '{printable(path)}'")
    return "/" + "/".join(parts)


def _no_device_requests(value: object, where: str) -> None:
    """What Docker Engine says on a host without a GPU runtime."""
    for one in array_of(DEVICE_REQUEST.decode)(value, where):
        wanted = cast("tuple[tuple[str, ...], ...]", one.get("capabilities", ()))
        shown = " ".join(f"[{' '.join(words)}]" for words in wanted)
        raise invalid(
            f'could not select device driver "{printable(str(one.get("driver", "")))}"'
            f" with capabilities: [{printable(shown)}]"
        )


def _no_storage_options(value: object, where: str) -> None:
    if text_map(value, where):
        raise invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        )


RESOURCES: Final = Table(
    "Resources",
    (
        Field("CpuShares", integer, "cpu_shares"),
        Field("Memory", integer, "memory"),
        Field("CgroupParent", cgroup_parent, "cgroup_parent"),
        Field("BlkioWeight", _block_weight, "blkio_weight"),
        Field("BlkioWeightDevice", array_of(_weight_device), "blkio_weight_device"),
        Field("BlkioDeviceReadBps", array_of(_block_rate), "blkio_read_bps"),
        Field("BlkioDeviceWriteBps", array_of(_block_rate), "blkio_write_bps"),
        Field("BlkioDeviceReadIOps", array_of(_block_rate), "blkio_read_iops"),
        Field("BlkioDeviceWriteIOps", array_of(_block_rate), "blkio_write_iops"),
        Field("CpuPeriod", integer, "cpu_period"),
        Field("CpuQuota", integer, "cpu_quota"),
        Field("CpuRealtimePeriod", integer, "cpu_realtime_period"),
        Field("CpuRealtimeRuntime", integer, "cpu_realtime_runtime"),
        Field("CpusetCpus", text, "cpuset_cpus"),
        Field("CpusetMems", text, "cpuset_mems"),
        Field("Devices", array_of(_device), "devices"),
        Field("DeviceCgroupRules", array_of(_device_rule), "device_cgroup_rules"),
        Field("DeviceRequests", _no_device_requests),
        unserved("KernelMemoryTCP"),
        Field("MemoryReservation", integer, "memory_reservation"),
        Field("MemorySwap", integer, "memory_swap"),
        Field("MemorySwappiness", _swappiness, "memory_swappiness"),
        Field("NanoCpus", integer, "nano_cpus"),
        Field("OomKillDisable", boolean, "oom_kill_disable"),
        Field("Init", boolean, "init"),
        Field("PidsLimit", _pids_limit, "pids_limit"),
        Field("Ulimits", array_of(_ulimit), "ulimits"),
        unserved("CpuCount"),
        unserved("CpuPercent"),
        unserved("IOMaximumIOps"),
        unserved("IOMaximumBandwidth"),
    ),
)

HOST_CONFIG: Final = Table(
    "HostConfig",
    (
        Field("Binds", texts, "binds"),
        Field("ContainerIDFile", text),  # the client writes that file
        Field("LogConfig", _log_config, "log_config"),
        Field("NetworkMode", _network_mode, "network_mode"),
        Field("PortBindings", bindings, "port_bindings"),
        Field("RestartPolicy", restart_policy, "restart_policy"),
        Field("AutoRemove", boolean, "auto_remove"),
        unserved("VolumeDriver", "local"),
        Field("VolumesFrom", texts, "volumes_from"),
        Field("ConsoleSize", integers),  # kept in the given document; the client resizes too
        Field("Annotations", text_map, "annotations"),
        Field("CapAdd", texts, "cap_add"),
        Field("CapDrop", texts, "cap_drop"),
        Field("CgroupnsMode", _mode_of("", "private", "host"), "cgroupns_mode"),
        Field("Dns", texts, "dns"),
        Field("DnsOptions", texts, "dns_options"),
        Field("DnsSearch", texts, "dns_search"),
        Field("ExtraHosts", texts, "extra_hosts"),
        Field("GroupAdd", texts, "group_add"),
        Field(
            "IpcMode",
            _mode_of("", "private", "host", "shareable", "none", "container:"),
            "ipc_mode",
        ),
        unserved("Cgroup"),
        Field("Links", texts, "links"),
        Field("OomScoreAdj", integer, "oom_score_adj"),
        Field("PidMode", _mode_of("", "private", "host", "container:"), "pid_mode"),
        Field("Privileged", boolean, "privileged"),
        Field("PublishAllPorts", boolean, "publish_all_ports"),
        Field("ReadonlyRootfs", boolean, "readonly_rootfs"),
        Field("SecurityOpt", texts, "security_opt"),
        Field("StorageOpt", _no_storage_options),
        Field("Tmpfs", text_map, "tmpfs"),
        Field("UTSMode", _mode_of("", "private", "host"), "uts_mode"),
        Field("UsernsMode", _user_namespace),
        Field("ShmSize", integer, "shm_size"),
        Field("Sysctls", text_map, "sysctls"),
        Field("Runtime", text, "runtime"),
        unserved("Isolation", "default"),
        *RESOURCES.fields,
        Field("Mounts", mounts, "mounts"),
        Field("MaskedPaths", texts, "masked_paths"),
        Field("ReadonlyPaths", texts, "readonly_paths"),
    ),
)

_RESOURCE_NAMES: Final = frozenset(field.name for field in dataclass_fields(Resources))


def host_config(document: Document) -> HostConfig:
    """Decodes and checks.  Raises EngineError: INVALID."""
    decoded = HOST_CONFIG.decode(document)
    decoded.update(cast("Document", decoded.pop("log_config", {})))
    limits = {name: decoded.pop(name) for name in _RESOURCE_NAMES & decoded.keys()}
    config = built(HostConfig, {**decoded, "resources": built(Resources, limits)})
    _check(config)
    _check_resources(config.resources)
    return config


def _check(config: HostConfig) -> None:
    if config.auto_remove and config.restart_policy.name not in {"", "no"}:
        raise invalid("can't create 'AutoRemove' container with restart policy")
    if config.shm_size < 0:
        raise invalid("SHM size can not be less than 0")
    if not -1000 <= config.oom_score_adj <= 1000:
        raise invalid(
            f"Invalid value {config.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if config.port_bindings and config.network_mode.startswith("container:"):
        raise invalid("conflicting options: port publishing and the container type network mode")
    for host in config.extra_hosts:
        name, separator, address = host.partition(":")
        if not separator:
            name, separator, address = host.partition("=")
        if not name or not address:
            raise invalid(f'bad format for add-host: "{printable(host)}"')
    for target in config.tmpfs:
        if not target.startswith("/"):
            raise invalid(f"invalid mount path: '{printable(target)}' mount path must be absolute")


MINIMUM_MEMORY: Final = 6 * 1024 * 1024


def _check_resources(limits: Resources) -> None:
    if limits.memory and limits.memory < MINIMUM_MEMORY:
        raise invalid("Minimum memory limit allowed is 6MB")
    if limits.memory_swap > 0 and not limits.memory:
        raise invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if limits.memory and 0 < limits.memory_swap < limits.memory:
        raise invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.memory_reservation and limits.memory_reservation < MINIMUM_MEMORY:
        raise invalid("Minimum memory reservation allowed is 6MB")
    if limits.memory and limits.memory_reservation > limits.memory:
        raise invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    _check_cpu(limits)


def _check_cpu(limits: Resources) -> None:
    if limits.nano_cpus < 0:
        raise invalid("NanoCPUs can not be set to a negative value")
    if limits.nano_cpus and limits.cpu_period:
        raise invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if limits.nano_cpus and limits.cpu_quota:
        raise invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if limits.cpu_period and not 1000 <= limits.cpu_period <= 1_000_000:
        raise invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s")
    if 0 < limits.cpu_quota < 1000:
        raise invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
