"""Starting a container: everything that must exist, in order, and all of it undone on a failure.

Nothing is written to disk before the process runs: a start that a crash cuts off leaves a process
whose record does not say "running", and recovery removes it.  The one commit is at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging

from agent.engine import healthcheck, imagemounts
from agent.engine.core import Core, stepped, with_state
from agent.engine.failures import failure_code
from agent.engine.joining import Joining, Sandbox
from agent.engine.lifecycle import Happening, live
from agent.engine.model import Container, Phase
from agent.engine.ports import Launch
from agent.engine.removal import Removal
from agent.engine.respawns import Respawns
from agent.errors import EngineError, Kind, conflict, internal

_log = logging.getLogger(__name__)


class Starting:
    """`start` for users, `respawn` for the restart policy."""

    def __init__(self, core: Core, respawns: Respawns, removal: Removal) -> None:
        self._core = core
        self._respawns = respawns
        self._removal = removal
        self._joining = Joining(core)

    def start(self, reference: str) -> bool:
        """False when it already runs.  A failure is recorded in the state, then raised."""
        with self._core.book.locked(reference) as container:
            try:
                state = stepped(container, Happening.START)
            except EngineError as error:
                if error.kind is Kind.NOT_MODIFIED:
                    return False
                raise
            self._respawns.cancel(container.id)
            state = dataclasses.replace(state, restart_count=0, manually_stopped=False)
            self._launch(container, with_state(container, state))
        return True

    def respawn(self, identity: str) -> None:
        """The back-off is over, or the agent has come up.  Failures are logged."""
        with self._core.book.lock(identity):
            container = self._core.book.get(identity)
            if container is None or container.state.phase is not Phase.RESTARTING:
                return
            try:
                state = stepped(container, Happening.RESPAWN)
                self._launch(container, with_state(container, state))
            except EngineError as error:
                _log.warning("container %s was not restarted: %s", identity, error.message)

    def _launch(self, before: Container, after: Container) -> None:
        """With the lock held.  `after` has the phase and counters of success."""
        try:
            with contextlib.ExitStack() as undo:
                sandbox = self._steps(after, undo)
                undo.pop_all()
        except EngineError as error:
            self._failed(before, error.message)
            raise
        except OSError as error:
            told = internal(f"failed to start container {before.id}: {error.strerror or error}")
            self._failed(before, told.message)
            raise told from error
        self._announce(after, sandbox)

    def _steps(self, container: Container, undo: contextlib.ExitStack) -> Sandbox:
        core, identity = self._core, container.id
        ports = core.ports
        core.book.next_run(identity)
        rootfs = ports.snapshots.prepare(identity, container.image_id)
        self._make_sources(container)
        self._check_donors(container)
        core.held_volumes.hold(identity, container.mounts)
        undo.callback(core.held_volumes.drop, identity)
        sandbox = self._joining.join(container)
        undo.callback(self._joining.leave, container, sandbox)
        pid = ports.runtime.create(
            Launch(
                container=_with_env(container, sandbox.env),
                rootfs=rootfs,
                hostname=sandbox.hostname,
                etc_hosts=sandbox.etc.hosts,
                etc_hostname=sandbox.etc.hostname,
                etc_resolv_conf=sandbox.etc.resolv_conf,
                network_namespace=sandbox.namespace,
                mounts=imagemounts.prepared(ports.snapshots, identity, container.mounts),
            )
        )
        undo.callback(ports.runtime.delete, identity)
        self._joining.plug(container, sandbox, pid)
        core.attachments.bind(identity, ports.runtime.attach)
        ports.runtime.start(identity)
        self._respawns.started(identity)
        self._save_running(container, pid, sandbox)
        self._joining.refresh_links(container)
        return sandbox

    def _save_running(self, container: Container, pid: int, sandbox: Sandbox) -> None:
        state = dataclasses.replace(
            container.state,
            pid=pid,
            exit_code=0,
            error="",
            oom_killed=False,
            started_at=self._core.ports.clock.now(),
            endpoints=sandbox.endpoints,
            boot_id=self._core.settings.boot_id,
            health=healthcheck.initial(container.config),
        )
        self._core.save(with_state(container, state))

    def _check_donors(self, container: Container) -> None:
        """PidMode and IpcMode "container:x" need one that runs, and lets others in."""
        host = container.host_config
        for what, mode in (("PID", host.pid_mode), ("IPC", host.ipc_mode)):
            if not mode.startswith("container:"):
                continue
            other = self._core.book.find(mode.removeprefix("container:"))
            if not live(other.state.phase):
                raise conflict(f"cannot join {what} of a non running container: {other.id}")
            if what == "IPC" and other.host_config.ipc_mode != "shareable":
                raise conflict(
                    f"cannot join IPC of container {other.id}: non-shareable IPC"
                    " (hint: use IpcMode:shareable for the donor container)"
                )

    def _make_sources(self, container: Container) -> None:
        """-v sources are made when missing; --mount sources must be there (the runtime says so)."""
        for mount in container.mounts:
            if mount.type == "bind" and mount.create_source:
                self._core.files.make_source(mount.source)

    def _failed(self, before: Container, message: str) -> None:
        """docker: the phase stays "created" if it never ran, Error and ExitCode tell why."""
        core = self._core
        phase = Phase.EXITED if before.state.started_at else Phase.CREATED
        state = dataclasses.replace(
            before.state, phase=phase, pid=0, exit_code=failure_code(message), error=message
        )
        failed = with_state(before, state)
        core.attachments.end(before.id)
        if before.host_config.auto_remove:
            core.book.put(failed)
            self._removal.remove_locked(failed, volumes=True)
            return
        try:
            core.save(failed)
        except EngineError as error:
            core.book.put(failed)
            _log.error("the failed start of %s was not recorded: %s", before.id, error.message)

    def _announce(self, container: Container, sandbox: Sandbox) -> None:
        core = self._core
        for mount in container.mounts:
            if mount.type == "volume":
                attributes = {
                    "container": container.id,
                    "destination": mount.target,
                    "driver": mount.driver,
                    "propagation": mount.propagation,
                    "read/write": "true" if mount.read_write else "false",
                }
                core.bus.publish("volume", "mount", mount.name, attributes)
        for endpoint in sandbox.endpoints:
            attributes = {
                "container": container.id,
                "name": endpoint.network,
                "type": endpoint.driver,
            }
            core.bus.publish("network", "connect", endpoint.network_id, attributes)
        core.event(container, "start")


def _with_env(container: Container, env: tuple[str, ...]) -> Container:
    """The container's own variables win over those of its links."""
    if not env:
        return container
    config = dataclasses.replace(container.config, env=(*env, *container.config.env))
    return dataclasses.replace(container, config=config)
