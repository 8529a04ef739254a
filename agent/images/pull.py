"""One client's pull: manifest, config, layers, in docker's order and with docker's words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from agent.engine.model import Image, Progress, RegistryAuth
from agent.errors import EngineError, Kind, invalid, not_found
from agent.images import digest as digests
from agent.images import imageconfig, manifest, platforms, registry
from agent.images.cancel import Cancellation
from agent.images.connection import Connector
from agent.images.imageconfig import DecodedConfig
from agent.images.jobs import LayerJob, LayerJobs, LayerTask
from agent.images.manifest import Descriptor, Manifest
from agent.images.platforms import Platform
from agent.images.reference import Reference
from agent.images.registry import Endpoint, Fetched, Repository
from agent.images.settings import RegistrySettings
from agent.values import frozen

# After these answers there is nothing to be hoped for from trying the same registry by http.
_FINAL = frozenset(
    {Kind.NOT_FOUND, Kind.UNAUTHORIZED, Kind.FORBIDDEN, Kind.INVALID, Kind.DATA_LOSS}
)
_NEVER_RETRIED = frozenset({Kind.CANCELLED, Kind.NO_SPACE})


@frozen
class Pulled:
    """All that the store needs to record an image."""

    reference: Reference
    image_id: str
    config: DecodedConfig
    top_digest: str  # of the index or manifest that the name led to
    manifest_digest: str
    documents: tuple[tuple[str, bytes], ...]


class Shelf(Protocol):
    """What a pull wants of the store."""

    def has_layer(self, diff_id: str) -> bool: ...

    def has_document(self, digest: str) -> bytes | None: ...

    def keep_document(self, digest: str, raw: bytes) -> None: ...

    def remember_blob(self, diff_id: str, blob: Descriptor, repository: str) -> None: ...

    def hold(self, diff_ids: tuple[str, ...]) -> None: ...

    def release(self, diff_ids: tuple[str, ...]) -> None: ...

    def record(self, pulled: Pulled) -> tuple[Image, bool]:
        """Make it durable; True when the name led elsewhere before."""
        ...


class Flights:
    """What concurrent pulls share: one at a time per key (a config is fetched once), and the URL
    at which each registry answered last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self.known: dict[str, str] = {}

    @contextmanager
    def alone(self, key: str, cancel: Cancellation) -> Iterator[None]:
        with self._lock:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            while not lock.acquire(timeout=0.2):
                cancel.check()
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._lock:
                lock, users = self._locks.pop(key)
                if users > 1:
                    self._locks[key] = (lock, users - 1)


@frozen
class PullRequest:
    """What one client asked for."""

    reference: Reference  # tagged
    platform: str
    auth: RegistryAuth | None


