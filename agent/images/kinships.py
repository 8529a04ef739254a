"""The manifests that an image's name stands for, the ones that are here and the others (API 1.48).

An index's entries as it lists them: the pulled image is there with its layers, the images of other
platforms and the attestations are only named.  A name that led to a manifest alone has that one.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.engine.model import Image
from agent.engine.transfers import ManifestInfo
from agent.errors import EngineError
from agent.images import digest as digests
from agent.images import documents, manifest
from agent.images.documents import BadDocumentError, Document

_ENTRIES = 1000
_REFERENCE_TYPE = "vnd.docker.reference.type"
_REFERENCE_DIGEST = "vnd.docker.reference.digest"


def manifests(image: Image, own: bytes, config: int, tops: Iterable[bytes]) -> list[ManifestInfo]:
    """`own`: the image's manifest; `config`: its configuration's bytes; `tops`: what names by
    digest lead to.  What can't be read is left out: it was checked when it was pulled."""
    here = digests.of(own)
    for raw in tops:
        found = _entries(raw)
        if any(one.digest == here for one in found):
            return [_held(one, image, config) if one.digest == here else one for one in found]
    kind = _media_type(own)
    platform = (image.os, image.architecture, image.variant)
    return [_held(ManifestInfo(here, kind, len(own), "image", platform), image, config)]


def _held(one: ManifestInfo, image: Image, config: int) -> ManifestInfo:
    return ManifestInfo(
        one.digest,
        one.media_type,
        one.size,
        "image",
        (image.os, image.architecture, image.variant),
        available=True,
        content=one.size + config,
        unpacked=image.size,
    )


def _entries(raw: bytes) -> list[ManifestInfo]:
    try:
        document = documents.decode(raw, documents.MANIFEST_LIMIT)
        if "manifests" not in document:
            return []
        return [_entry(part) for part in documents.objects(document, "manifests", _ENTRIES)]
    except (BadDocumentError, EngineError):
        return []


def _entry(part: Document) -> ManifestInfo:
    found = manifest.descriptor(part)
    notes = documents.mapping(part, "annotations")
    platform = documents.mapping(part, "platform")
    named = tuple(documents.text(platform, key) for key in ("os", "architecture", "variant"))
    kind, about = ("image" if platform else "unknown"), ""
    if notes.get(_REFERENCE_TYPE) == "attestation-manifest":
        kind, about = "attestation", documents.text(notes, _REFERENCE_DIGEST)
    return ManifestInfo(
        found.digest, found.media_type, found.size, kind, (named[0], named[1], named[2]), about
    )


def _media_type(raw: bytes) -> str:
    try:
        found = documents.text(documents.decode(raw, documents.MANIFEST_LIMIT), "mediaType")
    except BadDocumentError:
        found = ""
    return found or "application/vnd.oci.image.manifest.v1+json"
