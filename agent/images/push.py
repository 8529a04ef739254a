"""Push one image to one repository (ADR 8): what the registry has is not sent again.

A layer is looked for in the target repository by every digest that it is known under, then mounted
from a repository of the same registry, and only then made anew from its recipe and compressed.
When all layers could be had under their original digests, the original manifest is pushed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from agent.engine.model import Progress, RegistryAuth
from agent.errors import EngineError, Kind
from agent.images import compress, manifest, registry
from agent.images import digest as digests
from agent.images.cancel import Cancellation
from agent.images.connection import Connector
from agent.images.manifest import DOCKER_MANIFEST, OCI_MANIFEST, Descriptor, Manifest
from agent.images.reference import Reference
from agent.images.registry import Endpoint, Repository
from agent.images.settings import RegistrySettings
from agent.images.upload import Uploads
from agent.values import frozen

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_DOCKER_PLAIN = "application/vnd.docker.image.rootfs.diff.tar"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_PARALLEL = 5
_CANDIDATES = 8  # digests of one layer that are asked for
_REPORT_EVERY = 0.1


@frozen
class Known:
    """A blob that holds a layer, and a repository ("10.0.0.1:5000/x") that had it."""

    blob: Descriptor
    repository: str


@frozen
class PushLayer:
    """One layer: its tar's size, where its blob may be, and how its tar is made."""

    diff_id: str
    size: int
    known: tuple[Known, ...]
    tar: Callable[[], Generator[bytes, None, None]]


@frozen
class PushImage:
    """An image to push; `manifest` is the one that it came with, if it is still there."""

    config: bytes
    layers: tuple[PushLayer, ...]  # base first
    manifest: bytes | None


class PushShelf(Protocol):
    """What a push tells the store."""

    def remember_blob(self, diff_id: str, blob: Descriptor, repository: str) -> None: ...


@frozen
class Pushed:
    """The result for one tag."""

    digest: str
    size: int


class Push:
    """Runs in a thread of its own.  One registry, one repository, any number of tags."""

    def __init__(
        self,
        target: Reference,
        auth: RegistryAuth | None,
        shelf: PushShelf,
        settings: RegistrySettings,
        known: dict[str, str],
        progress: Callable[[Progress], None],
    ) -> None:
        self.cancel = Cancellation("push")
        self._target = target
        self._auth = auth
        self._shelf = shelf
        self._settings = settings
        self._known = known
        self._progress = progress

    @contextmanager
    def session(self, sources: Sequence[str]) -> Iterator[Uploads]:
        """The first endpoint that answers.  `sources`: repositories that mounts may come from."""
        told: EngineError | None = None
        for endpoint in registry.endpoints(self._target, self._settings, self._known):
            if endpoint.mirror:
                continue
            connector = Connector(self._settings, self.cancel)
            try:
                uploads = self._uploads(endpoint, connector, sources)
                try:
                    uploads.ping()
                except EngineError as error:
                    if error.kind in (Kind.CANCELLED, Kind.UNAUTHORIZED, Kind.FORBIDDEN):
                        raise
                    told = told or error
                    continue
                self._known[self._target.domain] = endpoint.url
                yield uploads
                return
            finally:
                connector.close()
        raise told or AssertionError("a reference without endpoints")

    def login(self) -> None:
        """Whether the registry takes the credentials.  Raises EngineError (UNAUTHORIZED, ...)."""
        with self.session(()):
            pass

    def _uploads(self, endpoint: Endpoint, connector: Connector, sources: Sequence[str]) -> Uploads:
        scopes = [f"repository:{self._target.path}:pull,push"] if self._target.path else []
        scopes += [f"repository:{path}:pull" for path in sources]
        repository = Repository(
            connector, self._settings, endpoint, self._target, self._auth, tuple(scopes)
        )
        return Uploads(repository, self._settings, self.cancel)

    def announce(self) -> None:
        self._progress(Progress(f"The push refers to repository [{self._target.name}]"))

    def image(self, uploads: Uploads, image: PushImage, tag: str) -> Pushed:
        """Layers, config, manifest; docker's last lines for the tag."""
        blobs = self._layers(uploads, image)
        uploads.document(image.config)
        raw, media_type = self._manifest(image, blobs)
        uploads.manifest(tag, raw, media_type)
        for layer, blob in zip(image.layers, blobs, strict=True):
            self._shelf.remember_blob(layer.diff_id, blob, self._target.name)
        found = Pushed(digests.of(raw), len(raw))
        self._progress(Progress(f"{tag}: digest: {found.digest} size: {found.size}"))
        aux = {"Tag": tag, "Digest": found.digest, "Size": found.size}
        self._progress(Progress("", aux=aux))
        return found

    # ------------------------------------------------------------------------------------ layers

    def _layers(self, uploads: Uploads, image: PushImage) -> list[Descriptor]:
        own = {layer.diff_id: layer for layer in image.layers}
        originals = _originals(image)
        for diff_id in reversed(own):
            self._say(diff_id, "Preparing")
        with (
            ThreadPoolExecutor(_PARALLEL, thread_name_prefix="push") as senders,
            ThreadPoolExecutor(_PARALLEL, thread_name_prefix="gzip") as deflaters,
        ):
            jobs = {}
            for layer in reversed(own.values()):
                sender = _Sender(self, uploads, layer, originals.get(layer.diff_id), deflaters)
                jobs[layer.diff_id] = senders.submit(sender.run)
            try:
                found = {diff_id: job.result() for diff_id, job in jobs.items()}
            except BaseException:
                self.cancel.cancel()  # the others stop
                raise
        return [found[layer.diff_id] for layer in image.layers]

    def say(self, diff_id: str, status: str, current: int, total: int) -> None:
        self._progress(Progress(status, digests.short(diff_id), current, total))

    def _say(self, diff_id: str, status: str) -> None:
        self._progress(Progress(status, digests.short(diff_id)))

    def send(
        self,
        uploads: Uploads,
        layer: PushLayer,
        original: Descriptor | None,
        deflaters: ThreadPoolExecutor,
    ) -> Descriptor:
        """One layer, the cheapest way."""
        self.cancel.check()
        candidates = self._candidates(layer, original)
        for blob in candidates:
            if uploads.has_blob(blob.digest):
                self._say(layer.diff_id, "Layer already exists")
                return blob
        for blob in candidates:
            for source in self._sources(layer, blob):
                if uploads.mount(blob.digest, source):
                    self._say(layer.diff_id, f"Mounted from {source}")
                    return blob
        pace = _Pace(self, layer)
        sent = uploads.blob(lambda: compress.gzipped(pace.counted(), deflaters), lambda _: None)
        self._say(layer.diff_id, "Pushed")
        return Descriptor(DOCKER_GZIP, sent.digest, sent.size)

    def _candidates(self, layer: PushLayer, original: Descriptor | None) -> list[Descriptor]:
        here = self._target.name
        ordered = sorted(layer.known, key=lambda one: one.repository != here)
        found = {} if original is None else {original.digest: original}
        for one in ordered:
            found.setdefault(one.blob.digest, one.blob)
        return list(found.values())[:_CANDIDATES]

    def _sources(self, layer: PushLayer, blob: Descriptor) -> list[str]:
        return [
            path
            for one in layer.known
            if one.blob.digest == blob.digest
            and (path := same_registry(self._target, one.repository))
        ][:3]

    # ---------------------------------------------------------------------------------- manifest

    def _manifest(self, image: PushImage, blobs: Sequence[Descriptor]) -> tuple[bytes, str]:
        original = _decoded(image.manifest)
        if image.manifest is not None and original is not None:
            same = [one.digest for one in original.layers] == [one.digest for one in blobs]
            if same and original.config.digest == digests.of(image.config):
                return image.manifest, original.media_type
        return made_manifest(image.config, blobs)


