"""GET /containers/json: one entry, and the Status text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final

from agent.api.schema.fields import Document
from agent.api.schema.inspect import mounts_document
from agent.api.schema.networking import networks_document, port_list
from agent.api.schema.times import SECOND, human_duration
from agent.api.version import CURRENT, Version
from agent.engine.model import Container, Image, Phase
from agent.values import frozen


@frozen(slots=True)
class ImageNames:
    """Which image a name means now, to show a container's image by name or, when the name has
    moved on, by id."""

    ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Iterable[Image]) -> ImageNames:
        return cls({name: one.id for one in images for name in (*one.tags, *one.digests)})

    def shown(self, container: Container) -> str:
        reference, image_id = container.image_ref, container.image_id
        digits = reference.removeprefix("sha256:")
        if digits and image_id.removeprefix("sha256:").startswith(digits):
            return reference
        plain = reference.removeprefix("docker.io/").removeprefix("library/")
        candidates = {reference, f"{reference}:latest", plain, f"{plain}:latest"}
        return reference if any(self.ids.get(c) == image_id for c in candidates) else image_id


def command_line(container: Container) -> str:
    """Path and args; an argument with a space is shown in single quotes."""
    words = [f"'{word}'" if " " in word else word for word in container.args]
    return " ".join([container.path, *words])


def status_text(container: Container, now: int) -> str:
    """The human word for a state: "Up 5 minutes (Paused)", "Exited (0) 3 seconds ago"."""
    state = container.state
    if state.phase in _WORDS:
        return _WORDS[state.phase]
    if state.phase in {Phase.RUNNING, Phase.PAUSED}:
        up = f"Up {human_duration(now - state.started_at)}"
        if state.phase is Phase.PAUSED:
            return f"{up} (Paused)"
        if state.health is None:
            return up
        status = state.health.status
        return f"{up} ({'health: starting' if status == 'starting' else status})"
    word = "Restarting" if state.phase is Phase.RESTARTING else "Exited"
    return f"{word} ({state.exit_code}) {human_duration(now - state.finished_at)} ago"


_WORDS: Final = {
    Phase.CREATED: "Created",
    Phase.REMOVING: "Removal In Progress",
    Phase.DEAD: "Dead",
}


def list_entry(
    container: Container,
    names: ImageNames,
    network_ids: dict[str, str],
    now: int,
    *,
    sizes: tuple[int, int] | None = None,
    version: Version = CURRENT,
) -> Document:
    """ContainerSummary, in Docker Engine's order."""
    mode = container.host_config.network_mode
    host: Document = {"NetworkMode": "bridge" if mode in {"", "default"} else mode}
    if container.host_config.annotations:
        host["Annotations"] = dict(container.host_config.annotations)
    document: Document = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": names.shown(container),
        "ImageID": container.image_id,
        "Command": command_line(container),
        "Created": container.created // SECOND,
        "Ports": port_list(container),
    }
    if sizes is not None:
        document["SizeRw"], document["SizeRootFs"] = sizes
    document["Labels"] = dict(sorted(container.config.labels.items()))
    document["State"] = container.state.phase.value
    document["Status"] = status_text(container, now)
    document["HostConfig"] = host
    document["NetworkSettings"] = {"Networks": networks_document(container, network_ids, version)}
    document["Mounts"] = mounts_document(container)
    return document
