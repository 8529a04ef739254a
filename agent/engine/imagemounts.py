"""Mounts of type image: an image's layers, read-only, in a container of another one.

The image is pinned as a container's own is: by a snapshot, named after the container and the target.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

from agent.engine.model import MountPoint
from agent.engine.ports import Snapshots


def snapshot(identity: str, mount: MountPoint) -> str:
    """The name of the snapshot that pins it."""
    return f"{identity}-{hashlib.sha256(mount.target.encode()).hexdigest()[:16]}"


def snapshots(identity: str, mounts: Iterable[MountPoint]) -> list[str]:
    """Of all the image mounts of a container."""
    return [snapshot(identity, one) for one in mounts if one.type == "image"]


def prepared(
    store: Snapshots, identity: str, mounts: tuple[MountPoint, ...]
) -> tuple[MountPoint, ...]:
    """The mounts, with the images' layers known.  Raises NOT_FOUND."""
    return tuple(one if one.type != "image" else _prepared(store, identity, one) for one in mounts)


def _prepared(store: Snapshots, identity: str, mount: MountPoint) -> MountPoint:
    rootfs = store.prepare(snapshot(identity, mount), mount.image_id)
    # The first is the engine's own (/dev, /etc/hosts, ...): not of the image.
    return dataclasses.replace(mount, layers=rootfs.lower[1:])
