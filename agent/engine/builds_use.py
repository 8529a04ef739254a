"""Builds and commits as the API sees them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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
from agent.wire.streams import BodyReader


class BuildsUse:
    """`agent.api.backend.Builds`"""

    def __init__(self, core: Core, builder: Builder | None) -> None:
        self._core = core
        self._maker = builder

    @property
    def _builder(self) -> Builder:
        if self._maker is None:
            raise not_implemented("building images is not served by this engine")
        return self._maker

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

    def close(self) -> None:
        if self._maker is not None:
            self._maker.close()
