"""The mount list of the OCI configuration: Docker's defaults, the engine's files, the user's.  Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from agent.engine.model import MountPoint
from agent.engine.ports import Launch
from agent.errors import invalid

Document = dict[str, object]
_DEFAULT_SHM = 64 << 20
_TMPFS_DEFAULT = ("noexec", "nosuid", "nodev")
_PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_NEGATED = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro", "atime": "noatime"}


def mounts(
    launch: Launch, *, unified: bool, init: str, recursive: bool, shared_memory: str = ""
) -> list[Document]:
    """All mounts, parents before children; a user's mount replaces a default on the same path.

    `recursive`: the kernel can make a whole tree of mounts read-only.
    """
    host = launch.container.host_config
    own = [_user_mount(mount, recursive=recursive) for mount in launch.mounts]
    taken = {mount.target for mount in launch.mounts}
    for target, options in host.tmpfs.items():
        if target not in taken:
            own.append(_tmpfs(target, options))
            taken.add(target)
    for target in taken:
        check_target(target, privileged=host.privileged)
    table = {
        str(mount["destination"]): mount
        for mount in _defaults(launch, shared_memory, unified=unified)
    }
    for mount in _engine_files(launch, init):
        table[str(mount["destination"])] = mount
    for mount in own:
        table[str(mount["destination"])] = mount
    return sorted(table.values(), key=lambda mount: _depth(str(mount["destination"])))


def check_target(target: str, *, privileged: bool) -> None:
    """INVALID for a target that no container may mount on (case 54)."""
    if "\0" in target or not target.startswith("/"):
        raise invalid(f"invalid mount path: '{target}' mount path must be absolute")
    if posixpath.normpath(target) != target or target == "/":
        raise invalid(f"invalid specification: destination can't be '{target}'")
    if not privileged and (target == "/proc" or target.startswith("/proc/")):
        raise invalid(f'"{target}" cannot be mounted because it is inside /proc')


def _depth(path: str) -> int:
    return path.rstrip("/").count("/")


def _mount(target: str, kind: str, source: str, *options: str) -> Document:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _defaults(launch: Launch, shared_memory: str, *, unified: bool) -> list[Document]:
    host = launch.container.host_config
    safe = ("nosuid", "noexec", "nodev")
    access = "rw" if host.privileged else "ro"
    found = [
        _mount("/proc", "proc", "proc", *safe),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666",
            "mode=0620", "gid=5",
        ),
        _mount("/sys", "sysfs", "sysfs", *safe, access),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *safe, access),
        _mount("/dev/mqueue", "mqueue", "mqueue", *safe),
    ]  # fmt: skip
    del unified  # both layouts are mounted as type "cgroup": the runtime knows what to do
    size = host.shm_size or _DEFAULT_SHM
    if host.ipc_mode == "host":
        found.append(_mount("/dev/shm", "bind", "/dev/shm", "rbind", "rprivate"))  # noqa: S108
        found = [mount for mount in found if mount["destination"] != "/dev/mqueue"]
        found.append(_mount("/dev/mqueue", "bind", "/dev/mqueue", "rbind", "rprivate"))
    elif host.ipc_mode.startswith("container:"):
        found.append(_mount("/dev/shm", "bind", shared_memory, "rbind", "rprivate"))  # noqa: S108
    elif host.ipc_mode != "none":
        found.append(
            _mount("/dev/shm", "tmpfs", "shm", *safe, "mode=1777", f"size={size}")  # noqa: S108
        )
    return found


def _engine_files(launch: Launch, init: str) -> list[Document]:
    access = "ro" if launch.container.host_config.readonly_rootfs else "rw"
    files = (
        ("/etc/hosts", launch.etc_hosts),
        ("/etc/hostname", launch.etc_hostname),
        ("/etc/resolv.conf", launch.etc_resolv_conf),
    )
    found = [_mount(to, "bind", of, "rbind", "rprivate", access) for to, of in files if of]
    if init:
        found.append(_mount("/sbin/docker-init", "bind", init, "bind", "ro", "rprivate"))
    return found


def _user_mount(mount: MountPoint, *, recursive: bool) -> Document:
    if mount.type == "tmpfs":
        return _tmpfs(mount.target, mount.tmpfs_options, read_only=not mount.read_write)
    propagation = mount.propagation or "rprivate"
    if propagation not in _PROPAGATIONS:
        raise invalid(f"invalid propagation mode: {mount.propagation}")
    if mount.read_only_forced and not recursive:
        raise invalid(
            f"{mount.target} cannot be made read-only recursively: that needs kernel 5.12"
            " (BindOptions.ReadOnlyForceRecursive)"
        )
    below = mount.read_only_recursive and recursive
    access = "rw" if mount.read_write else "rro" if below else "ro"
    kind = "rbind" if mount.recursive else "bind"
    return _mount(mount.target, "bind", mount.source, kind, propagation, access)


def _tmpfs(target: str, options: str, *, read_only: bool = False) -> Document:
    """--tmpfs TARGET[:OPTIONS]: noexec,nosuid,nodev unless the options say otherwise."""
    given = [option for option in options.split(",") if option]
    for option in given:
        if not _tmpfs_option(option):
            raise invalid(f'invalid tmpfs option ["{option}"]')
    kept = [option for option in _TMPFS_DEFAULT if not _overridden(option, given)]
    extra = ["ro"] if read_only and "ro" not in given else []
    return _mount(target, "tmpfs", "tmpfs", *kept, *given, *extra)


def _overridden(default: str, given: Sequence[str]) -> bool:
    return default in given or any(_NEGATED.get(option) == default for option in given)


def _tmpfs_option(option: str) -> bool:
    name, equals, value = option.partition("=")
    if equals:
        return name in ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol") and bool(
            value
        )
    return name in (*_NEGATED, *_NEGATED.values(), "relatime", "norelatime", "strictatime",
                    "nodiratime", "diratime", "sync", "async", "private", "rprivate")  # fmt: skip