class Pull:
    """Runs in a thread of its own; the client's thread only forwards `progress` lines."""

    def __init__(
        self,
        request: PullRequest,
        shelf: Shelf,
        jobs: LayerJobs,
        flights: Flights,
        settings: RegistrySettings,
        machine: str,
        progress: Callable[[Progress], None],
    ) -> None:
        self.cancel = Cancellation()
        self._request = request
        self._reference = request.reference
        self._shelf = shelf
        self._jobs = jobs
        self._flights = flights
        self._settings = settings
        self._wanted = platforms.parse(request.platform, machine)
        self._progress = progress
        self._announced = False
        self._answered = ""  # the endpoint that gave the manifest

    def run(self) -> Image:
        """Try the endpoints in order.  Raises the EngineError that tells most."""
        endpoints = registry.endpoints(self._reference, self._settings, self._flights.known)
        told: EngineError | None = None
        for endpoint in endpoints:
            connector = Connector(self._settings, self.cancel)
            try:
                return self._from(endpoint, connector)
            except EngineError as error:
                self.cancel.check()
                last = endpoint is endpoints[-1]
                if error.kind in _NEVER_RETRIED or self._is_final(endpoint, error):
                    raise
                # An answer (no such image) tells more than "could not be reached".
                if told is None or told.kind not in _FINAL:
                    told = error
                if last:
                    raise told from error
            finally:
                connector.close()
        raise AssertionError("a reference without endpoints")

    def _is_final(self, endpoint: Endpoint, error: EngineError) -> bool:
        if endpoint.mirror:
            return False
        return error.kind in _FINAL or self._answered == endpoint.url

    def _from(self, endpoint: Endpoint, connector: Connector) -> Image:
        repository = Repository(
            connector, self._settings, endpoint, self._reference, self._request.auth
        )
        top = repository.manifest(self._reference.digest or self._reference.tag, self.cancel)
        self._answered = self._flights.known[self._reference.domain] = endpoint.url
        self._announce()
        fetched, decoded = self._choose(repository, top)
        raw_config = self._config(repository, decoded.config)
        config = imageconfig.decode(raw_config)
        self._check(config, decoded)
        self._layers(repository, config.diff_ids, decoded.layers)
        documents = [(top.digest, top.raw), (fetched.digest, fetched.raw)]
        pulled = Pulled(
            reference=self._reference,
            image_id=decoded.config.digest,
            config=config,
            top_digest=self._reference.digest or top.digest,
            manifest_digest=fetched.digest,
            documents=(*dict(documents).items(), (decoded.config.digest, raw_config)),
        )
        try:
            self.cancel.check()
            image, changed = self._shelf.record(pulled)
        finally:
            self._shelf.release(config.diff_ids)
        self._progress(Progress(f"Digest: {pulled.top_digest}"))
        status = "Downloaded newer image for" if changed else "Image is up to date for"
        self._progress(Progress(f"Status: {status} {_shown(self._reference)}"))
        return image

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            label = self._reference.tag
            if self._reference.digest:
                label = f"{self._reference.name}@{self._reference.digest}"
            self._progress(Progress(f"Pulling from {self._reference.path}", label))

    def _choose(self, repository: Repository, top: Fetched) -> tuple[Fetched, Manifest]:
        decoded = manifest.decode(top.raw, top.content_type)
        if isinstance(decoded, Manifest):
            return top, decoded
        chosen = manifest.select(decoded, self._wanted)
        fetched = repository.manifest(chosen.digest, self.cancel)
        if len(fetched.raw) != chosen.size:
            raise invalid(f"manifest {chosen.digest} does not have the size that the index says")
        inner = manifest.decode(fetched.raw, fetched.content_type)
        if not isinstance(inner, Manifest):
            raise invalid("invalid manifest: an index inside an index")
        return fetched, inner

    def _config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        with self._flights.alone(descriptor.digest, self.cancel):
            raw = self._shelf.has_document(descriptor.digest)
            if raw is None:
                raw = repository.document(descriptor, self.cancel)
                self._shelf.keep_document(descriptor.digest, raw)
            if len(raw) != descriptor.size:
                raise invalid(f"config {descriptor.digest} does not have the size it should have")
            return raw

    def _check(self, config: DecodedConfig, decoded: Manifest) -> None:
        if len(config.diff_ids) != len(decoded.layers):
            raise invalid(
                f"invalid image: {len(decoded.layers)} layers, but {len(config.diff_ids)} diff_ids"
            )
        found = platforms.normalise(config.os, config.architecture, config.variant)
        if found.os != "linux":
            raise invalid(
                f'image operating system "{found.os[:64]}" cannot be used on this platform'
            )
        if self._request.platform and not _fits(found, self._wanted):
            raise not_found(
                f"image with reference {_shown(self._reference)} was found but its platform "
                f"({found}) does not match the specified platform ({self._wanted})"
            )

    # ------------------------------------------------------------------------------------ layers

    def _layers(
        self, repository: Repository, diff_ids: tuple[str, ...], blobs: tuple[Descriptor, ...]
    ) -> None:
        """Get what is missing.  On success all layers are held until `record` is done."""
        self._shelf.hold(diff_ids)
        jobs: list[tuple[LayerTask, LayerJob, bool]] = []
        try:
            missing: dict[str, LayerTask] = {}
            for diff_id, blob in zip(diff_ids, blobs, strict=True):
                present = self._shelf.has_layer(diff_id) or diff_id in missing
                if not present:
                    missing[diff_id] = LayerTask(diff_id, blob, repository.blob, resumes=True)
                status = "Already exists" if present else "Pulling fs layer"
                self._progress(Progress(status, digests.short(blob.digest)))
            for task in missing.values():
                jobs.append((task, *self._jobs.get(task, self._progress)))  # noqa: PERF401 - `finally` leaves what was joined
            for task, job, mine in jobs:
                self._await(task, job, mine=mine)
            for diff_id, blob in zip(diff_ids, blobs, strict=True):
                self._shelf.remember_blob(diff_id, blob, self._reference.name)
        except BaseException:
            self._shelf.release(diff_ids)
            raise
        finally:
            for _, job, _ in jobs:
                job.leave(self._progress)

    def _await(self, task: LayerTask, job: LayerJob, *, mine: bool) -> None:
        with self.cancel.on_cancel(lambda: job.leave(self._progress)):
            while not job.done.wait(0.2):
                self.cancel.check()
        if job.error is None:
            return
        self.cancel.check()
        if mine or self._shelf.has_layer(task.diff_id):
            raise job.error
        # Somebody else's registry or credentials failed: ours may be better.
        again, _ = self._jobs.get(task, self._progress)
        try:
            self._await(task, again, mine=True)
        finally:
            again.leave(self._progress)


def _fits(found: Platform, wanted: Platform) -> bool:
    return found in platforms.preferences(wanted)


def _shown(reference: Reference) -> str:
    """What docker's status line names: the digest alone when both are given."""
    if reference.digest:
        return f"{reference.familiar_name}@{reference.digest}"
    return reference.familiar
