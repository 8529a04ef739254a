"""`agent.engine.transfers.Transfers`: the store's images to registries and archives, and back."""

from __future__ import annotations

import errno
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from agent.engine.model import Image, Progress, RegistryAuth
from agent.engine.transfers import (
    Distribution,
    Gone,
    ImageSpace,
    ImportRequest,
    ManifestInfo,
    Read,
    Say,
    SearchHit,
)
from agent.errors import EngineError, cancelled, internal, invalid, no_space, not_found
from agent.images import digest as digests
from agent.images import (
    kinships,
    layertar,
    manifest,
    platforms,
    reference,
    registry,
    saving,
    searching,
)
from agent.images.building import BuildLayers
from agent.images.cancel import Cancellation
from agent.images.connection import Connector
from agent.images.disk import Disk
from agent.images.jobs import LayerJobs
from agent.images.loading import Loader, Store
from agent.images.manifest import Descriptor, Manifest
from agent.images.metadata import Layer, Ref
from agent.images.push import Known, Push, PushImage, PushLayer, same_registry
from agent.images.reference import DEFAULT_DOMAIN, Reference
from agent.images.registry import Repository
from agent.images.saving import SavedImage, SavedLayer
from agent.images.settings import RegistrySettings
from agent.images.shelf import LocalShelf
from agent.wire.http import public

_TICK = 0.1  # seconds
_END = 10.0
_T = TypeVar("_T")


