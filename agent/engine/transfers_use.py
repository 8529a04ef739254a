"""Images on their way in and out, with the events that docker has for it; image prune."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from agent.engine.core import Core
from agent.engine.images_use import ImagesUse
from agent.engine.model import Image, RegistryAuth
from agent.engine.ports import Removed
from agent.engine.transfers import (
    Distribution,
    Gone,
    ImageSpace,
    ImportRequest,
    ManifestInfo,
    Read,
    Say,
    SearchHit,
    Transfers,
)
from agent.errors import EngineError, Kind, not_implemented

_IN_USE = frozenset({Kind.CONFLICT, Kind.NOT_FOUND})


class TransfersUse:
    """`agent.api.backend.TransfersBackend`"""

    def __init__(self, core: Core, images: ImagesUse) -> None:
        self._core = core
        self._images = images

    @property
    def _port(self) -> Transfers:
        if self._core.ports.transfers is None:
            raise not_implemented("this engine has no image transfers")
        return self._core.ports.transfers

    def push(
        self, name: str, tag: str, *, auth: RegistryAuth | None, progress: Say, gone: Gone
    ) -> list[str]:
        tags = self._port.push(name, tag, auth=auth, progress=progress, gone=gone)
        for one in tags:
            self._event("push", f"{name}:{one}", name)
        return tags

    def pull_all(
        self, name: str, *, platform: str, auth: RegistryAuth | None, progress: Say, gone: Gone
    ) -> list[Image]:
        return [
            self._images.pull(
                f"{name}:{tag}", platform=platform, auth=auth, progress=progress, cancelled=gone
            )
            for tag in self._port.tags(name, auth)
        ]

    def tags(self, name: str, auth: RegistryAuth | None) -> list[str]:
        return self._port.tags(name, auth)

    def login(self, auth: RegistryAuth) -> None:
        self._port.login(auth)

    def distribution(self, name: str, auth: RegistryAuth | None) -> Distribution:
        return self._port.distribution(name, auth)

    def search(self, term: str, limit: int, auth: RegistryAuth | None) -> list[SearchHit]:
        return self._port.search(term, limit, auth)

    def save(self, names: Sequence[str], platform: str) -> Generator[bytes, None, None]:
        pieces = self._port.save(names, platform)
        for name in names:
            image = self._core.ports.images.get(name)
            self._event("save", image.id, name)
        return pieces

    def load(
        self, read: Read, *, platform: str, quiet: bool, progress: Say, gone: Gone
    ) -> list[Image]:
        images = self._port.load(read, platform=platform, quiet=quiet, progress=progress, gone=gone)
        for image in images:
            self._event("load", image.id, image.tags[0] if image.tags else image.id)
        return images

    def import_tree(
        self, read: Read, request: ImportRequest, *, progress: Say, gone: Gone
    ) -> Image:
        image = self._port.import_tree(read, request, progress=progress, gone=gone)
        self._event("import", image.id, image.tags[0] if image.tags else image.id)
        return image

    def layer_sizes(self, reference: str) -> list[int]:
        return self._port.layer_sizes(reference)

    def manifests(self, image_id: str) -> list[ManifestInfo]:
        return self._port.manifests(image_id)

    def space(self) -> ImageSpace:
        return self._port.space()

    def prune(self, chosen: Callable[[Image], bool]) -> tuple[list[Removed], int]:
        """Each removal checks anew that nobody uses the image; what is used meanwhile stays."""
        used = {one.image_id for one in self._core.book.all()}
        before = self._port.space().layers
        removed: list[Removed] = []
        for image in self._core.ports.images.all():
            if image.id not in used and chosen(image):
                removed += self._remove(image)
        freed = max(0, before - self._port.space().layers)
        self._core.bus.publish("image", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    def _remove(self, image: Image) -> list[Removed]:
        gone: list[Removed] = []
        for name in image.tags or image.digests or (image.id,):
            try:
                gone += self._images.remove(name, force=False)
            except EngineError as error:
                if error.kind not in _IN_USE:
                    raise
        return gone

    def _event(self, action: str, actor: str, name: str) -> None:
        self._core.bus.publish("image", action, actor, {"name": name})
