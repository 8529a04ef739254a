"""The engine: all use cases over one set of ports (`agent.api.backend.Backend`)."""

from __future__ import annotations

from collections.abc import Callable

from agent.api import backend
from agent.engine.building import Builder, Runs
from agent.engine.buildruns import BuildRuns
from agent.engine.builds_use import BuildsUse
from agent.engine.containers import ContainersUse
from agent.engine.core import Core, Ports, Settings
from agent.engine.execs import Execs
from agent.engine.exits import Exits
from agent.engine.files import ContainerFiles
from agent.engine.healthwatch import HealthWatch
from agent.engine.images_use import ImagesUse
from agent.engine.model import Event
from agent.engine.networks_use import NetworksUse
from agent.engine.ports import NetworkInfo
from agent.engine.powerdown import PowerDown
from agent.engine.recovery import Recovery
from agent.engine.removal import Removal
from agent.engine.respawns import Respawns
from agent.engine.starting import Starting
from agent.engine.stopping import Stopping
from agent.engine.transfers_use import TransfersUse
from agent.engine.upkeep import Upkeep
from agent.engine.usage import Usage
from agent.engine.volumes_use import VolumesUse

# Seconds from the start until the builder is opened if nobody has asked for it.
_BUILDER_DELAY = 2.0

__all__ = ["Engine", "Ports", "Settings"]


class Engine:
    """Made once by the composition root; `start` before the first request, `close` at the end.

    `close` leaves containers running: they belong to conmon, and the next agent adopts them.
    """

    def __init__(
        self,
        ports: Ports,
        facts: backend.HostFacts,
        settings: Settings,
        builder: Callable[[Runs], Builder] | None = None,
    ) -> None:
        """`builder` makes the builder, given what runs its containers; without one there are no
        builds."""
        core = Core(ports, facts, settings)
        respawns = Respawns(core)
        self._core = core
        self.facts = core.facts
        execs = Execs(core)
        stopping = Stopping(core, respawns)
        removal = Removal(core, respawns, execs, stopping)
        starting = Starting(core, respawns, removal)
        exits = Exits(core, respawns, starting, removal)
        self.execs: backend.Execs = execs
        self.containers: backend.Containers = ContainersUse(
            core, starting, stopping, removal, exits
        )
        images = ImagesUse(core)
        self.images: backend.ImagesBackend = images
        self.transfers: backend.TransfersBackend = TransfersUse(core, images)
        self.networking: backend.Networking = NetworksUse(core)
        volumes = VolumesUse(core)
        self.volumes: backend.VolumesBackend = volumes
        self.files: backend.ContainerFiles = ContainerFiles(core)
        self.usage: backend.Usage = Usage(core)
        self.upkeep: backend.Upkeep = Upkeep(core, removal, volumes)
        runs = BuildRuns(core)
        self._builds = BuildsUse(core, (lambda: builder(runs)) if builder else None)
        self.builds: backend.Builds = self._builds
        self._health = HealthWatch(core)
        self._removal = removal
        self._recovery = Recovery(core, exits, removal)
        self._power_down = PowerDown(core, respawns)

    def start(self) -> None:
        """Recovers, then watches.  Raises EngineError when the host can't be made ready."""
        self._recovery.run()
        self._health.start()
        self._sweep_later()
        core = self._core
        core.timers.after(_BUILDER_DELAY, lambda: core.jobs.submit(self._builds.open))

    def close(self) -> None:
        """Ends threads and subscriptions; the ports are closed by whom made them."""
        self._health.close()
        self._core.timers.close()
        self._core.jobs.close()
        self._core.bus.close()
        self._builds.close()

    def power_down(self, longest: float) -> None:
        """The host goes down: ends all containers within `longest` s; before `close`."""
        self._power_down.run(longest)

    def networks(self) -> list[NetworkInfo]:
        return self._core.ports.network.networks()

    def subscribe(
        self, since: int | None, until: int | None, matches: Callable[[Event], bool]
    ) -> backend.Subscription:
        return self._core.bus.subscribe(since, until, matches)

    def _sweep_later(self) -> None:
        self._core.timers.after(
            self._core.settings.sweep_interval, lambda: self._core.jobs.submit(self._sweep)
        )

    def _sweep(self) -> None:
        self._removal.sweep()
        self._sweep_later()