class _Sender:
    """A layer's turn, as the pool calls it."""

    def __init__(
        self,
        push: Push,
        uploads: Uploads,
        layer: PushLayer,
        original: Descriptor | None,
        deflaters: ThreadPoolExecutor,
    ) -> None:
        self._push = push
        self._uploads = uploads
        self._layer = layer
        self._original = original
        self._deflaters = deflaters

    def run(self) -> Descriptor:
        return self._push.send(self._uploads, self._layer, self._original, self._deflaters)


class _Pace:
    """Counts what is read of a layer's tar, and says so at most ten times a second."""

    def __init__(self, push: Push, layer: PushLayer) -> None:
        self._push = push
        self._layer = layer
        self._lock = threading.Lock()

    def counted(self) -> Iterator[bytes]:
        last, done = 0.0, 0
        with self._lock:  # one stream at a time
            for piece in self._layer.tar():
                yield piece
                done += len(piece)
                now = time.monotonic()
                if now - last >= _REPORT_EVERY or done == self._layer.size:
                    last = now
                    self._push.say(self._layer.diff_id, "Pushing", done, self._layer.size)


def same_registry(target: Reference, repository: str) -> str:
    """The path of `repository` ("10.0.0.1:5000/x") when it is another one of the same registry."""
    domain, _, path = repository.partition("/")
    return path if domain == target.domain and path != target.path else ""


def _originals(image: PushImage) -> dict[str, Descriptor]:
    original = _decoded(image.manifest)
    if original is None or len(original.layers) != len(image.layers):
        return {}
    pairs = zip(image.layers, original.layers, strict=True)
    return {layer.diff_id: blob for layer, blob in pairs if blob.digest != layer.diff_id}


def _decoded(raw: bytes | None) -> Manifest | None:
    if raw is None:
        return None
    try:
        found = manifest.decode(raw, "")
    except EngineError:
        return None
    return found if isinstance(found, Manifest) else None


def made_manifest(config: bytes, blobs: Sequence[Descriptor]) -> tuple[bytes, str]:
    """(bytes, media type): docker's schema 2, or OCI when a layer is compressed by zstd."""
    oci = any(blob.media_type.endswith("zstd") for blob in blobs)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST if oci else DOCKER_MANIFEST,
        "config": {
            "mediaType": _OCI_CONFIG if oci else DOCKER_CONFIG,
            "size": len(config),
            "digest": digests.of(config),
        },
        "layers": [
            {
                "mediaType": _layer_type(blob.media_type, oci=oci),
                "size": blob.size,
                "digest": blob.digest,
            }
            for blob in blobs
        ],
    }
    return json.dumps(document, indent=3).encode(), OCI_MANIFEST if oci else DOCKER_MANIFEST


def _layer_type(media_type: str, *, oci: bool) -> str:
    if media_type.endswith("gzip"):
        return f"{_OCI_LAYER}+gzip" if oci else DOCKER_GZIP
    if media_type.endswith("zstd"):
        return f"{_OCI_LAYER}+zstd"
    return _OCI_LAYER if oci else _DOCKER_PLAIN
