"""Scrub: everything that images keep on disk, hashed again and compared with what it should be.

Documents against the digests in their names; layers by making their tars again (the diffID covers
every file's contents) and by comparing the tree with the tar's headers (kind, mode, owner, link).
Only reads, and runs beside a serving agent; what is removed meanwhile is no damage.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing

from agent.errors import EngineError
from agent.host import openat, tree
from agent.images import digest as digests
from agent.images import extract, layertar, recipe, tarheader
from agent.images.tarheader import Entry, Headers, TarError, padded
from agent.values import frozen

_KINDS = {
    tarheader.REGULAR: stat.S_IFREG,
    tarheader.HARD: 0,  # what it is a name of
    tarheader.SYMLINK: stat.S_IFLNK,
    tarheader.CHAR: stat.S_IFCHR,
    tarheader.BLOCK_DEVICE: stat.S_IFBLK,
    tarheader.DIRECTORY: stat.S_IFDIR,
    tarheader.FIFO: stat.S_IFIFO,
}
_LOOK = os.O_PATH | os.O_NOFOLLOW
_LIMIT = 16 << 20  # the largest document
_PATHS = 4096
_PIECE = 1 << 20


@frozen
class Damage:
    """One damaged thing: a document or a layer, and the images that have it."""

    what: str  # "layer" | "document"
    digest: str
    reason: str
    images: tuple[str, ...]


@frozen
class Checked:
    """What was looked at."""

    layers: int
    documents: int
    damaged: tuple[Damage, ...]


def scrub(root: str) -> Iterator[Damage | Checked]:
    """Damage as it is found, then one Checked.  `root`: the agent's data folder.

    Raises OSError, sqlite3.Error when the store can't be read at all.
    """
    with closing(_Catalogue(os.path.join(root, "images", "images.db"))) as catalogue:
        damaged: list[Damage] = []
        documents = layers = 0
        for digest, path in _documents(os.path.join(root, "images", "blobs")):
            documents += 1
            reason = _check_document(digest, path)
            if reason and os.path.exists(path):
                damaged.append(Damage("document", digest, reason, catalogue.with_document(digest)))
                yield damaged[-1]
        for diff_id, name in catalogue.layers():
            layers += 1
            reason = check_layer(os.path.join(root, "layers", name), diff_id)
            if reason and catalogue.has(diff_id, name):
                damaged.append(Damage("layer", diff_id, reason, catalogue.with_layer(diff_id)))
                yield damaged[-1]
        yield Checked(layers, documents, tuple(damaged))


def forget(root: str, damaged: tuple[Damage, ...]) -> None:
    """Have damaged layers fetched anew by the next pull of an image that has them.

    The folders stay for the containers that use them; the agent's next start removes the others.
    """
    path = os.path.join(root, "images", "images.db")
    with closing(sqlite3.connect(path, timeout=10)) as database, database:
        database.executemany(
            "DELETE FROM layers WHERE diff_id = ?",
            [(one.digest,) for one in damaged if one.what == "layer"],
        )


class _Catalogue:
    """images.db, read only."""

    def __init__(self, path: str) -> None:
        if not os.path.exists(path):
            raise FileNotFoundError(2, "there is no image store", path)
        self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)

    def close(self) -> None:
        self._database.close()

    def layers(self) -> list[tuple[str, str]]:
        rows = self._database.execute("SELECT diff_id, name FROM layers ORDER BY diff_id")
        return [(str(row[0]), str(row[1])) for row in rows]

    def has(self, diff_id: str, name: str) -> bool:
        query = "SELECT 1 FROM layers WHERE diff_id = ? AND name = ?"
        return self._database.execute(query, (diff_id, name)).fetchone() is not None

    def with_layer(self, diff_id: str) -> tuple[str, ...]:
        query = "SELECT DISTINCT image_id FROM image_layers WHERE diff_id = ?"
        return self._named(query, diff_id)

    def with_document(self, digest: str) -> tuple[str, ...]:
        query = "SELECT id FROM images WHERE id = ?1 OR manifest = ?1"
        return self._named(query, digest)

    def _named(self, query: str, value: str) -> tuple[str, ...]:
        found: list[str] = []
        for (image_id,) in self._database.execute(query, (value,)).fetchall():
            rows = self._database.execute(
                "SELECT name || suffix FROM refs WHERE image_id = ? ORDER BY 1", (image_id,)
            )
            found += [str(row[0]) for row in rows] or [str(image_id)]
        return tuple(found)


def _documents(folder: str) -> Iterator[tuple[str, str]]:
    for algorithm in sorted(os.listdir(folder)):
        for name in sorted(os.listdir(os.path.join(folder, algorithm))):
            digest = f"{algorithm}:{name}"
            if digests.valid(digest):
                yield digest, os.path.join(folder, algorithm, name)


def _check_document(digest: str, path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(_LIMIT)
    except OSError as error:
        return error.strerror or str(error)
    return "" if digests.matches(raw, digest) else "its contents do not match its digest"


def check_layer(folder: str, diff_id: str) -> str:
    """What is wrong with a layer's folder; "" = nothing."""
    try:
        reader = _Reader(layertar.pieces(folder, diff_id))
        with tree.opened(os.path.join(folder, "diff")) as root:
            _Comparison(root, simple=not os.path.exists(os.path.join(folder, recipe.KEPT))).run(
                reader
            )
    except EngineError as error:
        return error.message
    except (TarError, OSError) as error:
        return str(error)
    return ""


