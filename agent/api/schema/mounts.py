"""HostConfig.Mounts: the Mount definition of the API, with Docker Engine's checks."""

from __future__ import annotations

from typing import Final, cast

from agent.api.schema.fields import (
    Document,
    Field,
    Table,
    array_of,
    boolean,
    built,
    integer,
    refused,
    text,
    text_map,
    texts,
    wrong_type,
)
from agent.engine.model import MountRequest
from agent.errors import EngineError, invalid
from agent.wire.http import printable

BIND: Final = Table(
    "Mount.BindOptions",
    (
        Field("Propagation", text, "propagation"),
        Field("NonRecursive", boolean, "non_recursive"),
        Field("CreateMountpoint", boolean, "create_mountpoint"),
        Field("ReadOnlyNonRecursive", boolean, "read_only_non_recursive"),
        Field("ReadOnlyForceRecursive", boolean, "read_only_force_recursive"),
    ),
)


def _subpath(value: object, where: str) -> str:
    path = text(value, where)
    if path.startswith("/") or ".." in path.split("/"):
        raise _refuse("volume", "subpath must be a relative path within the volume")
    return path


def _tmpfs_flags(value: object, where: str) -> tuple[str, ...]:
    """[["exec"], ["uid", "1000"]] -> ("exec", "uid=1000")."""
    found = []
    for one in array_of(texts)(value, where):
        if not 1 <= len(one) <= 2:
            raise _refuse("tmpfs", "invalid option array length")
        found.append("=".join(one))
    return tuple(found)


DRIVER: Final = Table(
    "Mount.VolumeOptions.DriverConfig",
    (Field("Name", text, "driver"), Field("Options", text_map, "driver_options")),
)
VOLUME: Final = Table(
    "Mount.VolumeOptions",
    (
        Field("NoCopy", boolean, "no_copy"),
        Field("Labels", text_map, "labels"),
        Field("DriverConfig", DRIVER.decode, "driver_config"),
        Field("Subpath", _subpath, "subpath"),
    ),
)
IMAGE: Final = Table("Mount.ImageOptions", (Field("Subpath", _subpath, "subpath"),))
TMPFS: Final = Table(
    "Mount.TmpfsOptions",
    (
        Field("SizeBytes", integer, "tmpfs_size"),
        Field("Mode", integer, "tmpfs_mode"),
        Field("Options", _tmpfs_flags, "tmpfs_flags"),
    ),
)


MOUNT: Final = Table(
    "Mount",
    (
        Field("Target", text, "target"),
        Field("Source", text, "source"),
        Field("Type", text, "type"),
        Field("ReadOnly", boolean, "read_only"),
        Field("Consistency", text),  # a hint for Docker Desktop; no meaning on Linux
        Field("BindOptions", BIND.decode, "bind"),
        Field("VolumeOptions", VOLUME.decode, "volume"),
        Field("ImageOptions", IMAGE.decode, "image"),
        Field("TmpfsOptions", TMPFS.decode, "tmpfs"),
    ),
)

_PROPAGATIONS: Final = frozenset(
    {"", "private", "rprivate", "shared", "rshared", "slave", "rslave"}
)


def _refuse(kind: str, problem: str) -> EngineError:
    return invalid(f'invalid mount config for type "{printable(kind)}": {problem}')


def _mount(value: object, where: str) -> MountRequest:
    decoded = MOUNT.decode(value, where)
    kind = str(decoded.get("type", ""))
    if kind not in {"bind", "volume", "tmpfs", "image"}:
        if kind in {"npipe", "cluster"}:
            raise refused(f'mount type "{kind}"')
        raise invalid(f'mount type unknown: "{printable(kind)}"')
    _check(decoded, kind)
    parts: Document = {}
    for options in ("bind", "volume", "tmpfs", "image"):
        parts.update(cast("Document", decoded.pop(options, {})))
    parts.update(cast("Document", parts.pop("driver_config", {})))
    return built(MountRequest, {**decoded, **parts})


def _check(decoded: Document, kind: str) -> None:
    target, source = str(decoded.get("target", "")), str(decoded.get("source", ""))
    if not target:
        raise _refuse(kind, "field Target must not be empty")
    if not target.startswith("/"):
        raise _refuse(
            kind, f"invalid mount path: '{printable(target)}' mount path must be absolute"
        )
    if target.rstrip("/") == "" or target == "/.":
        raise _refuse(kind, "invalid specification: destination can't be '/'")
    for options in ("bind", "volume", "tmpfs", "image"):
        if options != kind and decoded.get(options):
            raise _refuse(kind, f"field {options.capitalize()}Options must not be specified")
    if kind == "bind":
        _check_bind(decoded, source)
    elif kind == "image" and not source:
        raise _refuse(kind, "field Source must not be empty")
    elif kind == "tmpfs" and source:
        raise _refuse(kind, "field Source must not be specified")


def _check_bind(decoded: Document, source: str) -> None:
    if not source:
        raise _refuse("bind", "field Source must not be empty")
    if not source.startswith("/"):
        raise _refuse(
            "bind", f"invalid mount path: '{printable(source)}' mount path must be absolute"
        )
    options = cast("Document", decoded.get("bind", {}))
    forced = bool(options.get("read_only_force_recursive"))
    if forced and options.get("propagation", "") != "rprivate":
        raise _refuse(
            "bind", "to use BindOptions.ReadOnlyForceRecursive, Propagation must be rprivate"
        )
    for name in ("read_only_force_recursive", "read_only_non_recursive"):
        if options.get(name) and not decoded.get("read_only"):
            raise _refuse(
                "bind", "mount is not read-only: recursive read-only options need ReadOnly"
            )
    if options.get("propagation", "") not in _PROPAGATIONS:
        raise _refuse("bind", f"invalid propagation mode: {options['propagation']}")


_array = array_of(_mount)


def mounts(value: object, where: str) -> tuple[MountRequest, ...]:
    """HostConfig.Mounts.  Raises EngineError: INVALID."""
    if not isinstance(value, list):
        raise wrong_type(value, where, "[]mount.Mount")
    return _array(value, where)
