"""The local volume driver: `agent.engine.ports.Volumes` on directories below $ROOT/volumes.

    volumes/<name>/_data         the content; the only part that a container ever sees
    volumes/<name>/volume.json   labels, options, time of creation

A volume with options (`type`, `o`, `device`) is mounted on its _data for as long as someone uses it,
in the host's mount namespace, as docker's: the kernel knows whether it is, whoever asks.

A volume appears by one rename of a finished directory and goes by one rename, so a power cut or a
killed agent leaves it whole or not at all; what is under `.making-` and `.removing-` is swept when
the driver is opened.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping

from agent.engine.model import Volume
from agent.errors import EngineError, Kind, internal, invalid, not_found
from agent.host import mounts
from agent.host.tree import make_private, remove_tree, sync_directory, write_atomic
from agent.volumes import mounting

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LONGEST = 255  # NAME_MAX: the name is a directory's
_DRIVER = "local"
_DATA, _RECORD = "_data", "volume.json"
_MAKING, _REMOVING = ".making-", ".removing-"


def checked_name(name: str) -> str:
    """The name, when it is one of a local volume.  Raises INVALID with moby's texts."""
    if len(name) == 1:
        raise invalid(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name):
        raise invalid(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )
    if len(name) > _LONGEST:
        raise invalid(f"create {name[:32]}...: volume name is longer than {_LONGEST} characters")
    return name


