"""POST /containers/create: checks, merges, then makes what must exist before a start.

Durability: the record is the last thing written, in one commit.  Before it there may be named
volumes (which stay after a failure, as docker's do), a writable layer (an orphan is found by its
id) and anonymous volumes, whose names an intent keeps; `end` rides in the record's own commit.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from agent.api.backend import Created, CreateRequest
from agent.engine import (
    capnames,
    hostsfile,
    imagemounts,
    limits,
    linking,
    merging,
    mountspec,
    names,
    networks_use,
    publishing,
    restart,
    signals,
)
from agent.engine.core import Core
from agent.engine.model import (
    ANY_RUNTIME,
    Container,
    ContainerConfig,
    HostConfig,
    Image,
    MountPoint,
    MountRequest,
    Volume,
)
from agent.errors import EngineError, Kind, invalid, not_found

_ATTEMPTS = 8
_NO_WEIGHT = (
    "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
)


class Creation:
    """Makes containers."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def create(self, request: CreateRequest) -> Created:
        """Raises INVALID, NOT_FOUND (image, network), CONFLICT (name)."""
        if request.name:
            names.valid(request.name)
        warnings = self._check(request.config, request.host_config)
        request, more = self._without_weights(request)
        image = self._core.ports.images.get(request.config.image)
        _check_platform(image, request)
        container = self._container(request, image)
        with contextlib.ExitStack() as undo:
            container = self._named(container, request.name)
            undo.callback(self._core.book.free, container.name, container.id)
            container, row = self._make(container, undo)
            if row:
                self._core.ports.records.end(row)
            self._core.save(container)
            undo.pop_all()
        self._core.event(container, "create")
        return Created(container.id, warnings + more)

    def _without_weights(self, request: CreateRequest) -> tuple[CreateRequest, tuple[str, ...]]:
        """Block I/O weights are dropped, with docker's warning, where the kernel has none."""
        host = request.host_config
        wanted = host.resources
        asked = wanted.blkio_weight or wanted.blkio_weight_device
        if not asked or self._core.ports.inside.block_weight:
            return request, ()
        kept = dataclasses.replace(wanted, blkio_weight=0, blkio_weight_device=())
        host = dataclasses.replace(host, resources=kept)
        return dataclasses.replace(request, host_config=host), (_NO_WEIGHT,)

    def _check(self, config: ContainerConfig, host: HostConfig) -> tuple[str, ...]:
        restart.validate(host.restart_policy, auto_remove=host.auto_remove)
        hostsfile.validate(config, host)
        if config.stop_signal:
            signals.number(config.stop_signal)
        merging.validate(config)
        capnames.validate(host.cap_add, host.cap_drop)
        self._check_runtime(host.runtime)
        for one in host.mounts:
            if one.type == "bind" and one.source.startswith("/") and not one.create_mountpoint:
                self._core.files.require_source(one.source)
        return (
            *publishing.validate(config, host),
            *limits.validate(
                host.resources,
                cpus=self._core.facts.cpus,
                realtime=self._core.ports.inside.real_time,
            ),
        )

    def _check_runtime(self, name: str) -> None:
        facts = self._core.facts
        if name not in {"", facts.runtime, ANY_RUNTIME, *facts.runtimes}:
            raise invalid(f"unknown or invalid runtime name: {name:.100}")

    def _container(self, request: CreateRequest, image: Image) -> Container:
        host = self._resolved(request.host_config)
        config = merging.merge(request.config, image.config)
        path, args = merging.command(config)
        merging.validate(config)
        identity = names.random_id()
        container = Container(
            id=identity,
            name="",
            created=self._core.ports.clock.now(),
            config=dataclasses.replace(config, hostname=self._hostname(config, host, identity)),
            host_config=linking.validate(host, self._core.book),
            image_id=image.id,
            image_ref=request.config.image,
            path=path,
            args=args,
            mounts=mountspec.plan(host, config.volumes, names.random_id, self._inherited(host)),
            given_config=request.given_config,
            given_host_config={
                **request.given_host_config,
                "Runtime": request.host_config.runtime or self._core.facts.runtime,
            },
            networks=request.networks,
        )
        return networks_use.settled(container, self._core.ports.network.networks())

    def _inherited(self, host: HostConfig) -> tuple[MountPoint, ...]:
        """--volumes-from.  INVALID for an unknown container."""
        found: list[MountPoint] = []
        for spec in host.volumes_from:
            other = self._known(spec.partition(":")[0])
            found += mountspec.inherit(spec, other.mounts)[1]
        return tuple(found)

    def _known(self, reference: str) -> Container:
        """INVALID: with NOT_FOUND the docker CLI would pull the image and try again."""
        try:
            return self._core.book.find(reference)
        except EngineError as error:
            raise invalid(error.message) from error

    def _resolved(self, host: HostConfig) -> HostConfig:
        """PidMode and IpcMode with the id of the container that they name."""

        def resolved(mode: str) -> str:
            if not mode.startswith("container:"):
                return mode
            return f"container:{self._known(mode.removeprefix('container:')).id}"

        return dataclasses.replace(
            host, pid_mode=resolved(host.pid_mode), ipc_mode=resolved(host.ipc_mode)
        )

    def _hostname(self, config: ContainerConfig, host: HostConfig, identity: str) -> str:
        if config.hostname:
            return config.hostname
        kind = publishing.mode(host.network_mode)
        if kind == "host":
            return self._core.facts.name
        return "" if kind == "container" else identity[:12]

    def _named(self, container: Container, wanted: str) -> Container:
        """The container with its name reserved: the given one, or a random one that is free."""
        if wanted:
            name = wanted.removeprefix("/")
            self._core.book.reserve(name, container.id)
            return dataclasses.replace(container, name=name)
        for attempt in range(_ATTEMPTS):
            name = names.random_name(attempt)
            with contextlib.suppress(EngineError):
                self._core.book.reserve(name, container.id)
                return dataclasses.replace(container, name=name)
        self._core.book.reserve(container.id, container.id)
        return dataclasses.replace(container, name=container.id)

    def _make(self, container: Container, undo: contextlib.ExitStack) -> tuple[Container, int]:
        core, identity = self._core, container.id
        volumes = [one for one in container.mounts if one.type == "volume"]
        core.claims.claim(identity, (one.name for one in volumes))
        undo.callback(core.claims.drop, identity)
        row = self._intend(identity, volumes, undo)
        mounts = tuple(self._mounted(container, one, undo) for one in container.mounts)
        for name in imagemounts.snapshots(identity, mounts):
            undo.callback(core.ports.snapshots.remove, name)
        imagemounts.prepared(core.ports.snapshots, identity, mounts)
        undo.callback(core.ports.snapshots.remove, identity)
        core.ports.snapshots.prepare(identity, container.image_id)
        return dataclasses.replace(container, mounts=mounts), row

    def _intend(
        self, identity: str, volumes: Sequence[MountPoint], undo: contextlib.ExitStack
    ) -> int:
        anonymous = [one.name for one in volumes if one.anonymous]
        if not anonymous:
            return 0
        row = self._core.ports.records.begin(identity, "create", {"volumes": ",".join(anonymous)})
        undo.callback(self._core.ports.records.end, row)
        return row

    def _mounted(
        self, container: Container, mount: MountPoint, undo: contextlib.ExitStack
    ) -> MountPoint:
        """A volume's mount with its host path, made when it is new; an image's with its id."""
        if mount.type == "image":
            return dataclasses.replace(mount, image_id=self._core.ports.images.get(mount.name).id)
        if mount.type != "volume":
            return mount
        volume = self._volume(container, mount)
        if mount.anonymous:
            undo.callback(self._core.ports.volumes.remove, mount.name)
        return dataclasses.replace(mount, source=volume.mountpoint, driver=volume.driver)

    def _volume(self, container: Container, mount: MountPoint) -> Volume:
        volumes = self._core.ports.volumes
        if not mount.anonymous:
            try:
                return volumes.get(mount.name)
            except EngineError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
        asked = next(
            (one for one in container.host_config.mounts if _is_for(one, mount.target)), None
        )
        made = volumes.create(
            mount.name,
            driver=mount.driver or "local",
            labels=asked.labels if asked else {},
            options=asked.driver_options if asked else {},
            anonymous=mount.anonymous,
        )
        self._core.bus.publish("volume", "create", made.name, {"driver": made.driver})
        return made


def _is_for(request: MountRequest, target: str) -> bool:
    return request.type == "volume" and mountspec.destination(request.target, "") == target


def _check_platform(image: Image, request: CreateRequest) -> None:
    if not request.platform:
        return
    asked = request.platform.lower().split("/")
    has = [image.os, image.architecture, image.variant]
    for wanted, actual in zip(asked, has, strict=False):
        if wanted and actual and wanted != actual:
            raise not_found(
                f"image with reference {request.config.image} was found but does not match the"
                f" specified platform: wanted {request.platform}, actual:"
                f" {image.os}/{image.architecture}"
            )
