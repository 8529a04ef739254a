"""Volumes as the API sees them: the driver, who uses a volume, and events."""

from __future__ import annotations

from collections.abc import Mapping

from agent.engine.core import Core
from agent.engine.model import Volume
from agent.engine.mountspec import volume_name
from agent.errors import EngineError, Kind, not_found


class VolumesUse:
    """`agent.api.backend.VolumesBackend`"""

    def __init__(self, core: Core) -> None:
        self._core = core

    def create(
        self, name: str, driver: str, labels: Mapping[str, str], options: Mapping[str, str]
    ) -> Volume:
        """Idempotent for an existing name.  NOT_FOUND for a driver that is not there."""
        if driver not in {"", "local"}:
            raise not_found(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if name:
            volume_name(name)
            try:
                return self._core.ports.volumes.get(name)
            except EngineError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
        made = self._core.ports.volumes.create(
            name, driver="local", labels=labels, options=options, anonymous=not name
        )
        self._core.bus.publish("volume", "create", made.name, {"driver": made.driver})
        return made

    def get(self, name: str) -> Volume:
        return self._core.ports.volumes.get(name)

    def all(self) -> list[Volume]:
        return self._core.ports.volumes.all()

    def remove(self, name: str, *, force: bool) -> None:
        """CONFLICT "remove NAME: volume is in use - [ID]"; `force` only forgives a missing one."""
        core = self._core
        try:
            volume = core.ports.volumes.get(name)
        except EngineError as error:
            if force and error.kind is Kind.NOT_FOUND:
                return
            raise
        core.claims.leave(name)
        try:
            core.ports.volumes.remove(name)
        finally:
            core.claims.left(name)
        core.bus.publish("volume", "destroy", name, {"driver": volume.driver})
