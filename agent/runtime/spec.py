"""The OCI runtime configuration (runtime-spec 1.0.2) of a container: a pure function.

Defaults are those of Docker Engine today (reference/security.md section 1); nothing comes from an
image but what the user could have typed: command, environment, user, working directory.
Annotations are never written: crun acts on them (case 46).
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import field

from agent.engine.model import Container, ExecConfig, Ulimit
from agent.engine.ports import Launch
from agent.errors import invalid
from agent.runtime import capabilities, seccomp
from agent.runtime.spec_linux import DeviceNode, device_rules, devices, resources
from agent.runtime.spec_mounts import mounts
from agent.runtime.users import Identity
from agent.values import frozen

Document = dict[str, object]
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_TARGET = "/sbin/docker-init"
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@frozen
class HostFacts:
    """What the specification needs to know of the host; gathered by agent.runtime.host."""

    machine: str  # uname -m
    capabilities: tuple[str, ...]  # what the agent has itself (CAP_ names)
    unified: bool  # pure cgroup2
    swap_limit: bool  # memory+swap can be limited
    thermal: tuple[str, ...] = ()  # /sys/devices/system/cpu/cpuN/thermal_throttle that exist
    host_devices: tuple[DeviceNode, ...] = ()  # for --privileged
    init: str = ""  # program for --init; "" = none on this host
    recursive_read_only: bool = True  # mount_setattr(2), kernel 5.12


@frozen
class Resolved:
    """What was looked up for this container."""

    identity: Identity
    cgroup: str  # cgroupsPath
    devices: tuple[DeviceNode, ...] = ()  # --device
    pid_namespace: str = ""  # "/proc/<pid>/ns/pid" for --pid container:<id>
    ipc_namespace: str = ""  # the same for --ipc container:<id>
    shared_memory: str = ""  # its /dev/shm
    ulimits: tuple[Ulimit, ...] = ()  # the agent's defaults


@frozen
class Security:
    """HostConfig.SecurityOpt, taken apart."""

    no_new_privileges: bool = False
    seccomp: str = ""  # "" = default, "unconfined", or a profile's JSON
    labels: tuple[str, ...] = field(default=())


def security_options(options: Sequence[str]) -> Security:
    """Parse SecurityOpt.  INVALID for unknown options, as Docker."""
    no_new, filter_ = False, ""
    for option in options:
        split = "=" if "=" in option else ":"
        key, _, value = option.partition(split)
        if key == "no-new-privileges" and value in ("", "true", "false"):
            no_new = value != "false"
        elif key == "seccomp" and value:
            filter_ = value
        elif (key == "apparmor" and value) or (key == "label" and value):
            continue  # neither is on by default here; "unconfined" and "disable" hold anyway
        else:
            raise invalid(f'invalid --security-opt 2: "{option}"')
    return Security(no_new, filter_)


def build(launch: Launch, resolved: Resolved, facts: HostFacts) -> Document:
    """config.json as a document.  Raises INVALID for what can't be done."""
    container = launch.container
    host = container.host_config
    security = security_options(host.security_opt)
    linux = _linux(launch, resolved, facts, security)
    config: Document = {
        "ociVersion": "1.0.2",
        "process": _process(launch, resolved, facts, security),
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "mounts": mounts(
            launch,
            unified=facts.unified,
            init=_init_program(launch, facts),
            recursive=facts.recursive_read_only,
            shared_memory=resolved.shared_memory,
        ),
        "linux": linux,
    }
    if host.uts_mode != "host":
        config["hostname"] = launch.hostname
    return config


def _init_program(launch: Launch, facts: HostFacts) -> str:
    if not launch.container.host_config.init:
        return ""
    if not facts.init:
        raise invalid(
            "--init needs an init program on the host: install the package tini or catatonit"
        )
    return facts.init


