"""`agent.engine.ports.Images`: pull, look up, tag, remove (docker's classic image_delete rules)."""

from __future__ import annotations

import errno
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence

from agent.engine.model import Image, Progress, RegistryAuth
from agent.engine.ports import Removed
from agent.errors import EngineError, cancelled, conflict, internal, no_space
from agent.images import digest as digests
from agent.images import reference
from agent.images.building import BuildLayers
from agent.images.disk import Disk
from agent.images.jobs import LayerJobs
from agent.images.metadata import Ref
from agent.images.pull import Flights, Pull, PullRequest
from agent.images.settings import RegistrySettings
from agent.images.shelf import LocalShelf
from agent.images.transfers import ImageTransfers

_TICK = 0.1  # seconds between looks at `cancelled`
Users = Callable[[str], Sequence[tuple[str, bool]]]


class ImageStore:
    """The image store and registry client.  Thread-safe."""

    def __init__(
        self, disk: Disk, shelf: LocalShelf, settings: RegistrySettings, machine: str = ""
    ) -> None:
        self._disk = disk
        self._shelf = shelf
        self._settings = settings
        self._machine = machine or os.uname().machine
        self._jobs = LayerJobs(disk, shelf, settings.limits, settings.parallel_layers)
        self._flights = Flights()

    def layers(self) -> BuildLayers:
        """The same store, as builds and commits see it."""
        return BuildLayers(self._disk, self._shelf, self._settings)

    def transfers(self) -> ImageTransfers:
        """The same store, as push, save and load see it."""
        return ImageTransfers(
            self._disk, self._shelf, self._jobs, lambda: self._settings, self._machine
        )

    # ------------------------------------------------------------------------------------- pull

    def pull(
        self,
        reference: str,
        *,
        platform: str,
        auth: RegistryAuth | None,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> Image:
        """See `ports.Images.pull`.  `progress` is only called from this thread."""
        lines: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        request = PullRequest(_parse(reference).tagged(), platform, auth)
        pull = Pull(
            request,
            self._shelf,
            self._jobs,
            self._flights,
            self._settings,
            self._machine,
            lines.put,
        )
        outcome = _Outcome(pull, lines)
        try:
            outcome.follow(progress, cancelled)
        finally:
            pull.cancel.cancel()  # no effect on what is done
        return outcome.result()

    # ----------------------------------------------------------------------------------- lookup

    def get(self, reference: str) -> Image:
        """See `ports.Images.get`."""
        return self._shelf.image(self._shelf.resolve(reference))

    def all(self) -> list[Image]:
        """Newest pulled first; an image whose config is damaged is left out."""
        found: list[Image] = []
        for image_id in self._shelf.image_ids():
            try:
                found.append(self._shelf.image(image_id))
            except EngineError:
                continue  # one broken object never hides the others
        return found

    def tag(self, source: str, repo: str, tag: str) -> Image:
        """Point repo:tag ("" = latest) at an image."""
        with self._shelf.lock:
            image_id = self._shelf.resolve(source)
            target = reference.with_tag(repo, tag)
            self._shelf.set_ref(Ref(target.name, f":{target.tag}", image_id))
            return self._shelf.image(image_id)

    # ----------------------------------------------------------------------------------- remove

    def remove(self, reference: str, *, force: bool, users: Users) -> list[Removed]:
        """See `ports.Images.remove`; texts and order are docker's."""
        with self._shelf.lock:
            image_id = self._shelf.resolve(reference)
            using = users(image_id)
            if _is_id_prefix(image_id, reference):
                return self._remove_by_id(image_id, force=force, using=using)
            return self._remove_by_name(image_id, reference, force=force, using=using)

    def _remove_by_name(
        self, image_id: str, text: str, *, force: bool, using: Sequence[tuple[str, bool]]
    ) -> list[Removed]:
        refs = self._shelf.refs(image_id)
        if not force and using and single_reference(refs):
            raise conflict(
                f'conflict: unable to remove repository reference "{text}" (must force) - '
                f"container {digests.short(using[0][0])} is using its referenced image "
                f"{digests.short(image_id)}"
            )
        named = reference.parse(text).tagged()
        suffix = f"@{named.digest}" if named.digest else f":{named.tag}"
        going = [ref for ref in refs if (ref.name, ref.suffix) == (named.name, suffix)]
        left = [ref for ref in refs if ref not in going]
        tagged = any(ref.name == named.name and not ref.canonical for ref in left)
        if not named.digest and not tagged:
            going += [ref for ref in left if ref.name == named.name]
            left = [ref for ref in left if ref not in going]
        if left or any(running for _, running in using):
            self._shelf.remove_refs(going)
            return _untagged(going)
        if using and not force:
            self._shelf.remove_refs(going)
            return _untagged(going)
        return _untagged(going) + self._delete(image_id)

    def _remove_by_id(
        self, image_id: str, *, force: bool, using: Sequence[tuple[str, bool]]
    ) -> list[Removed]:
        refs = self._shelf.refs(image_id)
        running = [container_id for container_id, alive in using if alive]
        if running:
            raise _conflict(
                image_id,
                f"image is being used by running container {digests.short(running[0])}",
                hard=True,
            )
        if not force and not single_reference(refs):
            raise _conflict(image_id, "image is referenced in multiple repositories")
        if not force and using:
            raise _conflict(
                image_id, f"image is being used by stopped container {digests.short(using[0][0])}"
            )
        return _untagged(refs) + self._delete(image_id)

    def _delete(self, image_id: str) -> list[Removed]:
        layers = self._shelf.remove_image(image_id)
        return [Removed(deleted=image_id)] + [Removed(deleted=chain_id) for chain_id in layers]

    def reconfigure(self, settings: RegistrySettings) -> None:
        """Pulls that begin from now on use these (the agent's SIGHUP)."""
        self._settings = settings

    def close(self) -> None:
        """Wait for deletions that were begun, and close the database."""
        self._disk.reaper.close()
        self._shelf.close()


class _Outcome:
    """A pull in its own thread, and what came of it."""

    def __init__(self, pull: Pull, lines: queue.SimpleQueue[Progress | None]) -> None:
        self._pull = pull
        self._lines = lines
        self._image: Image | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="pull", daemon=True).start()

    def _run(self) -> None:
        try:
            self._image = self._pull.run()
        except (EngineError, OSError, sqlite3.Error) as error:
            self._error = error  # raised again in the client's thread
        finally:
            self._lines.put(None)

    def follow(self, progress: Callable[[Progress], None], gone: Callable[[], bool]) -> None:
        """Forward lines until the pull ends; CANCELLED as soon as the client is gone."""
        while True:
            if gone():
                raise cancelled("pull was cancelled")
            try:
                line = self._lines.get(timeout=_TICK)
            except queue.Empty:
                continue
            if line is None:
                return
            progress(line)

    def result(self) -> Image:
        if isinstance(self._error, OSError):
            raise _host_trouble(self._error) from self._error
        if isinstance(self._error, sqlite3.Error):
            raise internal(f"the image database failed: {self._error}") from self._error
        if self._error is not None:
            raise self._error
        if self._image is None:
            raise internal("the pull ended without a result")
        return self._image


def single_reference(refs: Sequence[Ref]) -> bool:
    """moby's isSingleReference: at most one tag, and digests only of that same repository."""
    if len(refs) <= 1:
        return True
    tags = [ref for ref in refs if not ref.canonical]
    if len(tags) > 1:
        return False
    names = {ref.name for ref in refs if ref.canonical}
    first = tags[0] if tags else refs[0]
    return names == {first.name}


def _host_trouble(error: OSError) -> EngineError:
    text = f"failed to store the image: {error.strerror or error}"
    return no_space(text) if error.errno in (errno.ENOSPC, errno.EDQUOT) else internal(text)


def _parse(text: str) -> reference.Reference:
    return reference.parse(text)


def _is_id_prefix(image_id: str, text: str) -> bool:
    return image_id.startswith(text) or image_id.removeprefix("sha256:").startswith(text)


def _untagged(refs: Sequence[Ref]) -> list[Removed]:
    return [Removed(untagged=reference.familiar(ref.name) + ref.suffix) for ref in refs]


def _conflict(image_id: str, reason: str, *, hard: bool = False) -> EngineError:
    how = "cannot be forced" if hard else "must be forced"
    return conflict(f"conflict: unable to delete {digests.short(image_id)} ({how}) - {reason}")
