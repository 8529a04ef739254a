"""An image's config blob as the engine's `Image` (OCI image-spec config.md, docker's image spec).

Pure.  Everything in it was written by a stranger: it is decoded and shown, and steers nothing on
the host (security.md C32).
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.engine.model import Image, ImageConfig
from agent.images import digest as digests
from agent.images import documents
from agent.images.documents import BadDocumentError, Document
from agent.images.manifest import MAX_LAYERS
from agent.values import frozen

_MAX_HISTORY = 4096


@frozen
class DecodedConfig:
    """What a config blob says."""

    created: str
    author: str
    comment: str
    architecture: str
    os: str
    variant: str
    config: ImageConfig
    diff_ids: tuple[str, ...]
    history: tuple[Mapping[str, object], ...]


def decode(raw: bytes) -> DecodedConfig:
    """Decode and check; INVALID EngineError otherwise."""
    try:
        return _decode(documents.decode(raw, documents.CONFIG_LIMIT))
    except BadDocumentError as error:
        raise documents.refuse("image config", error) from error


def _decode(document: Document) -> DecodedConfig:
    rootfs = documents.mapping(document, "rootfs")
    if documents.text(rootfs, "type", "layers") != "layers":
        raise BadDocumentError("rootfs.type is not layers")
    diff_ids = documents.texts(rootfs, "diff_ids", MAX_LAYERS)
    for diff_id in diff_ids:
        if not digests.valid(diff_id):
            raise BadDocumentError(f"invalid diff_id {diff_id[:100]!r}")
    return DecodedConfig(
        created=documents.text(document, "created"),
        author=documents.text(document, "author"),
        comment=documents.text(document, "comment"),
        architecture=documents.text(document, "architecture"),
        os=documents.text(document, "os", "linux") or "linux",
        variant=documents.text(document, "variant"),
        config=_runnable(documents.mapping(document, "config")),
        diff_ids=diff_ids,
        history=tuple(documents.objects(document, "history", _MAX_HISTORY)),
    )


def _runnable(document: Document) -> ImageConfig:
    return ImageConfig(
        user=documents.text(document, "User"),
        exposed_ports=tuple(documents.mapping(document, "ExposedPorts")),
        env=documents.texts(document, "Env"),
        entrypoint=_command(document, "Entrypoint"),
        cmd=_command(document, "Cmd"),
        volumes=tuple(documents.mapping(document, "Volumes")),
        working_dir=documents.text(document, "WorkingDir"),
        labels=documents.text_map(document, "Labels"),
        stop_signal=documents.text(document, "StopSignal"),
        shell=documents.texts(document, "Shell"),
        on_build=documents.texts(document, "OnBuild"),
        healthcheck=documents.mapping(document, "Healthcheck") or None,
    )


def _command(document: Document, key: str) -> tuple[str, ...] | None:
    return None if document.get(key) is None else documents.texts(document, key)


def image(
    image_id: str, config: DecodedConfig, size: int, tags: tuple[str, ...], refs: tuple[str, ...]
) -> Image:
    """The engine's value; `refs` are the familiar name@digest references."""
    return Image(
        id=image_id,
        created=config.created,
        architecture=config.architecture,
        os=config.os,
        variant=config.variant,
        config=config.config,
        size=size,
        diff_ids=config.diff_ids,
        tags=tags,
        digests=refs,
        author=config.author,
        comment=config.comment,
        history=config.history,
    )
