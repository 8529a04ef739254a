"""`agent.engine.ports.Snapshots`: a container's writable layer over its image's layers.

Nothing is mounted here.  On top of every image lies the init layer: real /dev, /proc, /sys, /etc
directories and empty files where the engine binds its own, so an image whose /dev is a symlink
can't send a runtime to the host (security.md cases 20 and 21; moby's initlayer).
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress

from agent.engine.ports import Rootfs
from agent.errors import EngineError, internal, invalid, not_found
from agent.images.disk import Disk
from agent.images.lowers import lower_names, root_metadata
from agent.images.metadata import Layer
from agent.images.shelf import LocalShelf

_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_RECORD = "lower.json"
_RECORD_LIMIT = 1 << 20
_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "proc", "sys", "etc")
_FILES = (
    ("etc/hosts", 0o644),
    ("etc/hostname", 0o644),
    ("etc/resolv.conf", 0o644),
    ("dev/console", 0o755),
    (".dockerenv", 0o755),
)


class SnapshotStore:
    """Writable layers.  The engine holds a container's lock around calls for one id."""

    def __init__(self, disk: Disk, shelf: LocalShelf) -> None:
        self._disk = disk
        self._shelf = shelf
        self._make_init_layer()
        for container_id in self._ids():
            with suppress(EngineError):
                shelf.pin(container_id, self._read(container_id)[1])

    def prepare(self, container_id: str, image_id: str) -> Rootfs:
        """See `ports.Snapshots.prepare`.  NOT_FOUND for an unknown image."""
        folder = self._folder(container_id)
        with self._shelf.lock:
            self._shelf.image(image_id)
            layers = self._shelf.layers_of(image_id)
            names = self._lower_names(layers)
            self._shelf.pin(container_id, names)
        try:
            self._make(folder, image_id, names, layers)
        except OSError as error:
            raise internal(f"can't make the container's layer: {error.strerror}") from error
        return self._rootfs(folder, names)

    def _lower_names(self, layers: list[Layer]) -> tuple[str, ...]:
        try:
            return lower_names(self._disk, layers)
        except OSError as error:
            raise internal(f"can't put the image's layers together: {error.strerror}") from error

    def rootfs(self, container_id: str) -> Rootfs:
        """NOT_FOUND when it was never prepared."""
        return self._rootfs(self._folder(container_id), self._read(container_id)[1])

    def remove(self, container_id: str) -> None:
        """Idempotent; deletes behind."""
        self._disk.discard(self._folder(container_id))
        self._shelf.unpin(container_id)

    def reconcile(self, known: Iterable[str]) -> None:
        """Remove what belongs to no container."""
        keep = frozenset(known)
        for container_id in self._ids():
            if container_id not in keep:
                self.remove(container_id)

    def _ids(self) -> list[str]:
        return [name for name in os.listdir(self._disk.containers) if not name.startswith(".")]

    def _folder(self, container_id: str) -> str:
        if not _ID.fullmatch(container_id):
            raise invalid("invalid container id")
        return os.path.join(self._disk.containers, container_id)

    def _rootfs(self, folder: str, names: tuple[str, ...]) -> Rootfs:
        lower = (self._disk.init, *(self._disk.layer_path(name) for name in names))
        return Rootfs(lower, os.path.join(folder, "upper"), os.path.join(folder, "work"))

    def _make(
        self, folder: str, image_id: str, names: tuple[str, ...], layers: list[Layer]
    ) -> None:
        mode, uid, gid = root_metadata(layers)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        upper = os.path.join(folder, "upper")
        if not os.path.isdir(upper):
            os.mkdir(upper, 0o700)
            os.chown(upper, uid, gid)
            os.chmod(upper, mode)
        with suppress(FileExistsError):
            os.mkdir(os.path.join(folder, "work"), 0o700)
        # Not synced: after a power cut `prepare` writes it anew from the image.
        record = json.dumps({"image": image_id, "lower": names}).encode()
        temporary = os.path.join(folder, f".{_RECORD}")
        with open(temporary, "wb") as file:
            file.write(record)
        os.rename(temporary, os.path.join(folder, _RECORD))

    def _read(self, container_id: str) -> tuple[str, tuple[str, ...]]:
        """(image id, layer names), as `prepare` left them."""
        try:
            with open(os.path.join(self._folder(container_id), _RECORD), "rb") as file:
                found = json.loads(file.read(_RECORD_LIMIT))
            return str(found["image"]), tuple(str(name) for name in found["lower"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise not_found(f"container {container_id} has no writable layer") from error

    def _make_init_layer(self) -> None:
        root = self._disk.init
        for relative in ("", *_DIRECTORIES):
            path = os.path.join(root, relative) if relative else root
            with suppress(FileExistsError):
                os.mkdir(path, 0o755)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise internal(f"{path} is no directory")
            os.chmod(path, 0o755)  # noqa: S103 - a container's /dev, /etc, ...
        for relative, mode in _FILES:
            fd = os.open(
                os.path.join(root, relative),
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                mode,
            )
            os.fchmod(fd, mode)
            os.close(fd)
        with suppress(FileExistsError):
            os.symlink("/proc/mounts", os.path.join(root, "etc/mtab"))
