"""`run` and `create` flags to the body of POST /containers/create.  Pure.

Spellings and error texts follow the docker CLI, so that scripts need no change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from machine.errors import MachineError

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


class FlagError(MachineError):
    """A flag's value can't be used."""

    def __init__(self, text: str) -> None:
        super().__init__(text, hint="See --help.", exit_code=125)


@dataclass(frozen=True)
class RunFlags:
    """The flags, as parsed and not yet understood."""

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    detach: bool = False
    interactive: bool = False
    tty: bool = False
    remove: bool = False
    attach: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    env_file_lines: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    entrypoint: str | None = None
    hostname: str = ""
    domainname: str = ""
    label: tuple[str, ...] = ()
    restart: str = ""
    memory: str = ""
    memory_swap: str = ""
    memory_reservation: str = ""
    cpus: str = ""
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    init: bool = False
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    volume: tuple[str, ...] = ()
    volumes_from: tuple[str, ...] = ()
    mount: tuple[str, ...] = ()
    network: str = ""
    add_host: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_option: tuple[str, ...] = ()
    ulimit: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    shm_size: str = ""
    sysctl: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout: int | None = None
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    cgroupns: str = ""
    oom_score_adj: int = 0
    log_driver: str = ""
    log_opt: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    runtime: str = ""
    console_size: tuple[int, int] | None = None  # rows, columns
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)


def size(text: str) -> int:
    """ "512m" -> bytes; docker's units are powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgtp]?)i?b?", text.strip().lower())
    if not match:
        raise FlagError(f"invalid size: '{text}'")
    return int(float(match[1]) * _UNITS[match[2]])


