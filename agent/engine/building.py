"""What a build is to the engine: the request, the builder's contract, and what a builder needs.

The docstrings are the law for `agent.build` (the builder), `agent.images` (layers, downloads) and
`agent.engine.buildruns` (RUN).  Everything blocks; `gone()` is asked often and means: stop, leave
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from agent.engine.model import Container, Image, Progress, RegistryAuth, Resources
from agent.engine.ports import Rootfs
from agent.errors import EngineError, Kind
from agent.values import frozen
from agent.wire.streams import BodyReader, Duplex

Gone = Callable[[], bool]


class CommandFailedError(EngineError):
    """A RUN ended with another code than 0; `code` goes into errorDetail."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(Kind.INTERNAL, message)
        self.code = code


@frozen
class BuildRequest:
    """POST /build, decoded.  `tags` as given; `build_args` None = "take it from nowhere"."""

    dockerfile: str = "Dockerfile"
    remote: str = ""
    tags: tuple[str, ...] = ()
    target: str = ""
    platform: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    quiet: bool = False
    no_cache: bool = False
    pull: bool = False
    network_mode: str = "default"
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    resources: Resources = field(default_factory=Resources)
    isolation_privileged: bool = False
    auths: Mapping[str, RegistryAuth] = field(default_factory=dict, repr=False)
    # By id, for RUN --mount=type=secret; never stored nor shown.
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    # Tokens of sessions by id, for RUN --mount=type=ssh.
    agents: Mapping[str, str] = field(default_factory=dict, repr=False)


@frozen
class CommitRequest:
    """POST /commit, decoded; `overrides` is the body's ContainerConfig (Docker-cased)."""

    container: str
    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    overrides: Mapping[str, object] = field(default_factory=dict)


@frozen
class Pruned:
    """POST /build/prune: what was deleted, and how many bytes."""

    deleted: tuple[str, ...]
    space: int


class BuildOutput(Protocol):
    """Where a build tells what it does; called from one thread at a time."""

    def stream(self, text: str) -> None: ...

    def progress(self, one: Progress) -> None: ...

    def aux(self, image_id: str) -> None: ...


class Builder(Protocol):
    """agent.build"""

    def build(
        self, request: BuildRequest, context: BodyReader, output: BuildOutput, gone: Gone
    ) -> str:
        """Build and tag; the image's id.

        INVALID for what is wrong with the request, context or Dockerfile, CommandFailedError for a
        RUN, CANCELLED when the client went.  Steps that were done stay in the cache after a
        failure; after CANCELLED nothing is left.
        """
        ...

    def commit(self, container: Container, request: CommitRequest) -> str:
        """An image of a container's files; its id.  The container must not run meanwhile."""
        ...

    def prune(self, *, everything: bool) -> Pruned: ...

    def session(self, token: str) -> Duplex:
        """A client's SSH agent, for builds whose request has the token, until it is closed."""
        ...

    def close(self) -> None: ...


class Layers(Protocol):
    """Layers and images as a build makes them (agent.images)."""

    def document(self, image_id: str) -> bytes:
        """The image's configuration, as stored."""
        ...

    def check_tag(self, repo: str, tag: str) -> None:
        """INVALID when no image can have that name."""
        ...

    def has(self, diff_ids: Sequence[str]) -> bool: ...

    def hold(self, diff_ids: Sequence[str]) -> None:
        """Keep from collection until `release`.  CONFLICT when one is not there."""
        ...

    def release(self, diff_ids: Sequence[str]) -> None:
        """Those that no image, container or build needs are removed."""
        ...

    def lower(self, diff_ids: Sequence[str]) -> tuple[str, ...]:
        """Their folders, top first, without the init layer."""
        ...

    def init(self) -> str:
        """The layer that lies on top of every container's image."""
        ...

    def stage(self, diff_ids: Sequence[str]) -> str:
        """A new folder with an empty `diff` (the root's owner and mode as below) and `work`."""
        ...

    def discard(self, folder: str) -> None:
        """A staged folder is given up."""
        ...

    def commit(self, folder: str) -> str:
        """The staged `diff` becomes a layer by rename, held once by the caller; its diffID.

        No tar is kept: the diffID is the digest of the tar that would be made
        (`agent.images.treelayer`), computed
        while reading the tree once.
        """
        ...

    def record(self, config: bytes, tags: Sequence[tuple[str, str]]) -> Image:
        """Make an image of a configuration whose layers are there; durable on return.
        `tags`: (repository, tag) pairs."""
        ...

    def download(self, url: str, sink: Callable[[bytes], None], gone: Gone) -> tuple[str, str, int]:
        """GET with the registry client's rules (no private addresses by redirect, bounded).

        Returns (final URL, Content-Type, Last-Modified in ns or 0).
        """
        ...


class Runs(Protocol):
    """Containers of RUN (agent.engine.buildruns)."""

    def run(
        self,
        container: Container,
        rootfs: Rootfs,
        output: Callable[[int, bytes], None],
        gone: Gone,
    ) -> int:
        """Run to the end and remove all of it but the root's files; the exit code.

        Confined as any container.  CANCELLED when the client went: then it was killed.
        """
        ...
