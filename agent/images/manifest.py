"""Docker schema 2 and OCI manifests and indexes as checked values (OCI image-spec v1.1).

Pure.  What a document says of itself must agree with what it holds: one with both `manifests`
and `layers`/`config` is refused (CVE-2021-41190), so is schema 1 and every unknown layer type.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import EngineError, invalid, not_found
from agent.images import digest as digests
from agent.images import documents, platforms
from agent.images.documents import BadDocumentError, Document
from agent.images.platforms import Platform
from agent.values import frozen

MAX_LAYERS = 127
_MAX_ENTRIES = 4096

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
_INDEXES = frozenset({DOCKER_INDEX, OCI_INDEX})
_MANIFESTS = frozenset({DOCKER_MANIFEST, OCI_MANIFEST})

_CONFIG_TYPES = frozenset(
    {
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.oci.image.config.v1+json",
        "application/octet-stream",
        "",
    }
)
_LAYER_TYPES = frozenset(
    {
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.diff.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    }
)
_KNOWN_KEYS = frozenset({"schemaversion", "mediatype", "config", "layers", "manifests"})


@frozen
class Descriptor:
    """What is to be fetched: by this digest, of exactly this many bytes."""

    media_type: str
    digest: str
    size: int


@frozen
class IndexEntry:
    """A manifest of an index."""

    descriptor: Descriptor
    platform: Platform | None


@frozen
class Index:
    """A manifest list or OCI index."""

    entries: tuple[IndexEntry, ...]


@frozen
class Manifest:
    """One image: config and layers, base first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def decode(raw: bytes, content_type: str) -> Manifest | Index:
    """Decode what a registry sent.  `content_type` is its header, "" when there was none.

    Raises INVALID EngineErrors that say what is wrong.
    """
    try:
        return _decode(documents.decode(raw, documents.MANIFEST_LIMIT), content_type)
    except BadDocumentError as error:
        raise documents.refuse("manifest", error) from error


def _decode(document: Document, content_type: str) -> Manifest | Index:
    for key in document:
        if key.lower() in _KNOWN_KEYS and key not in ("schemaVersion", "mediaType", key.lower()):
            raise BadDocumentError(f"ambiguous key {key!r}")
    version = document.get("schemaVersion")
    if version == 1:
        raise _schema1()
    if version != 2 or isinstance(version, bool):
        raise BadDocumentError("unsupported schema version")
    said = _agreed_type(documents.text(document, "mediaType"), content_type)
    is_index = "manifests" in document
    if is_index and ("layers" in document or "config" in document):
        raise BadDocumentError("both a manifest and an index")
    if (is_index and said in _MANIFESTS) or (not is_index and said in _INDEXES):
        raise BadDocumentError(f"content does not match its media type {said}")
    return _index(document) if is_index else _manifest(document, said)


def _schema1() -> EngineError:
    return invalid(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported: "
        "rebuild or re-push the image with a newer tool"
    )


def _agreed_type(inside: str, header: str) -> str:
    header = header.partition(";")[0].strip().lower()
    if header.startswith("application/vnd.docker.distribution.manifest.v1"):
        raise _schema1()
    if inside and inside not in _INDEXES | _MANIFESTS:
        raise BadDocumentError(f"unsupported media type {inside[:100]!r}")
    known = header if header in _INDEXES | _MANIFESTS else ""
    if inside and known and inside != known:
        raise BadDocumentError(f"media type {inside} was sent as {known}")
    return inside or known


def descriptor(document: Document) -> Descriptor:
    """A content descriptor with its digest checked."""
    digest = documents.text(document, "digest")
    if not digests.valid(digest):
        raise BadDocumentError(f"invalid digest {digest[:100]!r}")
    size = documents.integer(document, "size")
    return Descriptor(documents.text(document, "mediaType"), digest, size)


def _manifest(document: Document, media_type: str) -> Manifest:
    if "config" not in document or "layers" not in document:
        raise BadDocumentError("neither an image manifest nor an index")
    config = descriptor(documents.mapping(document, "config"))
    if config.media_type not in _CONFIG_TYPES:
        raise invalid(f"unsupported media type {config.media_type[:100]!r}: not a container image")
    if config.size > documents.CONFIG_LIMIT:
        raise BadDocumentError(f"config is larger than {documents.CONFIG_LIMIT} bytes")
    layers = tuple(descriptor(part) for part in documents.objects(document, "layers", MAX_LAYERS))
    for layer in layers:
        if layer.media_type not in _LAYER_TYPES:
            raise invalid(
                f"unsupported media type {layer.media_type[:100]!r} of layer {layer.digest}"
            )
    return Manifest(media_type or OCI_MANIFEST, config, layers)


def _index(document: Document) -> Index:
    parts = documents.objects(document, "manifests", _MAX_ENTRIES)
    return Index(tuple(IndexEntry(descriptor(part), _platform(part)) for part in parts))


def _platform(part: Document) -> Platform | None:
    if part.get("platform") is None:
        return None
    found = documents.mapping(part, "platform")
    return platforms.normalise(
        documents.text(found, "os"),
        documents.text(found, "architecture"),
        documents.text(found, "variant"),
    )


def select(index: Index, wanted: Platform) -> Descriptor:
    """The best manifest for a platform, or docker's NOT_FOUND text with what there is instead."""
    usable = [entry for entry in index.entries if entry.descriptor.media_type in _MANIFESTS]
    for choice in platforms.preferences(wanted):
        for entry in usable:
            if entry.platform == choice:
                return entry.descriptor
    raise not_found(
        f"no matching manifest for {wanted} in the manifest list entries{_available(usable)}"
    )


def _available(entries: Sequence[IndexEntry]) -> str:
    names = sorted(
        {
            str(entry.platform)[:64]
            for entry in entries
            if entry.platform and entry.platform.os != "unknown"
        }
    )
    if not names:
        return ": the list is empty"
    more = f" and {len(names) - 32} more" if len(names) > 32 else ""
    return ": available are " + ", ".join(names[:32]) + more
