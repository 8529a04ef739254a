"""From what a user wrote (-v, --mount, --tmpfs, VOLUME) to a container's mounts, pure.

Volumes come out without a source: the volume driver knows it.  Texts are Docker Engine's.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterable
from typing import Final

from agent.engine.model import HostConfig, MountPoint, MountRequest
from agent.errors import EngineError, invalid

VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PROPAGATIONS: Final = frozenset({"shared", "rshared", "slave", "rslave", "private", "rprivate"})
_CONSISTENCY: Final = frozenset({"default", "consistent", "cached", "delegated"})
# Files below /proc that runc lets a bind mount cover (what lxcfs gives); all else would let a
# container write where the masks are (case 54).
_PROC_ALLOWED: Final = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
    )
)
_TMPFS_FLAGS: Final = frozenset(
    [
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "remount",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "bind",
        "rbind",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "runbindable",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "defaults",
    ]
)
_TMPFS_VALUES: Final = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})


def plan(
    host: HostConfig,
    volumes: Iterable[str],
    new_name: Callable[[], str],
    inherited: Iterable[MountPoint] = (),
) -> tuple[MountPoint, ...]:
    """Every mount of a container, sorted so that a parent comes before what lies in it.

    `volumes` are targets of anonymous volumes (image's and config's), skipped where something else
    is mounted.  `new_name` gives names for anonymous volumes; `inherited` are --volumes-from's.
    Raises INVALID.
    """
    found: dict[str, MountPoint] = {}
    asked = [
        *(parse_bind(spec, new_name) for spec in host.binds),
        *(from_request(one, new_name) for one in host.mounts),
        *(_tmpfs(target, options) for target, options in host.tmpfs.items()),
    ]
    for mount in asked:
        if mount.target in found:
            raise invalid(f"Duplicate mount point: {mount.target}")
        found[mount.target] = mount
    for mount in inherited:
        found.setdefault(mount.target, mount)
    for target in volumes:
        clean = destination(target, target)
        if clean not in found:
            found[clean] = _volume(clean, "", new_name)
    for mount in found.values():
        _refuse_kernel_paths(mount, privileged=host.privileged)
    return tuple(sorted(found.values(), key=lambda one: (one.target.count("/"), one.target)))


def parse_bind(spec: str, new_name: Callable[[], str]) -> MountPoint:
    """One -v: "target", "source:target" or "source:target:options".  Raises INVALID."""
    words = spec.split(":")
    if not spec or len(words) > 3 or "" in words[:2] or "\0" in spec:
        raise invalid(f"invalid volume specification: '{spec}'")
    if len(words) == 1:
        return _volume(destination(words[0], spec), "", new_name)
    source, target, mode = words[0], destination(words[1], spec), ":".join(words[2:])
    if len(words) == 3 and not mode:
        raise invalid(f"invalid volume specification: '{spec}'")
    if source.startswith("/"):
        read_write, propagation, _ = parse_mode(mode, volume=False)
        return MountPoint(
            type="bind",
            target=target,
            source=posixpath.normpath(source).replace("//", "/"),
            mode=mode,
            read_write=read_write,
            propagation=propagation or "rprivate",
        )
    read_write, _, copy = parse_mode(mode, volume=True)
    return MountPoint(
        type="volume",
        target=target,
        name=volume_name(source),
        driver="local",
        mode=mode or "z",  # moby: a named volume shows "z"
        read_write=read_write,
        copy_up=copy,
    )


def parse_mode(mode: str, *, volume: bool) -> tuple[bool, str, bool]:
    """ "ro,z,rslave" -> (read-write, propagation, copy-up).  INVALID "invalid mode: x"."""
    read_write, propagation, copy = True, "", True
    seen: set[str] = set()
    for word in mode.split(",") if mode else ():
        group = _mode_group(word, volume=volume)
        if not group or group in seen:
            raise invalid(f"invalid mode: {mode}")
        seen.add(group)
        if group == "access":
            read_write = word == "rw"
        elif group == "propagation":
            propagation = word
        elif group == "copy":
            copy = False
    return read_write, propagation, copy


def _mode_group(word: str, *, volume: bool) -> str:
    if word in {"rw", "ro"}:
        return "access"
    if word in {"z", "Z"}:
        return "label"
    if word in _CONSISTENCY:
        return "consistency"
    if word == "nocopy" and volume:
        return "copy"
    if word in _PROPAGATIONS and not volume:
        return "propagation"
    return ""


def from_request(request: MountRequest, new_name: Callable[[], str]) -> MountPoint:
    """One entry of HostConfig.Mounts.  Raises INVALID."""
    try:
        return _from_request(request, new_name)
    except EngineError as error:
        raise invalid(f'invalid mount config for type "{request.type}": {error.message}') from error


def _from_request(request: MountRequest, new_name: Callable[[], str]) -> MountPoint:
    if not request.target:
        raise invalid("field Target must not be empty")
    target = destination(request.target, request.target)
    if request.type == "tmpfs":
        if request.source:
            raise invalid("field Source must not be specified")
        return _tmpfs(target, _tmpfs_options(request))
    if request.type == "image":
        return _image_request(request, target)
    if request.type == "volume":
        return _volume_request(request, target, new_name)
    if request.type != "bind":
        raise invalid(f"mount type unknown: {request.type!r}")
    if not request.source:
        raise invalid("field Source must not be empty")
    if not request.source.startswith("/") or "\0" in request.source:
        raise invalid(f"invalid mount path: '{request.source}' mount path must be absolute")
    propagation = request.propagation or "rprivate"
    if propagation not in _PROPAGATIONS:
        raise invalid(f"invalid propagation mode: {propagation}")
    return MountPoint(
        type="bind",
        target=target,
        source=posixpath.normpath(request.source).replace("//", "/"),
        mode="",
        read_write=not request.read_only,
        propagation=propagation,
        recursive=not request.non_recursive,
        read_only_recursive=not request.read_only_non_recursive,
        read_only_forced=request.read_only_force_recursive,
        create_source=request.create_mountpoint,
    )


def _image_request(request: MountRequest, target: str) -> MountPoint:
    if not request.source:
        raise invalid("field Source must not be empty")
    return MountPoint(
        type="image",
        target=target,
        name=request.source,
        read_write=False,
        subpath=request.subpath,
    )


def _volume_request(request: MountRequest, target: str, new_name: Callable[[], str]) -> MountPoint:
    return MountPoint(
        type="volume",
        target=target,
        name=volume_name(request.source) if request.source else new_name(),
        driver=request.driver or "local",
        mode="z",
        read_write=not request.read_only,
        copy_up=not request.no_copy,
        anonymous=not request.source,
        subpath=request.subpath,
    )


def inherit(spec: str, mounts: Iterable[MountPoint]) -> tuple[str, tuple[MountPoint, ...]]:
    """One --volumes-from "CONTAINER[:ro|rw]" -> the mounts taken over from that container's."""
    _, _, mode = spec.partition(":")
    if mode not in {"", "ro", "rw", "z", "Z"}:
        raise invalid(f"invalid mode: {mode}")
    return mode, tuple(
        dataclasses.replace(
            one, read_write=one.read_write and mode != "ro", anonymous=False, copy_up=False
        )
        for one in mounts
        if one.type in {"bind", "volume"}
    )