def _port_range(text: str, whole: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        raise FlagError(f"invalid containerPort: {text} in {whole!r}")
    start = int(match[1])
    end = int(match[2] or start)
    if not (0 < start <= end <= 65535):
        raise FlagError(f"invalid port range {text} in {whole!r}")
    return start, end


def _split_publish(text: str) -> tuple[str, str, str]:
    """(host ip, host ports, container ports) of -p without its protocol."""
    if text.startswith("["):
        address, found, rest = text[1:].partition("]:")
        if not found:
            raise FlagError(f"invalid IP address in {text!r}")
        host, _, container = rest.rpartition(":")
        return address, host, container
    parts = text.split(":")
    if len(parts) > 3:
        return ":".join(parts[:-2]), parts[-2], parts[-1]
    address, host, container = ["", "", *parts][-3:]
    return address, host, container


def ports(specs: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """-p values -> PortBindings: "80", "8080:80", "127.0.0.1:8080:80/udp", "8000-8010:80-90"."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for spec in specs:
        text, _, protocol = spec.partition("/")
        protocol = protocol.lower() or "tcp"
        if protocol not in {"tcp", "udp", "sctp"}:
            raise FlagError(f"invalid proto: {protocol}")
        address, host, container = _split_publish(text)
        first, last = _port_range(container, spec)
        for offset, port in enumerate(range(first, last + 1)):
            binding = {"HostIp": address, "HostPort": _host_port(host, offset, last - first, spec)}
            bindings.setdefault(f"{port}/{protocol}", []).append(binding)
    return bindings


def _host_port(host: str, offset: int, span: int, spec: str) -> str:
    if not host:
        return ""
    start, end = _port_range(host, spec)
    if span == 0:
        return host  # one container port may take any of a range
    if end - start != span:
        raise FlagError(f"invalid ranges specified for container and host Ports: {spec}")
    return str(start + offset)


def environment(flags: RunFlags) -> list[str]:
    """-e and --env-file: NAME alone takes the caller's value, or nothing when there is none."""
    lines = [line.strip() for line in flags.env_file_lines]
    given = [line for line in lines if line and not line.startswith("#")] + list(flags.env)
    found: list[str] = []
    for item in given:
        name, equals, _ = item.partition("=")
        if not name:
            raise FlagError(f"invalid environment variable: {item}")
        if equals:
            found.append(item)
        elif name in flags.environ:
            found.append(f"{name}={flags.environ[name]}")
    return found


def pairs(items: Sequence[str]) -> dict[str, str]:
    """ "k=v" words -> a mapping; "k" alone has an empty value."""
    return {name: value for name, _, value in (item.partition("=") for item in items)}


def restart_policy(text: str) -> dict[str, object]:
    name, _, count = text.partition(":")
    if count and (name != "on-failure" or not count.isdigit()):
        raise FlagError(
            "invalid restart policy format: maximum retry count can only be used with 'on-failure'"
            if count.isdigit()
            else "invalid restart policy format: maximum retry count must be an integer"
        )
    return {"Name": name or "no", "MaximumRetryCount": int(count or 0)}


_MOUNT_KEYS = {"source": "source", "src": "source", "target": "target", "dst": "target"}
_MOUNT_KEYS |= {"destination": "target", "type": "type", "readonly": "readonly", "ro": "readonly"}


def mount(text: str) -> dict[str, object]:
    """--mount type=...,source=...,target=...[,readonly][,...] -> a Mount."""
    words = pairs(text.split(","))
    known = {_MOUNT_KEYS.get(name, name): value for name, value in words.items()}
    kind = known.pop("type", "volume")
    if "target" not in known:
        raise FlagError("invalid argument for --mount: target is required")
    result: dict[str, object] = {"Type": kind, "Target": known.pop("target")}
    if "source" in known:
        result["Source"] = known.pop("source")
    if known.pop("readonly", "false").lower() in {"", "true", "1"}:
        result["ReadOnly"] = True
    options = _mount_options(kind, known)
    if known:
        raise FlagError(f"unexpected key '{next(iter(known))}' in '{text}'")
    return result | options


def _mount_options(kind: str, known: dict[str, str]) -> dict[str, object]:
    options: dict[str, object] = {}
    if kind == "bind" and "bind-propagation" in known:
        options["BindOptions"] = {"Propagation": known.pop("bind-propagation")}
    if kind == "volume" and "volume-nocopy" in known:
        no_copy = known.pop("volume-nocopy").lower() in {"", "true", "1"}
        options["VolumeOptions"] = {"NoCopy": no_copy}
    tmpfs: dict[str, object] = {}
    if kind == "tmpfs" and "tmpfs-size" in known:
        tmpfs["SizeBytes"] = size(known.pop("tmpfs-size"))
    if kind == "tmpfs" and "tmpfs-mode" in known:
        tmpfs["Mode"] = int(known.pop("tmpfs-mode"), 8)
    return options | ({"TmpfsOptions": tmpfs} if tmpfs else {})


def ulimit(text: str) -> dict[str, object]:
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    if not re.fullmatch(r"-?\d+", soft) or not re.fullmatch(r"(-?\d+)?", hard):
        raise FlagError(f"invalid ulimit argument: {text}")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def device(text: str) -> dict[str, str]:
    parts = text.split(":")
    host = parts[0]
    inside = parts[1] if len(parts) > 1 and parts[1].startswith("/") else host
    permissions = parts[-1] if len(parts) > 1 and not parts[-1].startswith("/") else "rwm"
    if not re.fullmatch("[rwm]{1,3}", permissions) or not host.startswith("/"):
        raise FlagError(f"invalid device specification: {text}")
    return {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": permissions}


def nano_cpus(text: str) -> int:
    try:
        return round(float(text) * 1_000_000_000) if text else 0
    except ValueError:
        raise FlagError(f"failed to parse {text} as a rational number") from None


def create_body(flags: RunFlags) -> dict[str, object]:
    """The whole create body.  Raises FlagError."""
    anonymous = [item for item in flags.volume if ":" not in item]
    streams = {stream.lower() for stream in flags.attach}
    attached = not flags.detach and not streams
    published = ports(flags.publish)
    body: dict[str, object] = {
        "Hostname": flags.hostname,
        "Domainname": flags.domainname,
        "User": flags.user,
        "AttachStdin": (attached and flags.interactive) or "stdin" in streams,
        "AttachStdout": attached or "stdout" in streams,
        "AttachStderr": attached or "stderr" in streams,
        "Tty": flags.tty,
        "OpenStdin": flags.interactive,
        "StdinOnce": flags.interactive and not flags.detach,
        "Env": environment(flags),
        "Cmd": list(flags.command) or None,
        "Image": flags.image,
        "WorkingDir": flags.workdir,
        "Labels": pairs(flags.label),
        "Volumes": {target: {} for target in anonymous},
        "ExposedPorts": {port: {} for port in [*published, *_exposed(flags.expose)]},
        "HostConfig": _host_config(flags, published),
    }
    if flags.entrypoint is not None:
        body["Entrypoint"] = [flags.entrypoint] if flags.entrypoint else [""]
    if flags.stop_signal:
        body["StopSignal"] = flags.stop_signal
    if flags.stop_timeout is not None:
        body["StopTimeout"] = flags.stop_timeout
    return body


def _exposed(specs: Sequence[str]) -> list[str]:
    found = []
    for spec in specs:
        text, _, protocol = spec.partition("/")
        first, last = _port_range(text, spec)
        found += [f"{port}/{protocol or 'tcp'}" for port in range(first, last + 1)]
    return found


def _host_config(flags: RunFlags, published: dict[str, list[dict[str, str]]]) -> dict[str, object]:
    """Only what was asked for: what is absent has the engine's default."""
    wanted: dict[str, object] = {
        "Binds": [item for item in flags.volume if ":" in item],
        "VolumesFrom": list(flags.volumes_from),
        "Mounts": [mount(item) for item in flags.mount],
        "Tmpfs": {path: options for path, _, options in (t.partition(":") for t in flags.tmpfs)},
        "PortBindings": published,
        "PublishAllPorts": flags.publish_all,
        "AutoRemove": flags.remove,
        "RestartPolicy": restart_policy(flags.restart) if flags.restart else None,
        "NetworkMode": flags.network,
        "ConsoleSize": list(flags.console_size) if flags.console_size and flags.tty else None,
        "Privileged": flags.privileged,
        "ReadonlyRootfs": flags.read_only,
        "Init": flags.init or None,
        "CapAdd": list(flags.cap_add),
        "CapDrop": list(flags.cap_drop),
        "SecurityOpt": list(flags.security_opt),
        "GroupAdd": list(flags.group_add),
        "ExtraHosts": list(flags.add_host),
        "Dns": list(flags.dns),
        "DnsSearch": list(flags.dns_search),
        "DnsOptions": list(flags.dns_option),
        "Ulimits": [ulimit(item) for item in flags.ulimit],
        "Devices": [device(item) for item in flags.device],
        "Sysctls": pairs(flags.sysctl),
        "IpcMode": flags.ipc,
        "PidMode": flags.pid,
        "UTSMode": flags.uts,
        "CgroupnsMode": flags.cgroupns,
        "OomScoreAdj": flags.oom_score_adj,
        "Annotations": pairs(flags.annotation),
        "Runtime": flags.runtime,
        **_limits(flags),
    }
    if flags.log_driver or flags.log_opt:
        wanted["LogConfig"] = {"Type": flags.log_driver, "Config": pairs(flags.log_opt)}
    return {name: value for name, value in wanted.items() if value}


def _limits(flags: RunFlags) -> dict[str, object]:
    swap = flags.memory_swap
    return {
        "Memory": size(flags.memory) if flags.memory else 0,
        "MemorySwap": (-1 if swap == "-1" else size(swap)) if swap else 0,
        "MemoryReservation": size(flags.memory_reservation) if flags.memory_reservation else 0,
        "NanoCpus": nano_cpus(flags.cpus),
        "CpuShares": flags.cpu_shares,
        "CpuQuota": flags.cpu_quota,
        "CpuPeriod": flags.cpu_period,
        "CpusetCpus": flags.cpuset_cpus,
        "CpusetMems": flags.cpuset_mems,
        "PidsLimit": flags.pids_limit or None,
        "ShmSize": size(flags.shm_size) if flags.shm_size else 0,
    }
