"""Images as the API sees them: the store, who uses an image, and events."""

from __future__ import annotations

from collections.abc import Callable

from agent.engine.core import Core
from agent.engine.lifecycle import live
from agent.engine.model import Image, Progress, RegistryAuth
from agent.engine.ports import Removed


class ImagesUse:
    """`agent.api.backend.ImagesBackend`"""

    def __init__(self, core: Core) -> None:
        self._core = core

    def pull(
        self,
        reference: str,
        *,
        platform: str,
        auth: RegistryAuth | None,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Image:
        image = self._core.ports.images.pull(
            reference, platform=platform, auth=auth, progress=progress, cancelled=cancelled
        )
        name = _repository(reference)
        self._publish("pull", reference, name, image)
        return image

    def get(self, reference: str) -> Image:
        return self._core.ports.images.get(reference)

    def all(self) -> list[Image]:
        return self._core.ports.images.all()

    def tag(self, source: str, repo: str, tag: str) -> None:
        image = self._core.ports.images.tag(source, repo, tag)
        self._publish("tag", image.id, f"{repo}:{tag or 'latest'}", image)

    def remove(self, reference: str, *, force: bool) -> list[Removed]:
        removed = self._core.ports.images.remove(reference, force=force, users=self._users)
        last = next((one.deleted for one in removed if one.deleted), "")
        for one in removed:
            if one.untagged:
                actor = last or one.untagged
                self._core.bus.publish("image", "untag", actor, {"name": actor})
        if last:
            self._core.bus.publish("image", "delete", last, {"name": last})
        return removed

    def _users(self, image_id: str) -> list[tuple[str, bool]]:
        """(container id, running) of each container of that image, or with a mount of it."""
        return [
            (one.id, live(one.state.phase))
            for one in self._core.book.all()
            if image_id in {one.image_id, *(mount.image_id for mount in one.mounts)}
        ]

    def _publish(self, action: str, actor: str, name: str, image: Image) -> None:
        attributes = {**image.config.labels, "name": name}
        self._core.bus.publish("image", action, actor, attributes)


def _repository(reference: str) -> str:
    """ "10.0.0.1:5000/x:y" -> "10.0.0.1:5000/x" """
    bare = reference.partition("@")[0]
    head, colon, tail = bare.rpartition(":")
    return head if colon and "/" not in tail else bare
