"""`agent.engine.building.Builder`: one build from request to tags; commit; prune."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Sequence
from typing import Final

from agent.build import commits, context, instructions, parser
from agent.build import draft as drafts
from agent.build.cache import Cache, CacheStore
from agent.build.draft import Draft
from agent.build.scope import Build, World, orphans
from agent.build.stages import Stages
from agent.engine.building import (
    BuildOutput,
    BuildRequest,
    CommitRequest,
    Gone,
    Pruned,
)
from agent.engine.model import Container
from agent.errors import EngineError, Kind, invalid, not_implemented
from agent.host import tree
from agent.wire.streams import BodyReader, Duplex

# Frontends whose language is the one that is built here; any other would have to be run.
_OWN_SYNTAX: Final = ("docker/dockerfile", "docker/dockerfile-upstream")


class DockerBuilder:
    """The builder of one $ROOT.  Thread-safe: builds run beside each other."""

    def __init__(self, root: str, world: World, host: tuple[str, str, str]) -> None:
        """`root`: $ROOT/build; `host`: os, architecture, variant in Go's words."""
        self._work = os.path.join(root, "work")
        self._host = host
        self._world = dataclasses.replace(world, mounts=os.path.join(root, "mounts"))
        for folder in (root, self._world.mounts):
            tree.make_private(folder)
        tree.make_private(self._work)
        left = orphans(self._work)  # of builds that a dead agent ran
        if left:
            world.layers.release(left)
        for name in os.listdir(self._work):
            remove(os.path.join(self._work, name))
        self._store = CacheStore(os.path.join(root, "cache.db"))

    def session(self, token: str) -> Duplex:
        """See the port."""
        return self._world.sessions.offer(token)

    def close(self) -> None:
        self._store.close()

    # ------------------------------------------------------------------------------------ build

    def build(
        self, request: BuildRequest, context: BodyReader, output: BuildOutput, gone: Gone
    ) -> str:
        """See the port."""
        home = tempfile.mkdtemp(dir=self._work)
        try:
            return self._build(request, context, output, gone, home)
        finally:
            remove(home)

    def _build(
        self, request: BuildRequest, body: BodyReader, output: BuildOutput, gone: Gone, home: str
    ) -> str:
        names = [split_tag(one) for one in request.tags]
        for repo, tag in names:
            self._world.layers.check_tag(repo, tag)
        folder = os.path.join(home, "context")
        os.mkdir(folder, 0o755)
        found = context.load(request, body, self._world.layers, folder, gone)
        try:
            dockerfile = instructions.read(parser.parse(found.dockerfile, found.dockerfile_name))
            check_syntax(dockerfile.syntax)
            sources = self._sources(request.cache_from)
            cache = Cache(self._store, self._world.layers, sources, enabled=not request.no_cache)
            build = Build(
                self._world, request, dockerfile, found, cache, output, gone, folder_in(home)
            )
            return self._run(build, names)
        finally:
            os.close(found.root)

    def _run(self, build: Build, names: Sequence[tuple[str, str]]) -> str:
        stages = Stages(build, self._platform(build.request), self._host)
        try:
            try:
                done = stages.run()
            except EngineError as error:
                if error.kind is not Kind.CANCELLED:
                    self._keep(build, stages.tips)
                raise
            if not done.image_id:
                raise invalid("No image was generated. Is your Dockerfile empty?")
            build.check()
            self._forget_context(build)
            self._keep(build, [one for one in stages.tips if one.image_id != done.image_id])
            return self._finish(build, done, names)
        finally:
            self._world.layers.release(build.held)

    def _finish(self, build: Build, done: Draft, names: Sequence[tuple[str, str]]) -> str:
        image = self._world.layers.record(done.raw, names)
        build.cache.save()
        build.say(f"Successfully built {drafts.short(image.id)}\n")
        for repo, tag in names:
            build.say(f"Successfully tagged {repo}:{tag}\n")
        return image.id

    def _forget_context(self, build: Build) -> None:
        """Before the image is synced to disk: what is deleted need not be written back."""
        remove(build.context.folder)

    def _keep(self, build: Build, tips: Sequence[Draft]) -> None:
        """Stages, and what a failed build has got to, stay as images without a name, as docker's:
        the next build begins from them."""
        known = set()
        for one in tips:
            if not one.raw or one.image_id in known:
                continue
            known.add(one.image_id)
            with contextlib.suppress(EngineError):
                self._world.layers.record(one.raw, ())
        build.cache.save()

    def _sources(self, references: Sequence[str]) -> list[Draft]:
        found = []
        for name in references:
            with contextlib.suppress(EngineError):  # docker ignores those that are not there
                image = self._world.images.get(name)
                found.append(drafts.load(self._world.layers.document(image.id), image.id))
        return found

    def _platform(self, request: BuildRequest) -> dict[str, str]:
        """BuildKit's automatic platform arguments."""
        wanted = [*request.platform.lower().split("/"), "", ""] if request.platform else []
        target = (wanted[0], wanted[1] or self._host[1], wanted[2]) if wanted else self._host
        return {**platform_args("BUILD", self._host), **platform_args("TARGET", target)}

    # ----------------------------------------------------------------------------- commit, prune

    def commit(self, container: Container, request: CommitRequest) -> str:
        """See the port."""
        return commits.commit(self._world, container, request, self._host)

    def prune(self, *, everything: bool) -> Pruned:
        """RUN's cache folders and steps whose layers are gone; `everything`: all steps."""
        layers = self._world.layers
        gone: list[str] = []
        for key, image_id, raw in self._store.all():
            usable = not everything
            if usable:
                try:
                    usable = layers.has(drafts.load(raw, image_id).diff_ids)
                except EngineError:
                    usable = False
            if not usable:
                gone.append(key)
        self._store.forget(gone)
        space = 0
        names = sorted(os.listdir(self._world.mounts))
        with tree.opened(self._world.mounts) as parent:
            for name in names:
                space += _size(os.path.join(self._world.mounts, name))
                tree.remove_tree(parent, name)
        folders = [name for name in names if not name.endswith(".lock")]
        return Pruned((*gone, *folders), space)


