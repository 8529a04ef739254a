"""The containers' use cases behind one face (`agent.api.backend.Containers`)."""

from __future__ import annotations

import contextlib
import dataclasses

from agent.api.backend import AttachRequest, Created, CreateRequest, WaitResult
from agent.engine import names
from agent.engine.attachments import Attachment
from agent.engine.core import Core, stepped, with_state
from agent.engine.creation import Creation
from agent.engine.exits import Exits
from agent.engine.lifecycle import Happening, live
from agent.engine.model import Container, LogQuery, Phase
from agent.engine.networks_use import NetworksUse
from agent.engine.removal import Removal
from agent.engine.starting import Starting
from agent.engine.stopping import Stopping
from agent.engine.waits import NOT_RUNNING, EndWaiter
from agent.errors import EngineError, Kind, invalid, not_found
from agent.wire.streams import Duplex, PullStream


class ContainersUse:
    """References are ids, unique id prefixes or names."""

    def __init__(
        self,
        core: Core,
        starting: Starting,
        stopping: Stopping,
        removal: Removal,
        exits: Exits,
    ) -> None:
        self._core = core
        self._creation = Creation(core)
        self._starting = starting
        self._stopping = stopping
        self._removal = removal
        self._exits = exits

    def create(self, request: CreateRequest) -> Created:
        return self._creation.create(request)

    def get(self, reference: str) -> Container:
        return self._core.book.find(reference)

    def all(self) -> list[Container]:
        return self._core.book.all()

    def start(self, reference: str) -> bool:
        return self._starting.start(reference)

    def stop(self, reference: str, *, timeout: int | None, signal: str) -> bool:
        return self._stopping.stop(reference, timeout=timeout, signal=signal)

    def restart(self, reference: str, *, timeout: int | None, signal: str) -> None:
        """A container that does not run is only started; --rm does not remove it on the way."""
        container = self._core.book.find(reference)
        with self._exits.kept(container.id):
            self._stopping.stop(container.id, timeout=timeout, signal=signal)
            self._starting.start(container.id)
        self._core.event(container, "restart")

    def kill(self, reference: str, signal: str) -> None:
        self._stopping.kill(reference, signal)

    def remove(self, reference: str, *, force: bool, volumes: bool) -> None:
        self._removal.remove(reference, force=force, volumes=volumes)

    def rename(self, reference: str, name: str) -> None:
        if not name:
            raise invalid("Neither old nor new names may be empty")
        new = names.valid(name)
        with self._core.book.locked(reference) as container:
            old = container.name
            if new == old:
                raise invalid("Renaming a container with the same name as its current name")
            self._core.book.reserve(new, container.id)
            try:
                renamed = self._core.save(dataclasses.replace(container, name=new))
            except EngineError:
                self._core.book.free(new, container.id)
                raise
            self._core.book.free(old, container.id)
            NetworksUse(self._core).renamed(renamed)
        self._core.event(renamed, "rename", oldName=f"/{old}")

    def pause(self, reference: str) -> None:
        self._freeze(reference, Happening.PAUSE)

    def unpause(self, reference: str) -> None:
        self._freeze(reference, Happening.UNPAUSE)

    def _freeze(self, reference: str, happening: Happening) -> None:
        runtime = self._core.ports.runtime
        act = runtime.pause if happening is Happening.PAUSE else runtime.resume
        with self._core.book.locked(reference) as container:
            state = stepped(container, happening)
            act(container.id)
            self._core.save(with_state(container, state))
        self._core.event(container, happening.value)

    def wait(self, reference: str, condition: str) -> EndWaiter:
        """ "" = not-running, which is fulfilled at once by a container that does not run."""
        with self._core.book.locked(reference) as container:
            waiter = self._core.waits.register(container.id, condition or NOT_RUNNING)
            state = container.state
            runs = live(state.phase) or state.phase is Phase.RESTARTING
            if waiter.condition == NOT_RUNNING and not runs:
                waiter.tell(WaitResult(state.exit_code, state.error))
        return waiter

    def attach(self, reference: str, request: AttachRequest) -> Duplex:
        core = self._core
        with core.book.locked(reference) as container:
            stepped(container, Happening.ATTACH)
            with contextlib.ExitStack() as undo:
                logs = self._past(container, request)
                if logs is not None:
                    undo.callback(logs.close)
                found = self._attached(container, request, logs)
                undo.pop_all()
        core.event(container, "attach")
        return found

    def _past(self, container: Container, request: AttachRequest) -> PullStream | None:
        if not request.logs:
            return None
        query = LogQuery(
            stdout=request.stdout, stderr=request.stderr, framed=not container.config.tty
        )
        return self._core.ports.runtime.logs(container, query)

    def _attached(
        self, container: Container, request: AttachRequest, logs: PullStream | None
    ) -> Attachment:
        if not request.stream:
            return Attachment(container, request, logs)
        if not live(container.state.phase):
            return self._core.attachments.add(container, request, logs)
        stream = self._core.ports.runtime.attach(container.id)
        found = Attachment(container, request, logs)
        found.bind(stream)
        return found

    def logs(self, reference: str, query: LogQuery) -> PullStream:
        return self._core.ports.runtime.logs(self._core.book.find(reference), query)

    def resize(self, reference: str, height: int, width: int) -> None:
        with self._core.book.locked(reference) as container:
            stepped(container, Happening.RESIZE)
            self._core.ports.runtime.resize(container.id, height, width)
        self._core.event(container, "resize", height=str(height), width=str(width))

    def sizes(self, reference: str) -> tuple[int, int]:
        """(SizeRw, SizeRootFs) in bytes; the image's part is 0 when the image is gone."""
        core, container = self._core, self._core.book.find(reference)
        try:
            own = core.files.usage(core.ports.snapshots.rootfs(container.id).upper)
        except FileNotFoundError as error:
            raise not_found(f"No such container: {reference}") from error
        try:
            image = core.ports.images.get(container.image_id).size
        except EngineError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            image = 0
        return own, own + image
