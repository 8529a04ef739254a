"""What an agent does when it comes up: records against the kernel (DESIGN.md decision 3).

`decide` is pure: from one record and what was found of it, what is to be done.  The rest does it:
what ran and still runs is adopted untouched, what ended meanwhile gets its true exit code and
time, what was never acknowledged is removed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from enum import Enum

from agent.engine import imagemounts
from agent.engine.core import Core, with_state
from agent.engine.exits import Exits
from agent.engine.joining import Joining, named
from agent.engine.lifecycle import live
from agent.engine.model import Container, Endpoint, Phase
from agent.engine.ports import Exit, Survivor
from agent.engine.removal import Removal, names_in
from agent.engine.restart import FIRST, at_agent_start, enabled
from agent.errors import EngineError

_log = logging.getLogger(__name__)
UNKNOWN_EXIT = 255  # as Docker Engine after a hard restart


class Verdict(Enum):
    """What is to be done with one container."""

    ADOPT = "it runs on"
    ENDED = "it ended while no agent looked"
    LOST = "its process is gone without a trace (reboot)"
    UNACKNOWLEDGED = "a start that was cut off: remove the process"
    DOWN = "it was down and is"


def decide(container: Container, survivor: Survivor | None, *, same_boot: bool) -> Verdict:
    """One row of the recovery matrix (cases 122, 123)."""
    if not live(container.state.phase):
        return Verdict.DOWN if survivor is None else Verdict.UNACKNOWLEDGED
    if survivor is None:
        return Verdict.LOST
    if survivor.exit is not None:
        return Verdict.ENDED
    # Under another boot id a recorded pid is somebody else's: nothing of it is ours.
    return Verdict.ADOPT if survivor.pid and same_boot else Verdict.LOST


class Recovery:
    """Runs once, before the API is served."""

    def __init__(self, core: Core, exits: Exits, removal: Removal) -> None:
        self._core = core
        self._exits = exits
        self._removal = removal

    def run(self) -> None:
        """Raises EngineError when the state can't be read or the network can't be set up."""
        core = self._core
        for text in core.facts.warnings:
            _log.warning("%s", text.removeprefix("WARNING: "))
        self._load()
        self._finish_intents()
        survivors = {one.container_id: one for one in core.ports.runtime.survivors()}
        verdicts = [(one, self._judge(one, survivors.get(one.id))) for one in core.book.all()]
        self._adopt(verdicts, survivors)
        self._remove_strangers(survivors)
        core.held_volumes.adopt(one for one, verdict in verdicts if verdict is Verdict.ADOPT)
        core.ports.network.setup(_endpoints(verdicts))
        self._serve_names(verdicts, survivors)
        for container, verdict in verdicts:
            self._settle(container, verdict, survivors.get(container.id))
        self._reconcile()
        core.ports.runtime.watch(self._exits.on_exit)
        self._apply_policies(verdicts)

    def _load(self) -> None:
        core = self._core
        for container in core.ports.records.all():
            core.book.reserve(container.name, container.id)
            core.book.put(container)
            volumes = (one.name for one in container.mounts if one.type == "volume")
            core.claims.claim(container.id, volumes)

    def _finish_intents(self) -> None:
        """ "remove" is done to the end; "create" without a record is undone."""
        core = self._core
        for row, identity, intent, detail in core.ports.records.pending():
            if intent == "remove":
                self._removal.redo(row, identity, detail)
            elif intent == "create" and core.book.get(identity) is None:
                # The same steps: whatever it has, and its volumes, goes.
                self._removal.redo(row, identity, {"volumes": ",".join(names_in(detail))})
            else:
                core.ports.records.end(row)

    def _judge(self, container: Container, survivor: Survivor | None) -> Verdict:
        same = container.state.boot_id == self._core.settings.boot_id
        return decide(container, survivor, same_boot=same)

    def _adopt(
        self, verdicts: Iterable[tuple[Container, Verdict]], survivors: dict[str, Survivor]
    ) -> None:
        for container, verdict in verdicts:
            pid = survivors[container.id].pid if verdict is Verdict.ADOPT else 0
            if pid and pid != container.state.pid:
                state = dataclasses.replace(container.state, pid=pid)
                self._core.book.put(with_state(container, state))

    def _serve_names(
        self, verdicts: Iterable[tuple[Container, Verdict]], survivors: dict[str, Survivor]
    ) -> None:
        """The name servers died with the last agent."""
        joining = Joining(self._core)
        for container, verdict in verdicts:
            if verdict is Verdict.ADOPT and named(container.state.endpoints):
                try:
                    joining.serve_names(container, survivors[container.id].pid)
                except EngineError as error:
                    _log.error("container %s has no name server: %s", container.id, error.message)

    def _remove_strangers(self, survivors: Iterable[str]) -> None:
        """Processes of containers that no record knows."""
        runtime = self._core.ports.runtime
        for identity in survivors:
            if self._core.book.get(identity) is None:
                _log.warning("container %s has no record: removing what is left of it", identity)
                self._delete(identity)
                runtime.remove_logs(identity)

    def _settle(self, container: Container, verdict: Verdict, survivor: Survivor | None) -> None:
        """One container that can't be settled (a full disk) must not keep the agent down (C38)."""
        try:
            self._settle_one(container, verdict, survivor)
        except EngineError as error:
            _log.error("container %s was not settled: %s", container.id, error.message)

    def _settle_one(
        self, container: Container, verdict: Verdict, survivor: Survivor | None
    ) -> None:
        if verdict is Verdict.UNACKNOWLEDGED:
            self._delete(container.id)
        elif verdict in {Verdict.ENDED, Verdict.LOST}:
            found = survivor.exit if survivor is not None else None
            if found is None or verdict is Verdict.LOST:
                found = Exit(container.id, UNKNOWN_EXIT, self._core.ports.clock.now())
            with self._core.book.lock(container.id):
                self._exits.finish(container, found)
        elif container.host_config.auto_remove and container.state.phase is Phase.EXITED:
            with self._core.book.lock(container.id):
                self._removal.remove_locked(container, volumes=True)

    def _reconcile(self) -> None:
        containers = self._core.book.all()
        known = [one.id for one in containers]
        pinned = [name for one in containers for name in imagemounts.snapshots(one.id, one.mounts)]
        self._core.ports.snapshots.reconcile([*known, *pinned])
        self._core.files.reconcile(known)

    def _apply_policies(self, verdicts: Iterable[tuple[Container, Verdict]]) -> None:
        """`finish` has scheduled those that ended just now; here are the others."""
        for before, verdict in verdicts:
            container = self._core.book.get(before.id)
            down = verdict in {Verdict.DOWN, Verdict.UNACKNOWLEDGED}
            if not down or container is None:
                continue
            if not enabled(container.host_config.restart_policy):
                continue
            rebooted = container.state.boot_id != self._core.settings.boot_id
            if at_agent_start(container, rebooted=rebooted):
                state = dataclasses.replace(container.state, phase=Phase.RESTARTING)
                self._core.book.put(with_state(container, state))
                self._exits.respawn_after(container.id, FIRST)

    def _delete(self, identity: str) -> None:
        try:
            self._core.ports.runtime.delete(identity)
        except EngineError as error:
            _log.error("container %s was not cleaned up: %s", identity, error.message)


def _endpoints(verdicts: Iterable[tuple[Container, Verdict]]) -> list[tuple[str, Endpoint]]:
    """Of those that run on."""
    return [
        (container.id, endpoint)
        for container, verdict in verdicts
        if verdict is Verdict.ADOPT
        for endpoint in container.state.endpoints
    ]