def _volume(target: str, name: str, new_name: Callable[[], str]) -> MountPoint:
    return MountPoint(
        type="volume",
        target=target,
        name=name or new_name(),
        driver="local",
        copy_up=True,
        anonymous=not name,
    )


def volume_name(name: str) -> str:
    """Raises INVALID with docker's text unless it is a local volume's name."""
    if not VOLUME_NAME.fullmatch(name) or len(name) > 255:
        raise invalid(
            f'"{name:.300}" includes invalid characters for a local volume name, only'
            ' "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory,'
            " use absolute path"
        )
    return name


def destination(target: str, spec: str) -> str:
    """A clean absolute path below "/".  Raises INVALID for "/", relative paths and escapes."""
    if not target.startswith("/") or "\0" in target:
        raise invalid(f"invalid mount path: '{target}' mount path must be absolute")
    depth = 0
    for part in target.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            raise invalid(f"invalid volume specification: '{spec}': destination leaves the root")
    clean = "/" + posixpath.normpath(target).lstrip("/")
    if clean == "/":
        raise invalid(
            f"invalid volume specification: '{spec}': invalid mount config for type \"bind\":"
            " invalid specification: destination can't be '/'"
        )
    return clean


def _refuse_kernel_paths(mount: MountPoint, *, privileged: bool) -> None:
    target = mount.target
    if privileged or target in _PROC_ALLOWED:
        return
    for top in ("/proc", "/sys"):
        if target == top or target.startswith(top + "/"):
            raise invalid(
                f"invalid mount destination: '{target}' cannot be mounted because it is inside"
                f" {top}"
            )


def _tmpfs(target: str, options: str) -> MountPoint:
    for word in options.split(",") if options else ():
        key, equals, _ = word.partition("=")
        known = key in _TMPFS_VALUES if equals else word in _TMPFS_FLAGS
        if not known:
            raise invalid(f'Invalid tmpfs option ["{word}"]')
    return MountPoint(
        type="tmpfs",
        target=destination(target, target),
        mode="",
        read_write="ro" not in options.split(","),
        tmpfs_options=options,
    )


def _tmpfs_options(request: MountRequest) -> str:
    words = ["ro"] if request.read_only else []
    if request.tmpfs_size < 0:
        raise invalid("tmpfs size cannot be negative")
    if request.tmpfs_size:
        words.append(f"size={request.tmpfs_size}")
    if request.tmpfs_mode is not None:
        words.append(f"mode={request.tmpfs_mode:o}")
    words.extend(request.tmpfs_flags)
    return ",".join(words)
