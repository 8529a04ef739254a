"""images.db: which layers, images, tags and digests there are (SQLite, WAL).

Two connections: `durable` (synchronous=FULL) for what is acknowledged, `quick` (NORMAL: no fsync
a commit, safe against a killed process) for layers of an unfinished pull.  Those carry the boot
id until their pull has synced the file system: after a power cut they are not believed.
All methods are called under the store's lock.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from agent.values import frozen

_SCHEMA = """
CREATE TABLE IF NOT EXISTS layers (
    diff_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, root TEXT NOT NULL,
    cut INTEGER NOT NULL, boot TEXT NOT NULL, created INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS blobs (
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
    repository TEXT NOT NULL, PRIMARY KEY (diff_id, digest, repository)) STRICT;
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY, manifest TEXT NOT NULL, pulled INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS image_layers (
    image_id TEXT NOT NULL, position INTEGER NOT NULL, diff_id TEXT NOT NULL,
    PRIMARY KEY (image_id, position)) STRICT;
CREATE INDEX IF NOT EXISTS image_layers_by_layer ON image_layers (diff_id);
CREATE TABLE IF NOT EXISTS refs (
    name TEXT NOT NULL, suffix TEXT NOT NULL, image_id TEXT NOT NULL,
    PRIMARY KEY (name, suffix)) STRICT;
"""
_VERSION = 1


@frozen
class Layer:
    """A layer's row.  `root`: (mode, uid, gid) when the layer describes its root."""

    diff_id: str
    name: str  # folder below $ROOT/layers
    size: int
    root: tuple[int, int, int] | None
    cut: bool  # its root is opaque: nothing below it shows
    created: int


@frozen
class Ref:
    """A name of an image: suffix is ":tag" or "@sha256:..."."""

    name: str  # "docker.io/library/debian"
    suffix: str
    image_id: str

    @property
    def canonical(self) -> bool:
        """By digest."""
        return self.suffix.startswith("@")


class Metadata:
    """The tables.  Raises sqlite3.Error; a damaged file is set aside when it is opened."""

    def __init__(self, path: str, boot_id: str) -> None:
        self._boot = boot_id
        self._path = path
        try:
            self._open()
        except sqlite3.DatabaseError:
            self._set_aside()
            self._open()

    def _open(self) -> None:
        self.durable = self._connect("FULL")
        try:
            self._check()
            version = self.durable.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise RuntimeError(f"{self._path} was written by a newer version ({version})")
            self.durable.executescript(_SCHEMA)
            self.durable.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.DatabaseError:
            self.durable.close()
            raise
        self.quick = self._connect("NORMAL")

    def _check(self) -> None:
        if self.durable.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("images.db is damaged")

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA busy_timeout = 10000")
        return connection

    def _set_aside(self) -> None:
        number = 1
        while os.path.exists(f"{self._path}.damaged-{number}"):
            number += 1
        os.rename(self._path, f"{self._path}.damaged-{number}")
        for suffix in ("-wal", "-shm"):
            if os.path.exists(self._path + suffix):
                os.rename(self._path + suffix, f"{self._path}.damaged-{number}{suffix}")

    def close(self) -> None:
        self.quick.close()
        self.durable.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, on disk when the block is left."""
        self.durable.execute("BEGIN IMMEDIATE")
        try:
            yield self.durable
        except BaseException:
            self.durable.execute("ROLLBACK")
            raise
        self.durable.execute("COMMIT")

    # ---------------------------------------------------------------------------------- layers

    def layer(self, diff_id: str) -> Layer | None:
        found = self._layers("WHERE diff_id = ?", diff_id)
        return found[0] if found else None

    def image_layers(self, image_id: str) -> list[Layer]:
        """Base first.  Shorter than the image's diff_ids when a layer was lost."""
        return self._layers(
            "JOIN image_layers USING (diff_id) WHERE image_id = ? ORDER BY position", image_id
        )

    def unused_layers(self) -> list[Layer]:
        """Layers that no image has."""
        return self._layers("WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)")

    def all_layers(self) -> list[Layer]:
        return self._layers("")

    def _layers(self, clause: str, *values: str) -> list[Layer]:
        columns = "diff_id, name, size, root, cut, created"
        rows = self.durable.execute(f"SELECT {columns} FROM layers {clause}", values)  # noqa: S608
        return [Layer(row[0], row[1], row[2], _root(row[3]), bool(row[4]), row[5]) for row in rows]

    def add_layer(self, layer: Layer) -> None:
        """Known to this boot from now on, for good when `add_image` has run."""
        self.quick.execute(
            "INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                layer.diff_id,
                layer.name,
                layer.size,
                json.dumps(layer.root),
                int(layer.cut),
                self._boot,
                layer.created,
            ),
        )

    def add_blob(self, diff_id: str, blob: tuple[str, int, str], repository: str) -> None:
        """Where a layer's blob (digest, size, media type) is known to be: what push needs."""
        self.quick.execute(
            "INSERT OR IGNORE INTO blobs VALUES (?, ?, ?, ?, ?)", (diff_id, *blob, repository)
        )

    def blobs(self, diff_id: str) -> list[tuple[str, int, str, str]]:
        """(digest, size, media type, repository) of each known blob of a layer."""
        rows = self.durable.execute(
            "SELECT digest, size, media_type, repository FROM blobs WHERE diff_id = ?", (diff_id,)
        )
        return [(str(row[0]), int(row[1]), str(row[2]), str(row[3])) for row in rows]

    def forget_layers(self, diff_ids: Iterable[str]) -> None:
        keys = [(diff_id,) for diff_id in diff_ids]
        with self.transaction() as connection:
            connection.executemany("DELETE FROM layers WHERE diff_id = ?", keys)
            connection.executemany("DELETE FROM blobs WHERE diff_id = ?", keys)

    def unsynced_layers(self) -> list[str]:
        """diffIDs that an earlier boot left in the middle of a pull."""
        rows = self.durable.execute(
            "SELECT diff_id FROM layers WHERE boot NOT IN ('', ?)", (self._boot,)
        )
        return [str(row[0]) for row in rows]

    # ---------------------------------------------------------------------------------- images

    def add_image(
        self,
        image_id: str,
        manifest: str,
        diff_ids: tuple[str, ...],
        refs: Iterable[Ref],
        now: int,
    ) -> None:
        """The file system was synced: the layers are durable, and the image appears."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?)", (image_id, manifest, now)
            )
            connection.executemany(
                "INSERT OR REPLACE INTO image_layers VALUES (?, ?, ?)",
                [(image_id, position, diff_id) for position, diff_id in enumerate(diff_ids)],
            )
            connection.executemany(
                "UPDATE layers SET boot = '' WHERE diff_id = ?",
                [(diff_id,) for diff_id in diff_ids],
            )
            for ref in refs:
                self.set_ref(connection, ref)

    def set_ref(self, connection: sqlite3.Connection, ref: Ref) -> None:
        """Point a name at an image, inside a transaction."""
        connection.execute(
            "INSERT OR REPLACE INTO refs VALUES (?, ?, ?)", (ref.name, ref.suffix, ref.image_id)
        )

    def remove_refs(self, refs: Iterable[Ref]) -> None:
        with self.transaction() as connection:
            connection.executemany(
                "DELETE FROM refs WHERE name = ? AND suffix = ?",
                [(ref.name, ref.suffix) for ref in refs],
            )

    def remove_image(self, image_id: str) -> None:
        with self.transaction() as connection:
            connection.execute("DELETE FROM refs WHERE image_id = ?", (image_id,))
            connection.execute("DELETE FROM image_layers WHERE image_id = ?", (image_id,))
            connection.execute("DELETE FROM images WHERE id = ?", (image_id,))

    def manifest(self, image_id: str) -> str | None:
        """The digest of the manifest that an image came with; None when there is no such image."""
        row = self.durable.execute(
            "SELECT manifest FROM images WHERE id = ?", (image_id,)
        ).fetchone()
        return None if row is None else str(row[0])

    def image_ids(self) -> list[str]:
        rows = self.durable.execute("SELECT id FROM images ORDER BY pulled DESC, id")
        return [str(row[0]) for row in rows]

    def manifests(self) -> set[str]:
        rows = self.durable.execute("SELECT manifest FROM images")
        return {str(row[0]) for row in rows}

    def ids_with_prefix(self, prefix: str) -> list[str]:
        """Up to two image ids that start so: enough to know that a prefix is ambiguous."""
        rows = self.durable.execute(
            "SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2",
            (f"sha256:{prefix}", f"sha256:{prefix}g"),
        )
        return [str(row[0]) for row in rows]

    def ref(self, name: str, suffix: str) -> Ref | None:
        row = self.durable.execute(
            "SELECT name, suffix, image_id FROM refs WHERE name = ? AND suffix = ?", (name, suffix)
        ).fetchone()
        return Ref(*row) if row else None

    def tags_of(self, name: str) -> list[Ref]:
        """The tags (not the digests) of a repository."""
        rows = self.durable.execute(
            "SELECT name, suffix, image_id FROM refs WHERE name = ? AND suffix LIKE ':%' "
            "ORDER BY suffix",
            (name,),
        )
        return [Ref(*row) for row in rows]

    def layer_uses(self) -> list[tuple[str, str, int]]:
        """(image id, diffID, bytes) of each layer of each image, a repeated one once."""
        rows = self.durable.execute(
            "SELECT DISTINCT image_id, diff_id, size FROM image_layers JOIN layers USING (diff_id)"
        )
        return [(str(row[0]), str(row[1]), int(row[2])) for row in rows]

    def refs(self, image_id: str) -> list[Ref]:
        """Tags first, then digests."""
        rows = self.durable.execute(
            "SELECT name, suffix, image_id FROM refs WHERE image_id = ? "
            "ORDER BY suffix LIKE '@%', name, suffix",
            (image_id,),
        )
        return [Ref(*row) for row in rows]


def _root(text: str) -> tuple[int, int, int] | None:
    value = json.loads(text)
    return (int(value[0]), int(value[1]), int(value[2])) if value else None
