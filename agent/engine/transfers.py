"""Images on their way in and out: the port that agent.images satisfies, and the use cases over it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Protocol

from agent.engine.model import Image, Progress, RegistryAuth
from agent.values import frozen

Say = Callable[[Progress], None]
Gone = Callable[[], bool]
Read = Callable[[int], bytes]  # at most so many bytes, b"" at the end


@frozen
class Distribution:
    """What a registry says of a name (API DistributionInspect)."""

    digest: str
    media_type: str
    size: int
    platforms: tuple[tuple[str, str, str], ...]  # os, architecture, variant


@frozen
class SearchHit:
    """One line of docker search."""

    name: str
    description: str
    stars: int
    official: bool


@frozen
class ImportRequest:
    """POST /images/create?fromSrc: `repo` "" = no name; `config_document` is
    the image's `config` as the changes make it; `url` "" = the tar is the body."""

    repo: str
    tag: str
    message: str
    platform: str
    config_document: Mapping[str, object]
    url: str = ""


@frozen
class ImageSpace:
    """Bytes on disk.  `shared`: of layers that another image has too."""

    sizes: Mapping[str, int]
    shared: Mapping[str, int]
    layers: int  # all of them, each once


@frozen
class ManifestInfo:
    """One manifest that an image's name stands for (API ImageManifestSummary); sizes in bytes."""

    digest: str
    media_type: str
    size: int  # of the manifest itself
    kind: str  # "image" | "attestation" | "unknown"
    platform: tuple[str, str, str]  # os, architecture, variant
    about: str = ""  # an attestation's image
    available: bool = False
    content: int = 0  # documents that are here
    unpacked: int = 0


class Transfers(Protocol):
    """Push, save, load, import, login, search.  All block; `gone` ends them soon (CANCELLED)."""

    def push(
        self, name: str, tag: str, *, auth: RegistryAuth | None, progress: Say, gone: Gone
    ) -> list[str]:
        """Push name:tag, or every tag of the name when `tag` is "".  Returns the tags.

        NOT_FOUND "An image does not exist locally with the tag: NAME".
        """
        ...

    def tags(self, name: str, auth: RegistryAuth | None) -> list[str]:
        """All tags that a registry has of a repository."""
        ...

    def login(self, auth: RegistryAuth) -> None:
        """UNAUTHORIZED when the registry does not take these credentials."""
        ...

    def distribution(self, name: str, auth: RegistryAuth | None) -> Distribution: ...

    def search(self, term: str, limit: int, auth: RegistryAuth | None) -> list[SearchHit]: ...

    def save(self, names: Sequence[str], platform: str) -> Generator[bytes, None, None]:
        """Names that do not exist are found before the first byte (NOT_FOUND)."""
        ...

    def load(
        self, read: Read, *, platform: str, quiet: bool, progress: Say, gone: Gone
    ) -> list[Image]:
        """All images of an archive or none."""
        ...

    def import_tree(
        self, read: Read, request: ImportRequest, *, progress: Say, gone: Gone
    ) -> Image: ...

    def layer_sizes(self, reference: str) -> list[int]:
        """Bytes of each layer, base first."""
        ...

    def manifests(self, image_id: str) -> list[ManifestInfo]:
        """In the index's order; one for an image without an index."""
        ...

    def space(self) -> ImageSpace: ...