def check_options(driver: str, options: Mapping[str, str]) -> None:
    """Raises NOT_FOUND for another driver, INVALID for options."""
    if driver not in ("", _DRIVER):
        raise not_found(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
    mounting.check(options)


class LocalVolumes:
    """The volumes below one directory.  Threads may share it; removals end behind."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._removals: list[threading.Thread] = []
        self._lock = threading.Lock()  # the list of removals

    def create(
        self,
        name: str,
        *,
        driver: str = _DRIVER,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> Volume:
        """See ports.Volumes.  An existing volume is returned as it is, whatever labels say."""
        check_options(driver, options or {})
        chosen = checked_name(name) if name else secrets.token_hex(32)
        with contextlib.suppress(EngineError):
            return self.get(chosen)
        volume = Volume(
            name=chosen,
            mountpoint=self._path(chosen, _DATA),
            created=time.time_ns(),
            labels=dict(labels or {}),
            options=dict(options or {}),
            anonymous=anonymous or not name,
        )
        try:
            self._make(volume)
        except FileExistsError:  # somebody was quicker
            return self.get(chosen)
        except OSError as error:
            kind = Kind.NO_SPACE if error.errno == errno.ENOSPC else Kind.INTERNAL
            raise EngineError(kind, f"create {chosen}: {error.strerror}") from error
        return volume

    def get(self, name: str) -> Volume:
        """See ports.Volumes.  A volume whose record is damaged is still there, without labels."""
        known = _NAME.fullmatch(name) is not None and len(name) <= _LONGEST
        data = self._path(name, _DATA)
        if not known or not os.path.isdir(data) or os.path.islink(data):
            raise not_found(f"get {name}: no such volume")
        try:
            with open(self._path(name, _RECORD), encoding="utf-8") as file:
                return _decode(name, data, json.load(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error("the record of volume %s is damaged: %s", name, error)
            return Volume(name=name, mountpoint=data, created=os.stat(data).st_mtime_ns)

    def all(self) -> list[Volume]:
        """By name."""
        volumes: list[Volume] = []
        for name in sorted(os.listdir(self._folder)):
            with contextlib.suppress(EngineError):
                volumes.append(self.get(name))
        return volumes

    def remove(self, name: str) -> None:
        """See ports.Volumes.  Gone on return; its content is deleted behind."""
        if _NAME.fullmatch(name) is None or len(name) > _LONGEST:
            return
        doomed = f"{_REMOVING}{secrets.token_hex(8)}"
        self.release(name)  # what is mounted there is never the volume's own
        try:
            os.rename(self._path(name), self._path(doomed))
        except FileNotFoundError:
            return
        except OSError as error:
            raise internal(f"remove {name}: {error.strerror}") from error
        sync_directory(self._folder)
        self._delete_behind(doomed)

    def mount(self, name: str) -> None:
        """See ports.Volumes."""
        volume = self.get(name)
        if not volume.options:
            return
        try:
            if not mounts.is_mount_point(volume.mountpoint):
                mounting.mount(volume.options, volume.mountpoint)
        except (OSError, EngineError) as error:
            raise internal(f"error while mounting volume '{volume.mountpoint}': {error}") from error

    def release(self, name: str) -> None:
        """See ports.Volumes."""
        with contextlib.suppress(EngineError):
            if not self.get(name).options:
                return  # what an operator has mounted there is the operator's
        self._unmount(name, name)

    def _unmount(self, name: str, folder: str) -> None:
        try:
            mounts.unmount_all(self._path(folder, _DATA))
        except FileNotFoundError:
            return
        except OSError as error:
            raise internal(f"unmounting volume {name}: {error.strerror}") from error

    def sweep(self) -> None:
        """Delete behind what a dead agent had not finished making or removing."""
        for name in os.listdir(self._folder):
            if name.startswith((_MAKING, _REMOVING)):
                self._delete_behind(name)

    def close(self) -> None:
        """Wait for the removals under way."""
        with self._lock:
            waiting, self._removals = self._removals, []
        for thread in waiting:
            thread.join()

    def _path(self, *names: str) -> str:
        return os.path.join(self._folder, *names)

    def _make(self, volume: Volume) -> None:
        aside = f"{_MAKING}{secrets.token_hex(8)}"
        document = {
            "version": 1,
            "created": volume.created,
            "labels": dict(volume.labels),
            "options": dict(volume.options),
            "anonymous": volume.anonymous,
        }
        try:
            os.mkdir(self._path(aside))
            os.mkdir(self._path(aside, _DATA))
            # Said outright: modes must not depend on the agent's umask.
            os.chmod(self._path(aside, _DATA), 0o755)  # noqa: S103 - moby's; copy-up replaces it
            os.chmod(self._path(aside), 0o701)
            write_atomic(self._path(aside), _RECORD, json.dumps(document, sort_keys=True).encode())
            try:
                os.rename(self._path(aside), self._path(volume.name))
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise FileExistsError(error.errno, volume.name) from error
                raise
            sync_directory(self._folder)
        except OSError:
            if os.path.isdir(self._path(aside)):
                self._delete_behind(aside)
            raise

    def _delete_behind(self, name: str) -> None:
        thread = threading.Thread(target=self._delete, args=(name,), name="volume-rm", daemon=True)
        with self._lock:
            self._removals = [one for one in self._removals if one.is_alive()]
            self._removals.append(thread)
            thread.start()

    def _delete(self, name: str) -> None:
        try:
            self._unmount(name, name)
        except EngineError as error:
            _log.error("cannot delete %s: %s", self._path(name), error.message)
            return
        try:
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                remove_tree(fd, name)
            finally:
                os.close(fd)
        except OSError as error:  # a mount in it, an immutable file: the next start tries again
            _log.error("cannot delete %s: %s", self._path(name), error)


def open_volumes(root: str) -> LocalVolumes:
    """The local volumes below the agent's $ROOT.  Raises OSError."""
    folder = os.path.join(root, "volumes")
    make_private(folder, 0o701)
    volumes = LocalVolumes(folder)
    volumes.sweep()
    return volumes


def _decode(name: str, mountpoint: str, document: object) -> Volume:
    if not isinstance(document, dict) or document.get("version") != 1:
        raise ValueError("unknown version")
    return Volume(
        name=name,
        mountpoint=mountpoint,
        created=int(document["created"]),
        labels={str(key): str(value) for key, value in document["labels"].items()},
        options={str(key): str(value) for key, value in document.get("options", {}).items()},
        anonymous=bool(document["anonymous"]),
    )