def _process(launch: Launch, resolved: Resolved, facts: HostFacts, security: Security) -> Document:
    container = launch.container
    host = container.host_config
    args = [container.path, *container.args]
    if host.init:
        args = [INIT_TARGET, "--", *args]
    process: Document = {
        "terminal": container.config.tty,
        **_console(container.given_host_config.get("ConsoleSize"), tty=container.config.tty),
        "user": _user(resolved.identity),
        "args": args,
        "env": environment(container, launch.hostname, resolved.identity.home),
        "cwd": working_directory(container.config.working_dir),
        "capabilities": capability_sets(
            resolved.identity.uid,
            capabilities.resolve(
                host.cap_add,
                host.cap_drop,
                privileged=host.privileged,
                available=facts.capabilities,
            ),
        ),
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    }
    return process | _rlimits(resolved.ulimits, host.resources.ulimits)


def _rlimits(defaults: Sequence[Ulimit], own: Sequence[Ulimit]) -> Document:
    limits = {limit.name: limit for limit in (*defaults, *own)}
    if not limits:
        return {}
    return {
        "rlimits": [
            {
                "type": f"RLIMIT_{limit.name.upper()}",
                "soft": _limit(limit.soft),
                "hard": _limit(limit.hard),
            }
            for limit in limits.values()
        ]
    }


def _limit(value: int) -> int:
    return value if value >= 0 else 2**64 - 1


def _user(identity: Identity) -> Document:
    return {
        "uid": identity.uid,
        "gid": identity.gid,
        "additionalGids": list(identity.groups),
    }


def capability_sets(uid: int, bounding: Sequence[str]) -> Document:
    """Docker's: no inheritable, no ambient; effective and permitted are root's only (case 51)."""
    mine = list(bounding) if uid == 0 else []
    return {"bounding": list(bounding), "effective": mine, "permitted": mine}


def environment(container: Container, hostname: str, home: str) -> list[str]:
    """Docker's order: its defaults, overlaid by the container's own; "NAME" without "=" removes."""
    values = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if container.config.tty:
        values["TERM"] = "xterm"
    return _merge(values, container.config.env, home)


def _merge(values: dict[str, str], given: Sequence[str], home: str) -> list[str]:
    for entry in given:
        name, equals, value = entry.partition("=")
        if "\0" in entry:
            raise invalid("invalid environment variable: null byte")
        if equals:
            values[name] = value
        else:
            values.pop(name, None)
    values.setdefault("HOME", home)
    return [f"{name}={value}" for name, value in values.items()]


def working_directory(given: str) -> str:
    """A clean absolute path.  A way through /proc's magic links is refused (CVE-2024-21626)."""
    path = posixpath.normpath("/" + given.lstrip("/")) if given else "/"
    if "\0" in path or escapes_by_proc(path):
        raise invalid(f"invalid working directory {given!r}: it leads out of the container")
    return path


def escapes_by_proc(path: str) -> bool:
    """Whether a clean absolute path goes through /proc/<pid>/{fd,cwd,root,exe,task,...}."""
    parts = path.split("/")
    return len(parts) > 3 and parts[1] == "proc" and parts[2] not in ("sys", "fs", "bus", "irq")


def _linux(launch: Launch, resolved: Resolved, facts: HostFacts, security: Security) -> Document:
    host = launch.container.host_config
    bounding = capabilities.resolve(
        host.cap_add, host.cap_drop, privileged=host.privileged, available=facts.capabilities
    )
    linux: Document = {
        "cgroupsPath": resolved.cgroup,
        "namespaces": _namespaces(launch, resolved, facts),
        "resources": {
            **resources(host.resources, swap_limit=facts.swap_limit, unified=facts.unified),
            "devices": device_rules(
                resolved.devices, host.resources.device_cgroup_rules, privileged=host.privileged
            ),
        },
        "devices": devices(
            (*facts.host_devices, *resolved.devices) if host.privileged else resolved.devices
        ),
        "sysctl": _sysctls(launch),
    }
    if not host.privileged:
        masked = (*MASKED, *facts.thermal) if host.masked_paths is None else host.masked_paths
        read_only = READ_ONLY if host.readonly_paths is None else host.readonly_paths
        linux["maskedPaths"] = sorted(masked)
        linux["readonlyPaths"] = list(read_only)
    filter_ = _filter(security, bounding, facts.machine, privileged=host.privileged)
    if filter_ is not None:
        linux["seccomp"] = filter_
    kinds = {mount.propagation for mount in launch.mounts}
    if kinds & {"shared", "rshared"}:
        linux["rootfsPropagation"] = "rshared"
    elif kinds & {"slave", "rslave"}:
        linux["rootfsPropagation"] = "rslave"
    return linux


