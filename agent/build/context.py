"""The build context: a private folder with what the client sent (or a URL or git gave).

Unpacked by the confined unpacker of agent.host (security case 70), bounded by the free space.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from agent.build import gitcontext
from agent.build.parser import MAX_BYTES
from agent.engine.building import BuildRequest, Gone, Layers
from agent.errors import EngineError, Kind, cancelled, invalid, no_space
from agent.host import openat, tree
from agent.host.decompress import DecompressError
from agent.host.inflate import inflated
from agent.host.tarheader import TarError
from agent.host.untar import Rules, Untar
from agent.wire.ignorefile import PatternError, Patterns, lines
from agent.wire.streams import BodyReader

_PIECE = 256 << 10
_RESERVE = 256 << 20  # bytes left free on the file system
_RATIO = 200  # unpacked bytes for each one received, ...
_FLOOR = 1 << 30  # ... but so many always
_IGNORE_LIMIT = 4 << 20
_GIT = re.compile(r"(?:git://|git@|github\.com/).+|https?://.+\.git(?:#.*)?", re.DOTALL)


@dataclass(frozen=True)
class Context:
    """`root`: descriptor of the folder; `folder`: its absolute path."""

    root: int
    folder: str
    dockerfile: bytes
    dockerfile_name: str


@dataclass(frozen=True)
class Budget:
    """How far a stream may unpack."""

    folder: str

    def limited(self, pieces: Iterator[bytes], received: Callable[[], int]) -> Iterator[bytes]:
        """The pieces; NO_SPACE or INVALID when they are too many."""
        space = os.statvfs(self.folder)
        free = space.f_bavail * space.f_frsize - _RESERVE
        total = 0
        for piece in pieces:
            total += len(piece)
            if total > free:
                raise no_space("no space left on device for the build context")
            if total > max(_FLOOR, received() * _RATIO):
                raise invalid("the archive unpacks to far more than it is: refused")
            yield piece


class Reader:
    """Bytes of a body, counted; CANCELLED when the client went."""

    def __init__(self, read: Callable[[int], bytes], gone: Gone) -> None:
        self._read = read
        self._gone = gone
        self.total = 0

    def __call__(self) -> bytes:
        if self._gone():
            raise cancelled("the build was cancelled: the client has gone")
        data = self._read(_PIECE)
        self.total += len(data)
        return data


def unpack(read: Callable[[int], bytes], root: int, folder: str, gone: Gone) -> None:
    """An archive into the folder behind `root`.  INVALID with the entry's name when it is bad."""
    unpack_into(read, (root, b""), folder, Rules(), gone)


def unpack_into(
    read: Callable[[int], bytes], place: tuple[int, bytes], folder: str, rules: Rules, gone: Gone
) -> None:
    """Like `unpack`, below a path in a root; `folder` tells the file system that fills."""
    source = Reader(read, gone)
    try:
        pieces = Budget(folder).limited(inflated(source), lambda: source.total)
        Untar(place[0], place[1], pieces, rules).run()
    except (TarError, DecompressError) as error:
        raise invalid(f"Error processing tar file: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(f"no space left on device: {error.strerror}") from error
        raise


def load(
    request: BuildRequest, body: BodyReader, layers: Layers, folder: str, gone: Gone
) -> Context:
    """Fill `folder` (empty, ours) and find the Dockerfile."""
    url = request.remote.startswith(("http://", "https://"))
    git = _GIT.fullmatch(request.remote) is not None
    if request.remote and not url and not git:
        raise invalid(f"unsupported remote build context: {gitcontext.shown(request.remote)}")
    root = os.open(folder, openat.DIRECTORY)
    try:
        subfolder, alone = "", False
        if not request.remote:
            unpack(body.read, root, folder, gone)
        elif git:
            subfolder = gitcontext.fetch(request.remote, folder, gone)
        else:
            alone = _download(request, layers, root, folder, gone)
        if subfolder:
            inner = openat.open_in_root(root, os.fsencode(subfolder), openat.DIRECTORY)
            os.close(root)
            root = inner
            folder = os.readlink(f"/proc/self/fd/{root}")
        return _found(root, folder, "Dockerfile" if alone else request.dockerfile)
    except FileNotFoundError as error:
        os.close(root)
        said = gitcontext.shown(request.remote)
        raise invalid(f"path not found in the build context: {said}") from error
    except BaseException:
        with suppress(OSError):
            os.close(root)
        raise


def _download(request: BuildRequest, layers: Layers, root: int, folder: str, gone: Gone) -> bool:
    """A URL: an archive, or one text file that is the Dockerfile (then True)."""
    temporary = f"{folder}.download"
    limit = os.statvfs(folder)
    free = limit.f_bavail * limit.f_frsize - _RESERVE
    try:
        with open(temporary, "xb") as file:

            def sink(piece: bytes) -> None:
                if file.tell() + len(piece) > free:
                    raise no_space("no space left on device for the build context")
                file.write(piece)

            _, kind, _ = layers.download(request.remote, sink, gone)
        with open(temporary, "rb") as source:
            if kind.startswith("text/"):
                raw = source.read(MAX_BYTES + 1)
                tree.write_atomic(folder, "Dockerfile", raw, 0o644)
                return True
            unpack(source.read, root, folder, gone)
        return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _found(root: int, folder: str, name: str) -> Context:
    wanted = posixpath.normpath(name or "Dockerfile").lstrip("/")
    if wanted == ".." or wanted.startswith("../"):
        raise invalid(f"Forbidden path outside the build context: {name} ()")
    for candidate in (wanted, *(("dockerfile",) if wanted == "Dockerfile" else ())):
        try:
            raw = tree.read_regular(root, os.fsencode(candidate), MAX_BYTES)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise invalid(f"the Dockerfile is larger than {MAX_BYTES} bytes") from error
            continue
        _hide_ignored(root, candidate)
        return Context(root, folder, raw, candidate)
    raise EngineError(Kind.INVALID, f"Cannot locate specified Dockerfile: {name or 'Dockerfile'}")


def _hide_ignored(root: int, dockerfile: str) -> None:
    """The client sends Dockerfile and .dockerignore even when they are ignored: COPY must not
    see them then (moby's removeDockerfile)."""
    try:
        raw = tree.read_regular(root, b".dockerignore", _IGNORE_LIMIT)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise invalid(".dockerignore is too large") from error
        return
    try:
        patterns = Patterns(lines(raw.decode("utf-8", "replace")))
        hidden = [one for one in (dockerfile, ".dockerignore") if patterns.matches(one)]
    except PatternError as error:
        raise invalid(f"error reading .dockerignore: {error}") from error
    for path in hidden:
        folder, _, name = path.rpartition("/")
        with suppress(OSError):
            parent = openat.open_in_root(root, os.fsencode(folder), openat.DIRECTORY)
            try:
                os.unlink(name, dir_fd=parent)
            finally:
                os.close(parent)