class _Reader:
    """A tar's pieces as a thing to take bytes from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._view = memoryview(b"")

    def _fill(self) -> bool:
        self._view = memoryview(next(self._pieces, b""))
        return bool(self._view)

    def take(self, size: int) -> bytes:
        gathered = bytearray()
        while size and (self._view or self._fill()):
            part = self._view[:size]
            self._view = self._view[len(part) :]
            gathered += part
            size -= len(part)
        return bytes(gathered)

    def skip(self, size: int) -> None:
        while size and (self._view or self._fill()):
            passed = min(size, len(self._view))
            self._view = self._view[passed:]
            size -= passed

    def drain(self) -> None:
        while self._fill():
            pass


class _Comparison:
    """The tree below `root` against the headers of its tar.

    `simple`: no member replaced another, so every header must be true.  Else only the contents are
    compared (by the diffID).
    """

    def __init__(self, root: int, *, simple: bool) -> None:
        self._root = root
        self._simple = simple
        self._folders: dict[bytes, Entry] = {}

    def run(self, reader: _Reader) -> None:
        headers = Headers(reader.take, sparse=True)
        while (entry := headers.next()) is not None:
            if self._simple:
                self._member(entry)
            if self._simple and entry.sparse is not None:
                self._compare_runs(reader, entry, entry.sparse)
                reader.skip(padded(entry.size) - entry.size)
            else:
                reader.skip(padded(entry.size))
        reader.drain()
        for path, entry in self._folders.items():
            self._compare(path, entry)

    def _compare_runs(self, reader: _Reader, entry: Entry, runs: tarheader.Runs) -> None:
        """A sparse file's bytes are in the recipe: the diffID says nothing of the file's."""
        path = b"/".join(extract.split(entry.name, _PATHS))
        fd = openat.open_in_root(self._root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            for offset, count in runs:
                for start in range(offset, offset + count, _PIECE):
                    size = min(_PIECE, offset + count - start)
                    if reader.take(size) != os.pread(fd, size, start):
                        raise TarError(f"{extract.shown(path)} has other bytes than it should have")
        finally:
            os.close(fd)

    def _member(self, entry: Entry) -> None:
        parts = extract.split(entry.name, _PATHS)
        path = b"/".join(parts)
        if not parts or any(part.startswith(b".wh.") for part in parts):
            return
        if entry.kind == tarheader.DIRECTORY:
            self._folders[path] = entry  # the last one counts
        else:
            self._compare(path, entry)

    def _compare(self, path: bytes, entry: Entry) -> None:
        try:
            fd = openat.open_in_root(self._root, path, _LOOK)
        except OSError as error:
            raise TarError(f"{extract.shown(path)} is missing ({error.strerror})") from error
        try:
            info = os.fstat(fd)
            if wrong := _difference(info, entry):
                raise TarError(f"{extract.shown(path)} has another {wrong} than it should have")
            if entry.kind == tarheader.SYMLINK and os.readlink(b"", dir_fd=fd) != entry.link:
                raise TarError(f"{extract.shown(path)} leads elsewhere")
        finally:
            os.close(fd)


def _difference(info: os.stat_result, entry: Entry) -> str:
    kind = _KINDS[entry.kind]
    if not kind:
        return ""
    if stat.S_IFMT(info.st_mode) != kind:
        return "kind"
    if (info.st_uid, info.st_gid) != (entry.uid, entry.gid):
        return "owner"
    if entry.kind == tarheader.REGULAR and info.st_size != entry.length:
        return "size"
    if entry.kind != tarheader.SYMLINK and stat.S_IMODE(info.st_mode) != entry.mode:
        return "mode"
    return ""