def _filter(
    security: Security, bounding: Sequence[str], machine: str, *, privileged: bool
) -> Document | None:
    if security.seccomp == "unconfined" or (privileged and not security.seccomp):
        return None
    if security.seccomp in ("", "builtin"):
        return seccomp.default(bounding, machine)
    return seccomp.custom(security.seccomp, bounding, machine)


def _namespaces(launch: Launch, resolved: Resolved, facts: HostFacts) -> list[Document]:
    host = launch.container.host_config
    found: list[Document] = [{"type": "mount"}]
    if host.pid_mode != "host":
        path = {"path": resolved.pid_namespace} if resolved.pid_namespace else {}
        found.append({"type": "pid", **path})
    if host.ipc_mode != "host":
        path = {"path": resolved.ipc_namespace} if resolved.ipc_namespace else {}
        found.append({"type": "ipc", **path})
    if host.uts_mode != "host":
        found.append({"type": "uts"})
    if launch.network_namespace == "private":
        found.append({"type": "network"})
    elif launch.network_namespace != "host":
        found.append({"type": "network", "path": launch.network_namespace})
    # Docker's default: private on cgroup2, the host's on v1.
    if (host.cgroupns_mode or ("private" if facts.unified else "host")) == "private":
        found.append({"type": "cgroup"})
    return found


def _sysctls(launch: Launch) -> Mapping[str, str]:
    host, config = launch.container.host_config, launch.container.config
    values: dict[str, str] = {}
    if launch.network_namespace == "private":
        values["net.ipv4.ip_unprivileged_port_start"] = "0"
        values["net.ipv4.ping_group_range"] = "0 2147483647"
    if config.domainname and host.uts_mode != "host":
        values["kernel.domainname"] = config.domainname
    for name, value in host.sysctls.items():
        if name.startswith("net.") and launch.network_namespace == "host":
            raise invalid(f"sysctl '{name}' not allowed in host network namespace")
        values[name] = value
    return values


def exec_process(
    container: Container,
    config: ExecConfig,
    identity: Identity,
    facts: HostFacts,
    hostname: str,
    ulimits: Sequence[Ulimit] = (),
) -> Document:
    """The runtime-spec process object of an exec: the container's, with the exec's own parts.
    `ulimits` are the agent's defaults."""
    host = container.host_config
    privileged = config.privileged or host.privileged
    bounding = capabilities.resolve(
        host.cap_add, host.cap_drop, privileged=privileged, available=facts.capabilities
    )
    values = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if config.tty:
        values["TERM"] = "xterm"
    return {
        "terminal": config.tty,
        "user": _user(identity),
        "args": list(config.cmd),
        "env": _merge(values, (*container.config.env, *config.env), identity.home),
        "cwd": working_directory(config.working_dir or container.config.working_dir),
        "capabilities": capability_sets(identity.uid, bounding),
        "noNewPrivileges": security_options(host.security_opt).no_new_privileges,
        # crun, unlike runc, does not take the container's own
        **_rlimits(ulimits, host.resources.ulimits),
        **_console(config.console_size, tty=config.tty),
    }


def _console(size: object, *, tty: bool) -> Document:
    """A terminal's first size, so that a program never sees none: a resize comes after the start."""
    match size:
        case [int(rows), int(columns)] if tty and 0 < rows < 65536 and 0 < columns < 65536:
            return {"consoleSize": {"height": rows, "width": columns}}
    return {}
