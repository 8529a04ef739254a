"""docker load and docker import: layers through the confined worker, all images or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime

from agent.engine.model import Image, Progress
from agent.engine.transfers import ImportRequest
from agent.errors import EngineError, invalid, not_found
from agent.images import archive, reference
from agent.images import digest as digests
from agent.images.ahead import Ahead
from agent.images.archive import ArchivedImage, ArchivedLayer
from agent.images.building import BuildLayers
from agent.images.cancel import Cancellation
from agent.images.disk import Disk
from agent.images.jobs import Fetch, LayerJob, LayerJobs, LayerTask
from agent.images.manifest import Descriptor
from agent.images.metadata import Ref
from agent.images.partial import Partial
from agent.images.platforms import Platform
from agent.images.settings import Limits
from agent.images.shelf import LocalShelf
from agent.images.spool import Spool
from agent.images.workerpool import Unpacked, Worker, WorkerGoneError
from agent.values import frozen
from agent.wire.http import public

_PIECE = 1 << 20
Read = Callable[[int], bytes]
Say = Callable[[Progress], None]


@frozen
class Store:
    """The parts of the store that a load fills."""

    disk: Disk
    shelf: LocalShelf
    jobs: LayerJobs
    builds: BuildLayers
    limits: Limits


class Loader:
    """One load or import.  Used by one thread."""

    def __init__(self, store: Store, cancel: Cancellation, say: Say, *, quiet: bool) -> None:
        self._disk = store.disk
        self._shelf = store.shelf
        self._jobs = store.jobs
        self._builds = store.builds
        self._limits = store.limits
        self._cancel = cancel
        self._say = say
        self._quiet = quiet

    # ------------------------------------------------------------------------------------- load

    def load(self, read: Read, platform: Platform | None) -> list[Image]:
        """Read the archive, check it all, unpack, then let the images appear."""
        folder = self._disk.stage_layer()
        try:
            with closing(Ahead(self._disk, self._shelf, self._limits)) as ahead:
                spool = Spool(folder, self._cancel, self._limits.reserve_bytes, ahead.begun)
                spool.fill(read)
                images = _chosen(archive.images(spool), platform)
                return self._appear(images, ahead)
        finally:
            self._disk.discard(folder)

    def _appear(self, images: list[ArchivedImage], ahead: Ahead) -> list[Image]:
        layers = [layer for image in images for layer in image.layers]
        held = tuple({layer.diff_id for layer in layers})
        self._shelf.hold(held)
        try:
            for layer in layers:
                if ahead.claim(layer.file, layer.diff_id, self._cancel) and not self._quiet:
                    size = layer.file.size
                    short = digests.short(layer.diff_id)
                    self._say(Progress("Loading layer", short, size, size))
            self._layers(layers)
            self._cancel.check()
            return [self._record(image) for image in images]
        finally:
            self._builds.release(held)  # what a failed load brought goes again

    def _layers(self, layers: Iterable[ArchivedLayer]) -> None:
        wanted: dict[str, LayerTask] = {}
        for layer in layers:
            if layer.diff_id in wanted or self._shelf.has_layer(layer.diff_id):
                continue
            blob = layer.blob or Descriptor("", layer.diff_id, layer.file.size)
            wanted[layer.diff_id] = LayerTask(layer.diff_id, blob, _fetcher(layer))
        listeners = {diff_id: self._listener(diff_id) for diff_id in wanted}
        jobs: list[tuple[str, LayerJob]] = []
        try:
            for diff_id, task in wanted.items():
                jobs.append((diff_id, self._jobs.get(task, listeners[diff_id])[0]))
            for _, job in jobs:
                while not job.done.wait(0.2):
                    self._cancel.check()
                if job.error is not None:
                    self._cancel.check()
                    raise job.error
        finally:
            for diff_id, job in jobs:
                job.leave(listeners[diff_id])

    def _listener(self, diff_id: str) -> Say:
        def listen(line: Progress) -> None:
            if line.status == "Downloading" and not self._quiet:
                short = digests.short(diff_id)
                self._say(Progress("Loading layer", short, line.current, line.total))

        return listen

    def _record(self, image: ArchivedImage) -> Image:
        named = tuple(dict.fromkeys(image.names))
        for one in named:
            self._tell_replaced(one.familiar, image.image_id)
        if image.manifest is None:
            found = self._builds.record(
                image.raw_config, [(one.familiar_name, one.tag) for one in named]
            )
        else:
            refs = [Ref(one.name, f":{one.tag}", image.image_id) for one in named]
            documents = (image.raw_config, image.manifest)
            found = self._shelf.record_built(image.image_id, documents, image.config.diff_ids, refs)
        if not named:
            self._say(Progress("", stream=f"Loaded image ID: {image.image_id}\n"))
        for one in named:
            self._say(Progress("", stream=f"Loaded image: {one.familiar}\n"))
        return found

    def _tell_replaced(self, name: str, image_id: str) -> None:
        try:
            old = self._shelf.resolve(name)
        except EngineError:
            return
        if old != image_id:
            text = f"The image {name} already exists, renaming the old one with ID {old} to "
            self._say(Progress("", stream=text + "empty string\n"))

    # ------------------------------------------------------------------------------------ import

    def import_tree(self, read: Read, request: ImportRequest, platform: Platform) -> Image:
        """A tar of a file system becomes an image of one layer."""
        tags: list[tuple[str, str]] = []
        if request.repo:
            reference.with_tag(request.repo, request.tag)  # checked before anything is read
            tags.append((request.repo, request.tag))
        staged = self._disk.stage_layer()
        try:
            report = self._unpack(staged, read, request.url)
        except BaseException:
            self._disk.discard(staged)
            raise
        with self._shelf.lock:
            self._shelf.commit_layer(report.diff_id, staged, report)
            self._shelf.hold((report.diff_id,))
        try:
            found = self._builds.record(_config(request, platform, report.diff_id), tags)
        finally:
            self._builds.release((report.diff_id,))
        self._say(Progress(found.id))
        return found

    def _unpack(self, staged: str, read: Read, url: str) -> Unpacked:
        space = os.statvfs(staged)
        # Its compressed size is not known: what may come of it is bounded by the disk alone.
        worker = Worker(staged, "", space.f_bavail * space.f_frsize, self._limits)
        try:
            with self._cancel.on_cancel(worker.kill):
                try:
                    if url:
                        self._say(Progress(f"Downloading from {public(url)}"))
                        self._builds.download(url, worker.feed, lambda: self._cancel.requested)
                    while piece := read(_PIECE):
                        self._cancel.check()
                        worker.feed(piece)
                except WorkerGoneError:
                    while read(_PIECE):  # the client wants to send it all
                        self._cancel.check()
                return worker.finish()
        finally:
            worker.close()


def _fetcher(layer: ArchivedLayer) -> Fetch:
    def fetch(
        blob: Descriptor,
        sink: Callable[[bytes], None],
        cancel: Cancellation,
        _kept: Partial | None,
    ) -> None:
        # Uncompressed, it is the diffID, which the worker checks.
        state = digests.hasher(blob.digest) if layer.blob and blob.digest != layer.diff_id else None
        for piece in layer.file.pieces():
            cancel.check()
            if state is not None:
                state.update(piece)
            sink(piece)
        if state is not None and state.hexdigest() != digests.split(blob.digest)[1]:
            raise invalid(f"invalid archive: blob {blob.digest} is not what its name says")

    return fetch


def _chosen(images: list[ArchivedImage], platform: Platform | None) -> list[ArchivedImage]:
    found = [one for one in images if platform is None or one.platform == platform]
    for one in found:
        if one.platform.os != "linux":
            raise invalid(
                f'image operating system "{one.platform.os[:64]}" cannot be used on this platform'
            )
    if not found:
        raise not_found(f"the archive has no image for the platform {platform}")
    return found


def _config(request: ImportRequest, platform: Platform, diff_id: str) -> bytes:
    now = datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    parts: dict[str, object] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": now,
        "comment": request.message,
        "config": dict(request.config_document),
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [archive.history_line(now, request.message)],
    }
    if platform.variant:
        parts["variant"] = platform.variant
    return archive.image_config(parts)
