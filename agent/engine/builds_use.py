"""Builds and commits as the API sees them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from agent.engine.building import (
    Builder,
    BuildOutput,
    BuildRequest,
    CommitRequest,
    Gone,
    Pruned,
)
from agent.engine.core import Core
from agent.engine.model import Container, Phase
from agent.errors import not_implemented
from agent.wire.streams import BodyReader, Duplex


class BuildsUse:
    """`agent.api.backend.Builds`"""

    def __init__(self, core: Core, builder: Callable[[], Builder] | None) -> None:
        """`builder` opens the builder; it is called once, at first use or by `open`: its code is
        a quarter of the agent's, and the agent shall not start later for it."""
        self._core = core
        self._make = builder
        self._lock = threading.Lock()
        self._made: Builder | None = None

    @property
    def _builder(self) -> Builder:
        if self._make is None:
            raise not_implemented("building images is not served by this engine")
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def open(self) -> None:
        """Opens the builder, which clears up after builds that a dead agent ran."""
        if self._make is not None:
            _ = self._builder

    def build(
        self, request: BuildRequest, context: BodyReader, output: BuildOutput, gone: Gone
    ) -> str:
        image_id = self._builder.build(request, context, output, gone)
        labels = self._core.ports.images.get(image_id).config.labels
        for name in request.tags:
            self._core.bus.publish("image", "tag", image_id, {**labels, "name": name})
        return image_id

    def commit(self, request: CommitRequest) -> str:
        """A running container is frozen meanwhile, unless `pause` is off."""
        core = self._core
        with core.book.locked(request.container) as container, self._still(container, request):
            image_id = self._builder.commit(container, request)
        core.event(container, "commit", comment=request.comment, imageID=image_id)
        if request.repo:
            name = f"{request.repo}:{request.tag or 'latest'}"
            core.bus.publish("image", "tag", image_id, {"name": name})
        return image_id

    @contextlib.contextmanager
    def _still(self, container: Container, request: CommitRequest) -> Iterator[None]:
        runtime = self._core.ports.runtime
        if not request.pause or container.state.phase is not Phase.RUNNING:
            yield
            return
        runtime.pause(container.id)
        try:
            yield
        finally:
            runtime.resume(container.id)

    def prune(self, *, everything: bool) -> Pruned:
        return self._builder.prune(everything=everything)

    def session(self, token: str) -> Duplex:
        return self._builder.session(token)

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
