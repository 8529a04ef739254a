"""What an image archive says that it holds: docker's manifest.json, or an OCI layout's index.

Nothing of it is believed: names lead to members of the archive only, digests are checked by those
who read the bytes, and references are parsed before anything is stored.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence

from agent.errors import EngineError, invalid
from agent.images import digest as digests
from agent.images import documents, imageconfig, manifest, platforms, reference
from agent.images.documents import BadDocumentError, Document
from agent.images.imageconfig import DecodedConfig
from agent.images.manifest import Descriptor, Manifest
from agent.images.platforms import Platform
from agent.images.reference import Reference
from agent.images.spool import Member, Spool
from agent.values import frozen

_MAX_IMAGES = 1000
_MAX_TAGS = 10_000
_INDEX_DEPTH = 4
_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@frozen
class ArchivedLayer:
    """A layer's file; `blob` when a digest of it is known."""

    diff_id: str
    file: Member
    blob: Descriptor | None


@frozen
class ArchivedImage:
    """An image of the archive, checked as far as that goes without reading layers."""

    image_id: str
    raw_config: bytes
    config: DecodedConfig
    layers: tuple[ArchivedLayer, ...]
    names: tuple[Reference, ...]
    manifest: bytes | None = None

    @property
    def platform(self) -> Platform:
        return platforms.normalise(self.config.os, self.config.architecture, self.config.variant)


def images(spool: Spool) -> list[ArchivedImage]:
    """All images.  Raises INVALID when anything is wrong with any of them."""
    try:
        has_index = spool.find("index.json") is not None
        if spool.find("manifest.json") is None:
            if not has_index:
                raise invalid("invalid archive: it has neither manifest.json nor index.json")
            return _merged(_from_layout(spool))
        found = _from_docker(spool)
        if has_index:
            _agree(found, _merged(_from_layout(spool)))
        return found
    except BadDocumentError as error:
        raise documents.refuse("archive", error) from error


def _agree(docker: Sequence[ArchivedImage], layout: Sequence[ArchivedImage]) -> None:
    """An archive in both forms must mean the same in both."""
    known = {image.image_id for image in layout}
    if layout and not {image.image_id for image in docker} <= known:
        raise invalid("invalid archive: manifest.json and index.json do not name the same images")


# ------------------------------------------------------------------------------------------ docker


def _from_docker(spool: Spool) -> list[ArchivedImage]:
    raw = spool.read("manifest.json", documents.MANIFEST_LIMIT)
    listed = documents.decode(b'{"images":' + raw + b"}", documents.MANIFEST_LIMIT + 16)
    found = [_docker_image(spool, one) for one in documents.objects(listed, "images", _MAX_IMAGES)]
    if not found:
        raise invalid("invalid archive: manifest.json names no image")
    return found


def _docker_image(spool: Spool, entry: Document) -> ArchivedImage:
    where = documents.text(entry, "Config")
    raw = spool.read(_inside(where), documents.CONFIG_LIMIT)
    config = imageconfig.decode(raw)
    paths = [_inside(path) for path in documents.texts(entry, "Layers", manifest.MAX_LAYERS)]
    if len(paths) != len(config.diff_ids):
        raise invalid(
            f"invalid archive: {len(paths)} layers, but the config has {len(config.diff_ids)}"
        )
    image_id = digests.of(raw)
    said = _digest_in(where)
    if said and said != image_id:
        raise invalid(f"invalid archive: {where[:200]!r} is not what its name says")
    layers = [
        ArchivedLayer(diff_id, spool.get(path), _known_blob(path, spool.get(path)))
        for diff_id, path in zip(config.diff_ids, paths, strict=True)
    ]
    names = tuple(_tagged(text) for text in documents.texts(entry, "RepoTags", _MAX_TAGS))
    return ArchivedImage(image_id, raw, config, tuple(layers), names)


