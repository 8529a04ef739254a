"""Changing and clearing up containers: update, prune."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from agent.engine import limits as checks
from agent.engine import restart
from agent.engine.core import Core
from agent.engine.lifecycle import live
from agent.engine.model import Container, Phase, Resources, RestartPolicy, Volume
from agent.engine.removal import Removal
from agent.engine.volumes_use import VolumesUse
from agent.errors import EngineError, Kind, conflict

_IDLE = frozenset({Phase.CREATED, Phase.EXITED, Phase.DEAD})


class Upkeep:
    """`agent.api.backend.Upkeep`"""

    def __init__(self, core: Core, removal: Removal, volumes: VolumesUse) -> None:
        self._core = core
        self._removal = removal
        self._volumes = volumes

    def update(
        self,
        reference: str,
        limits: Mapping[str, object],
        policy: RestartPolicy | None,
        given: Mapping[str, object],
    ) -> tuple[str, ...]:
        """Limits that are not named stay.  Applied to the processes first, then made durable."""
        core = self._core
        with core.book.locked(reference) as container:
            host = container.host_config
            if container.state.phase is Phase.REMOVING:
                raise conflict(
                    f"cannot update container {container.id}: Container is marked for removal and"
                    ' cannot be "update".'
                )
            resources = _merged(host.resources, limits)
            warnings = checks.validate(
                resources, cpus=core.facts.cpus, realtime=core.ports.inside.real_time
            )
            if policy is not None:
                restart.validate(policy, auto_remove=host.auto_remove)
            if limits and live(container.state.phase):
                core.ports.inside.update(container, resources)
            updated = dataclasses.replace(
                container,
                host_config=dataclasses.replace(
                    host, resources=resources, restart_policy=policy or host.restart_policy
                ),
                given_host_config={**container.given_host_config, **given},
            )
            core.save(updated)
        core.event(updated, "update")
        return warnings

    def prune_containers(self, chosen: Callable[[Container], bool]) -> tuple[list[str], int]:
        removed: list[str] = []
        freed = 0
        for container in self._core.book.all():
            if container.state.phase not in _IDLE or not chosen(container):
                continue
            size = self._writable_size(container)
            if self._removed(container.id):
                removed.append(container.id)
                freed += size
        self._core.bus.publish("container", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    def _removed(self, identity: str) -> bool:
        with self._core.book.lock(identity):
            container = self._core.book.get(identity)
            if container is None or container.state.phase not in _IDLE:
                return False  # started, or removed, meanwhile
            self._removal.remove_locked(container, volumes=False)
        return True

    def _writable_size(self, container: Container) -> int:
        try:
            return self._core.files.usage(self._core.ports.snapshots.rootfs(container.id).upper)
        except (EngineError, OSError):
            return 0

    def prune_volumes(self, chosen: Callable[[Volume], bool]) -> tuple[list[str], int]:
        removed: list[str] = []
        freed = 0
        for volume in self._core.ports.volumes.all():
            # docker: what has options is somebody's storage elsewhere, and is never pruned.
            if volume.options or not chosen(volume) or self._core.claims.users(volume.name):
                continue
            size = self.volume_size(volume)
            try:
                self._volumes.remove(volume.name, force=True)
            except EngineError as error:
                if error.kind is not Kind.CONFLICT:
                    raise
                continue  # claimed meanwhile
            removed.append(volume.name)
            freed += size
        self._core.bus.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    def volume_size(self, volume: Volume) -> int:
        """Bytes on disk; 0 when they can't be counted."""
        try:
            return self._core.files.usage(volume.mountpoint)
        except OSError:
            return 0


def _merged(before: Resources, changes: Mapping[str, object]) -> Resources:
    """moby's UpdateContainer: what is not zero is taken; its conflicts between CPU options."""
    new = {name: value for name, value in changes.items() if value not in (0, "", (), False)}
    if "nano_cpus" in new and (before.cpu_period or before.cpu_quota):
        what = "Period" if before.cpu_period else "Quota"
        raise conflict(
            f"Conflicting options: Nano CPUs cannot be updated as CPU {what} has already been set."
        )
    if before.nano_cpus and ("cpu_period" in new or "cpu_quota" in new):
        what = "Period" if "cpu_period" in new else "Quota"
        raise conflict(
            f"Conflicting options: CPU {what} cannot be updated as NanoCPUs has already been set"
        )
    memory = new.get("memory", 0)
    swap = before.memory_swap or before.memory * 2
    if isinstance(memory, int) and "memory_swap" not in new and 0 < swap < memory:
        raise conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the"
            " memoryswap at the same time"
        )
    values = {one.name: getattr(before, one.name) for one in dataclasses.fields(Resources)}
    if "memory" in new and "memory_swap" not in new and before.memory and not before.memory_swap:
        new["memory_swap"] = swap  # what --memory alone has meant when it was created
    return Resources(**{**values, **new})