class ImageTransfers:
    """Thread-safe; one for the store.  `settings` is asked at each start (SIGHUP changes it)."""

    def __init__(
        self,
        disk: Disk,
        shelf: LocalShelf,
        jobs: LayerJobs,
        settings: Callable[[], RegistrySettings],
        machine: str,
    ) -> None:
        self._disk = disk
        self._shelf = shelf
        self._jobs = jobs
        self._settings = settings
        self._machine = machine
        self._known: dict[str, str] = {}  # registry -> the URL that answered last

    # ------------------------------------------------------------------------------------- push

    def push(
        self, name: str, tag: str, *, auth: RegistryAuth | None, progress: Say, gone: Gone
    ) -> list[str]:
        """See `Transfers.push`."""
        target = reference.parse(name)
        tag = tag or target.tag
        target = Reference(target.domain, target.path)
        wanted = self._shelf.tags_of(target.name)
        if tag:
            wanted = [ref for ref in wanted if ref.suffix == f":{tag}"]
        if not wanted:
            shown = target.familiar_name
            raise not_found(f"An image does not exist locally with the tag: {shown}")

        lines: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        push = Push(target, auth, self._shelf, self._settings(), self._known, lines.put)

        def work() -> list[str]:
            push.announce()
            for ref in wanted:
                self._push_one(push, target, ref)
            return [ref.suffix[1:] for ref in wanted]

        return followed(work, push.cancel, lines, progress, gone)

    def _push_one(self, push: Push, target: Reference, ref: Ref) -> None:
        with self._held(ref.image_id) as image:
            sources = {
                path
                for layer in image.layers
                for one in layer.known
                if (path := same_registry(target, one.repository))
            }
            with push.session(sorted(sources)[:8]) as uploads:
                done = push.image(uploads, image, ref.suffix[1:])
        self._shelf.set_ref(Ref(target.name, f"@{done.digest}", ref.image_id))

    def _push_image(self, image_id: str, rows: Sequence[Layer]) -> PushImage:
        layers = [
            PushLayer(
                row.diff_id,
                self._tar_size(row),
                tuple(
                    Known(Descriptor(kind, digest, size), repository)
                    for digest, size, kind, repository in self._shelf.blobs(row.diff_id)
                ),
                partial(self._tar, row),
            )
            for row in rows
        ]
        raw = self._shelf.manifest_of(image_id)
        return PushImage(self._disk.document(image_id), tuple(layers), raw)

    def _tar(self, row: Layer) -> Generator[bytes, None, None]:
        return layertar.pieces(self._disk.layer_folder(row.name), row.diff_id)

    def _tar_size(self, row: Layer) -> int:
        return layertar.size(self._disk.layer_folder(row.name))

    @contextmanager
    def _held(self, image_id: str) -> Iterator[PushImage]:
        """The image, its documents read and its layers safe from collection in the block."""
        with self._shelf.lock:
            rows = self._shelf.layers_of(image_id)
            image = self._push_image(image_id, rows)
            held = tuple(row.diff_id for row in rows)
            self._shelf.hold(held)
        try:
            yield image
        finally:
            self._shelf.release(held)

    # --------------------------------------------------------------------------------- registry

    def login(self, auth: RegistryAuth) -> None:
        """See `Transfers.login`."""
        server = auth.server_address or "https://index.docker.io/v1/"
        try:
            parts = urlsplit(server if "://" in server else f"//{server}")
        except ValueError as error:
            raise invalid(f"invalid registry address {public(server)[:200]!r}") from error
        domain = parts.netloc
        if not domain or parts.username is not None:
            raise invalid(f"invalid registry address {public(server)[:200]!r}")
        if domain in ("index.docker.io", "registry-1.docker.io"):
            domain = DEFAULT_DOMAIN
        target = reference.parse(f"{domain}/login/check")  # checks the domain
        bare = Reference(target.domain, "")
        Push(bare, auth, self._shelf, self._settings(), self._known, lambda _: None).login()

    def distribution(self, name: str, auth: RegistryAuth | None) -> Distribution:
        """See `Transfers.distribution`."""
        wanted = reference.parse(name).tagged()
        with self._asking(wanted, auth) as ask:
            top = ask(lambda found, cancel: found.manifest(wanted.digest or wanted.tag, cancel))
            decoded = manifest.decode(top.raw, top.content_type)
            if isinstance(decoded, Manifest):
                config = decoded.config
                raw = ask(lambda found, cancel: found.document(config, cancel))
                known = searching.platforms_of_config(raw)
            else:
                known = tuple(
                    (one.platform.os, one.platform.architecture, one.platform.variant)
                    for one in decoded.entries
                    if one.platform is not None
                )
        kind = searching.media_type(top.raw, top.content_type)
        return Distribution(top.digest, kind, len(top.raw), known)

    def tags(self, name: str, auth: RegistryAuth | None) -> list[str]:
        """All tags of a repository, in the registry's order."""
        wanted = reference.parse(name)
        with self._asking(wanted, auth) as ask:
            return ask(searching.tags)

    def search(self, term: str, limit: int, auth: RegistryAuth | None) -> list[SearchHit]:
        """See `Transfers.search`: docker.io's index, its mirror, or the registry that is named."""
        return searching.search(term, limit, auth, self._settings())

    @contextmanager
    def _asking(
        self, wanted: Reference, auth: RegistryAuth | None
    ) -> Iterator[Callable[[Callable[[Repository, Cancellation], _T]], _T]]:
        """Asks the endpoints in order until one answers, and then only that one."""
        settings, cancel = self._settings(), Cancellation("request")
        choices = list(registry.endpoints(wanted, settings, self._known))
        with closing(Connector(settings, cancel)) as connector:

            def ask(question: Callable[[Repository, Cancellation], _T]) -> _T:
                told: EngineError | None = None
                for endpoint in list(choices):
                    repository = Repository(connector, settings, endpoint, wanted, auth)
                    try:
                        answer = question(repository, cancel)
                    except EngineError as error:
                        told = searching.better(told, error)
                        continue
                    choices[:] = [endpoint]
                    return answer
                raise told or internal("no endpoint to ask")

            yield ask

    # ------------------------------------------------------------------------------------- save

    def save(self, names: Sequence[str], platform: str) -> Generator[bytes, None, None]:
        """See `Transfers.save`."""
        chosen: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            for image_id, tags in self._shelf.named(name):
                known = chosen.setdefault(image_id, [])
                known += [one for one in tags if one not in known]
        for image_id in chosen:
            self._check_platform(self._shelf.image(image_id), platform)
        return self._saved(chosen)

    def _saved(
        self, chosen: Mapping[str, Sequence[tuple[str, str]]]
    ) -> Generator[bytes, None, None]:
        held: list[tuple[str, ...]] = []
        try:
            images: list[SavedImage] = []
            for image_id, names in chosen.items():
                with self._shelf.lock:  # documents are not held: read before a removal comes
                    rows = self._shelf.layers_of(image_id)
                    held.append(tuple(row.diff_id for row in rows))
                    self._shelf.hold(held[-1])
                    images.append(self._saved_image(image_id, rows, tuple(names)))
            yield from saving.archive(images)
        finally:
            for diff_ids in held:
                self._shelf.release(diff_ids)

    def _saved_image(
        self, image_id: str, rows: Sequence[Layer], names: tuple[tuple[str, str], ...]
    ) -> SavedImage:
        image = self._shelf.image(image_id)
        platform = {"architecture": image.architecture, "os": image.os}
        if image.variant:
            platform["variant"] = image.variant
        layers = [
            SavedLayer(
                row.diff_id,
                self._tar_size(row),
                partial(self._tar, row),
            )
            for row in rows
        ]
        config = self._disk.document(image_id)
        return SavedImage(image_id, config, tuple(layers), names, platform)

    def _check_platform(self, image: Image, platform: str) -> None:
        if not platform:
            return
        wanted = platforms.parse(platform, self._machine)
        found = platforms.normalise(image.os, image.architecture, image.variant)
        if found != wanted:
            raise not_found(
                f"image {digests.short(image.id)} was found but does not provide the specified "
                f"platform ({wanted})"
            )

    # ------------------------------------------------------------------------------ load, import

    def load(
        self, read: Read, *, platform: str, quiet: bool, progress: Say, gone: Gone
    ) -> list[Image]:
        """See `Transfers.load`."""
        cancel = Cancellation("load")
        lines: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        wanted = platforms.parse(platform, self._machine) if platform else None
        loader = self._loader(cancel, lines.put, quiet=quiet)
        return followed(lambda: loader.load(read, wanted), cancel, lines, progress, gone)

    def import_tree(
        self, read: Read, request: ImportRequest, *, progress: Say, gone: Gone
    ) -> Image:
        """See `Transfers.import_tree`."""
        cancel = Cancellation("import")
        lines: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        platform = platforms.parse(request.platform, self._machine)
        loader = self._loader(cancel, lines.put, quiet=True)
        return followed(
            lambda: loader.import_tree(read, request, platform), cancel, lines, progress, gone
        )

    def _loader(self, cancel: Cancellation, say: Say, *, quiet: bool) -> Loader:
        settings = self._settings()
        builds = BuildLayers(self._disk, self._shelf, settings)
        store = Store(self._disk, self._shelf, self._jobs, builds, settings.limits)
        return Loader(store, cancel, say, quiet=quiet)

    # ------------------------------------------------------------------------------------- sizes

    def layer_sizes(self, name: str) -> list[int]:
        """See `Transfers.layer_sizes`."""
        with self._shelf.lock:
            return [row.size for row in self._shelf.layers_of(self._shelf.resolve(name))]

    def manifests(self, image_id: str) -> list[ManifestInfo]:
        """See `Transfers.manifests`."""
        with self._shelf.lock:
            image = self._shelf.image(image_id)
            own = self._shelf.manifest_of(image_id)
            names = [ref.suffix[1:] for ref in self._shelf.refs(image_id) if ref.canonical]
            tops = [raw for name in names if (raw := self._shelf.has_document(name)) is not None]
            size = len(self._disk.document(image_id))
        return [] if own is None else kinships.manifests(image, own, size, tops)

    def space(self) -> ImageSpace:
        """See `Transfers.space`."""
        return self._shelf.space()