def _inside(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise invalid(f"invalid archive: refusing the path {path[:200]!r}")
    return path


def _digest_in(path: str) -> str:
    """The digest that a member's name gives: "blobs/sha256/HEX" or "HEX.json"."""
    folder, name = posixpath.split(posixpath.normpath(path))
    hexadecimal = name.removesuffix(".json")
    algorithm = folder.removeprefix("blobs/") if folder.startswith("blobs/") else "sha256"
    digest = f"{algorithm}:{hexadecimal}"
    return digest if digests.valid(digest) else ""


def _known_blob(path: str, file: Member) -> Descriptor | None:
    digest = _digest_in(path) if path.startswith("blobs/") else ""
    return Descriptor("", digest, file.size) if digest else None


def _tagged(text: str) -> Reference:
    found = reference.parse(text)
    if found.digest or not found.tag:
        raise invalid(f"invalid archive: {text[:200]!r} is no name with a tag")
    return found


# --------------------------------------------------------------------------------------------- OCI


def _from_layout(spool: Spool) -> Iterator[ArchivedImage]:
    if spool.find("oci-layout") is not None:
        layout = documents.decode(spool.read("oci-layout", 4096), 4096)
        version = documents.text(layout, "imageLayoutVersion")
        if version.partition(".")[0] != "1":
            raise invalid(f"invalid archive: unknown image layout {version[:50]!r}")
    raw = spool.read("index.json", documents.MANIFEST_LIMIT)
    yield from _from_index(spool, raw, (), 0)


def _from_index(
    spool: Spool, raw: bytes, names: tuple[Reference, ...], depth: int
) -> Iterator[ArchivedImage]:
    if depth >= _INDEX_DEPTH:
        raise invalid("invalid archive: its indexes are nested too deep")
    document = documents.decode(raw, documents.MANIFEST_LIMIT)
    for entry in documents.objects(document, "manifests", _MAX_IMAGES):
        blob = manifest.descriptor(entry)
        if spool.find(_path(blob.digest)) is None:
            continue  # another platform's, left out when it was saved
        inner = _checked(spool, blob)
        known = names or _names(entry)
        if "manifests" in documents.decode(inner, documents.MANIFEST_LIMIT):
            yield from _from_index(spool, inner, known, depth + 1)
            continue
        decoded = manifest.decode(inner, blob.media_type)
        if isinstance(decoded, Manifest) and not _is_attestation(entry):
            yield _layout_image(spool, inner, decoded, known)


def _is_attestation(entry: Document) -> bool:
    platform = documents.mapping(entry, "platform")
    return documents.text(platform, "os") == "unknown"


def _layout_image(
    spool: Spool, raw: bytes, decoded: Manifest, names: tuple[Reference, ...]
) -> ArchivedImage:
    raw_config = _checked(spool, decoded.config)
    config = imageconfig.decode(raw_config)
    if len(decoded.layers) != len(config.diff_ids):
        raise invalid("invalid archive: manifest and config do not have the same layers")
    layers = tuple(
        ArchivedLayer(diff_id, _sized(spool, blob), blob)
        for diff_id, blob in zip(config.diff_ids, decoded.layers, strict=True)
    )
    return ArchivedImage(decoded.config.digest, raw_config, config, layers, names, raw)


def _path(digest: str) -> str:
    return "blobs/" + "/".join(digests.split(digest))


def _sized(spool: Spool, blob: Descriptor) -> Member:
    file = spool.get(_path(blob.digest))
    if file.size != blob.size:
        raise invalid(f"invalid archive: blob {blob.digest} does not have its size")
    return file


def _checked(spool: Spool, blob: Descriptor) -> bytes:
    _sized(spool, blob)
    raw = spool.read(_path(blob.digest), documents.CONFIG_LIMIT)
    if not digests.matches(raw, blob.digest):
        raise invalid(f"invalid archive: blob {blob.digest} is not what its name says")
    return raw


def _names(entry: Document) -> tuple[Reference, ...]:
    """containerd's full name; ref.name only when it is more than a tag."""
    notes = documents.text_map(entry, "annotations")
    for key in _NAME_KEYS:
        text = notes.get(key, "")
        if not text or (":" not in text and "/" not in text):
            continue
        try:
            return (_tagged(text),)
        except EngineError as error:
            raise invalid(f"invalid archive: {error.message}") from error
    return ()


def _merged(found: Iterator[ArchivedImage]) -> list[ArchivedImage]:
    """One entry an image: the layout lists it once a name."""
    merged: dict[str, ArchivedImage] = {}
    for image in found:
        known = merged.get(image.image_id)
        if known is None:
            merged[image.image_id] = image
            continue
        names = tuple(dict.fromkeys((*known.names, *image.names)))
        merged[image.image_id] = ArchivedImage(
            known.image_id, known.raw_config, known.config, known.layers, names, known.manifest
        )
    return list(merged.values())


def history_line(created: str, comment: str) -> dict[str, object]:
    """The history entry of an imported image."""
    return {"created": created, "comment": comment}


def image_config(parts: dict[str, object]) -> bytes:
    """A config document's bytes."""
    return json.dumps(parts, separators=(",", ":")).encode()