def _size(path: str) -> int:
    """Bytes in regular files.  No recursion: a RUN may have made the tree as deep as it likes."""
    total, pending = 0, [path]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def remove(path: str) -> None:
    """A folder of ours with whatever a context put there (trees of any depth); what can't be
    removed now is tried again at the next start."""
    with contextlib.suppress(OSError), tree.opened(os.path.dirname(path)) as parent:
        tree.remove_tree(parent, os.path.basename(path))


def folder_in(home: str) -> str:
    """For mount points, volumes and downloads of one build."""
    path = os.path.join(home, "tmp")
    os.mkdir(path, 0o700)
    return path


def platform_args(prefix: str, platform: tuple[str, str, str]) -> dict[str, str]:
    system, architecture, variant = platform
    whole = "/".join(one for one in platform if one)
    return {
        f"{prefix}PLATFORM": whole,
        f"{prefix}OS": system,
        f"{prefix}ARCH": architecture,
        f"{prefix}VARIANT": variant,
    }


def check_syntax(syntax: str) -> None:
    """`# syntax=`: a frontend is a program that would be run with the engine's rights.  Docker's
    own languages are what is built here; others are refused (security case 77)."""
    if not syntax:
        return
    name = syntax.removeprefix("docker.io/").partition("@")[0].partition(":")[0]
    if name not in _OWN_SYNTAX:
        raise not_implemented(
            f"unsupported syntax directive: {syntax[:200]}: this engine builds the language of "
            "docker/dockerfile:1 itself and runs no other frontend; change or remove the line"
        )


def split_tag(text: str) -> tuple[str, str]:
    """ "repo:tag" -> (repo, tag or "latest").  INVALID for a digest or nothing."""
    if "@" in text or not text:
        raise invalid("invalid reference format")
    head, colon, tail = text.rpartition(":")
    if colon and "/" not in tail:
        if not head or not tail:
            raise invalid("invalid reference format")
        return head, tail
    return text, "latest"
