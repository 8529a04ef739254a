"""docker save: images as one tar, an OCI layout and docker's manifest.json over the same blobs.

As Docker Engine writes it since version 25: layers uncompressed, named by their diffIDs.  The small
documents come first here, so that whoever reads it as a stream knows what the layers are for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import field

from agent.host import tarheader
from agent.host.tarwriter import END, Member, header, padding
from agent.images import digest as digests
from agent.images import reference
from agent.values import frozen

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


@frozen
class SavedLayer:
    """A layer's diffID, the size of its tar, and what makes the tar."""

    diff_id: str
    size: int
    tar: Callable[[], Generator[bytes, None, None]]


@frozen
class SavedImage:
    """An image with the names that were asked for, as full "docker.io/library/x" and tag."""

    image_id: str
    config: bytes
    layers: tuple[SavedLayer, ...]
    names: tuple[tuple[str, str], ...] = ()
    platform: Mapping[str, str] = field(default_factory=dict)


def manifest_of(image_id: str, config: bytes, layers: Iterable[tuple[str, int]]) -> bytes:
    """The OCI manifest of an image with uncompressed layers (diffID, tar size)."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": image_id, "size": len(config)},
            "layers": [
                {"mediaType": _LAYER, "digest": diff_id, "size": size} for diff_id, size in layers
            ],
        }
    )


def archive(images: Sequence[SavedImage]) -> Generator[bytes, None, None]:
    """The tar.  What a layer's tar raises cuts it off."""
    documents = _documents(images)
    for folder in (b"blobs", b"blobs/sha256"):
        yield header(Member(folder, tarheader.DIRECTORY, 0o755, 0, 0))
    for name, raw in documents.items():
        yield _head(name, len(raw)) + raw + padding(len(raw))
    done = set(documents)
    for image in images:
        for layer in image.layers:
            name = _blob(layer.diff_id)
            if name in done:
                continue
            done.add(name)
            yield _head(name, layer.size)
            yield from layer.tar()
            yield padding(layer.size)
    yield END


def _documents(images: Sequence[SavedImage]) -> dict[str, bytes]:
    entries: list[object] = []
    legacy: list[object] = []
    repositories: dict[str, dict[str, str]] = {}
    blobs: dict[str, bytes] = {}
    for image in images:
        raw = manifest_of(
            image.image_id, image.config, [(one.diff_id, one.size) for one in image.layers]
        )
        blobs[_blob(image.image_id)] = image.config
        blobs[_blob(digests.of(raw))] = raw
        entries += _index_entries(image, raw)
        legacy.append(_legacy_entry(image))
        for name, tag in image.names:
            top = image.layers[-1].diff_id if image.layers else image.image_id
            known = repositories.setdefault(reference.familiar(name), {})
            known[tag] = digests.split(top)[1]
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}
    found = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
        "manifest.json": _json(legacy) + b"\n",
        **blobs,
    }
    if repositories:
        found["repositories"] = _json(repositories) + b"\n"
    return found


def _index_entries(image: SavedImage, raw: bytes) -> list[object]:
    plain: dict[str, object] = {
        "mediaType": _MANIFEST,
        "digest": digests.of(raw),
        "size": len(raw),
        "platform": dict(image.platform),
    }
    if not image.platform:
        del plain["platform"]
    return [
        {
            **plain,
            "annotations": {
                "io.containerd.image.name": f"{name}:{tag}",
                "org.opencontainers.image.ref.name": tag,
            },
        }
        for name, tag in image.names
    ] or [plain]


def _legacy_entry(image: SavedImage) -> dict[str, object]:
    return {
        "Config": _blob(image.image_id),
        "RepoTags": [f"{reference.familiar(name)}:{tag}" for name, tag in image.names] or None,
        "Layers": [_blob(layer.diff_id) for layer in image.layers],
        "LayerSources": {
            layer.diff_id: {"mediaType": _LAYER, "size": layer.size, "digest": layer.diff_id}
            for layer in image.layers
        },
    }


def _blob(digest: str) -> str:
    return "blobs/" + "/".join(digests.split(digest))


def _head(name: str, size: int) -> bytes:
    return header(Member(name.encode(), tarheader.REGULAR, 0o644, 0, 0, size))


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