def followed(
    work: Callable[[], _T],
    cancel: Cancellation,
    lines: queue.SimpleQueue[Progress | None],
    progress: Say,
    gone: Gone,
) -> _T:
    """Do it in a thread of its own while this one, the client's, forwards its lines."""
    results: list[_T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except (EngineError, OSError, sqlite3.Error) as error:
            errors.append(error)  # raised again in the client's thread
        finally:
            lines.put(None)

    thread = threading.Thread(target=run, name="transfer", daemon=True)
    thread.start()
    try:
        _forward(lines, progress, gone)
    except BaseException:
        cancel.cancel()
        thread.join(_END)  # what it had begun is taken back when this returns
        raise
    thread.join()
    if errors:
        raise _told(errors[0]) from errors[0]
    if not results:
        raise internal("the transfer failed unexpectedly (see the agent's log)")
    return results[0]


def _forward(lines: queue.SimpleQueue[Progress | None], progress: Say, gone: Gone) -> None:
    while True:
        if gone():
            raise cancelled("the client went away")
        try:
            line = lines.get(timeout=_TICK)
        except queue.Empty:
            continue
        if line is None:
            return
        progress(line)


def _told(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if isinstance(error, OSError):
        text = f"failed to store the image: {error.strerror or error}"
        return no_space(text) if error.errno in (errno.ENOSPC, errno.EDQUOT) else internal(text)
    return internal(f"the image database failed: {error}")
