"""A kept layer as the very tar that it came from, streamed and verified (for save and push)."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing

from agent.errors import EngineError, data_loss
from agent.host import openat
from agent.images import digest as digests
from agent.images import recipe
from agent.images.recipe import Body, RecipeError

_PIECE = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def size(folder: str) -> int:
    """Bytes of the layer's tar.  DATA_LOSS without a usable recipe."""
    try:
        fd = os.open(os.path.join(folder, recipe.NAME), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return recipe.tar_size(fd)
        finally:
            os.close(fd)
    except (OSError, RecipeError) as error:
        raise _lost(folder) from error


def pieces(folder: str, diff_id: str) -> Generator[bytes, None, None]:
    """The tar of the layer in `folder` ($ROOT/layers/NAME), in pieces of about 1 MiB.

    Raises DATA_LOSS, at the latest after the last piece, when it is not what `diff_id` names.
    """
    state = digests.hasher(diff_id)
    with closing(_gathered(_LayerReader(folder))) as found:
        for piece in found:
            state.update(piece)
            yield piece
    if state.hexdigest() != digests.split(diff_id)[1]:
        raise data_loss(f"layer {diff_id} is damaged: remove the image and pull it again")


def _gathered(reader: _LayerReader) -> Generator[bytes, None, None]:
    gathered = bytearray()
    with closing(reader):
        for part in reader.parts():
            if not gathered and len(part) >= _PIECE:
                yield part
                continue
            gathered += part
            if len(gathered) >= _PIECE:
                yield bytes(gathered)
                gathered.clear()
    if gathered:
        yield bytes(gathered)


class _LayerReader:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: list[int] = []
        self._moved: dict[int, bytes] | None = None
        try:
            self._recipe = self._held(os.path.join(folder, recipe.NAME), os.O_RDONLY)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            self._root = self._held(os.path.join(folder, "diff"), flags)
            self._layer = self._held(folder, flags)
            recipe.tar_size(self._recipe)
        except (OSError, RecipeError) as error:
            self.close()
            raise _lost(folder) from error

    def _held(self, path: str, flags: int) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC)
        self._open.append(fd)
        return fd

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def parts(self) -> Iterator[bytes]:
        try:
            for record in recipe.read(self._recipe):
                if isinstance(record, Body):
                    yield from self._contents(record)
                else:
                    yield record
        except (OSError, RecipeError) as error:
            raise _lost(self._folder) from error

    def _contents(self, body: Body) -> Iterator[bytes]:
        fd = self._find(body)
        try:
            left = body.size
            while left:
                piece = os.read(fd, min(left, _PIECE))
                if not piece:
                    raise RecipeError("a file is shorter than it was")
                left -= len(piece)
                yield piece
        finally:
            os.close(fd)

    def _find(self, body: Body) -> int:
        try:
            fd = openat.open_in_root(self._root, body.path, _OPEN)
        except OSError:
            return self._elsewhere(body)
        if os.fstat(fd).st_ino == body.inode:
            return fd
        os.close(fd)
        return self._elsewhere(body)

    def _elsewhere(self, body: Body) -> int:
        """A later member of the layer took its place or its parent's."""
        if self._moved is None:
            self._moved = dict(_inodes(self._folder))
        path = self._moved.get(body.inode)
        if path is None:
            raise RecipeError("a file is missing")
        return openat.open_real(self._layer, path, _OPEN)


def _inodes(folder: str) -> Iterator[tuple[int, bytes]]:
    top = os.fsencode(folder)
    pending = [os.fsencode(name) for name in (recipe.KEPT, "diff")]
    while pending:
        path = pending.pop()
        try:
            entries = list(os.scandir(os.path.join(top, path)))
        except FileNotFoundError:
            continue
        for entry in entries:
            where = os.path.join(path, entry.name)
            if entry.is_dir(follow_symlinks=False):
                pending.append(where)
            elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                yield entry.inode(), where


def _lost(folder: str) -> EngineError:
    name = os.path.basename(folder)
    return data_loss(
        f"layer {name} can't be written out (it is damaged, or from an older agent): "
        "remove the image and pull it again"
    )
