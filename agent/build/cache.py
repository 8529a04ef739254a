"""Which step on which image gave which image (docker's rules: parent, instruction, contents).

The key holds the parent's id and so all that came before; what a step reads (files, a stage) is in
it by digest.  A hit counts only while all layers are there.  Losing the file loses time only, so
its writes are not waited for.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from agent.build import draft as drafts
from agent.build.draft import Draft
from agent.engine.building import Layers
from agent.errors import EngineError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY, image_id TEXT NOT NULL, raw BLOB NOT NULL, made INTEGER NOT NULL) STRICT;
"""
_KEPT = 20_000  # steps; the oldest go


class CacheStore:
    """Thread-safe.  A damaged file is begun anew."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._path = path
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError:
            self._set_aside()
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(_SCHEMA)
        return connection

    def _set_aside(self) -> None:
        import os

        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(self._path + suffix)

    def close(self) -> None:
        self._connection.close()

    def get(self, key: str) -> tuple[str, bytes] | None:
        with self._lock, suppress(sqlite3.Error):
            row = self._connection.execute(
                "SELECT image_id, raw FROM steps WHERE key = ?", (key,)
            ).fetchone()
            return None if row is None else (str(row[0]), bytes(row[1]))
        return None

    def put(self, steps: Mapping[str, Draft]) -> None:
        """A failure is no failure of the build."""
        now = time.time_ns()
        rows = [(key, one.image_id, one.raw, now) for key, one in steps.items()]
        with self._lock, suppress(sqlite3.Error):
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?)", rows)
            self._connection.execute(
                "DELETE FROM steps WHERE key NOT IN"
                " (SELECT key FROM steps ORDER BY made DESC LIMIT ?)",
                (_KEPT,),
            )
            self._connection.execute("COMMIT")

    def all(self) -> list[tuple[str, str, bytes]]:
        with self._lock, suppress(sqlite3.Error):
            rows = self._connection.execute("SELECT key, image_id, raw FROM steps").fetchall()
            return [(str(row[0]), str(row[1]), bytes(row[2])) for row in rows]
        return []

    def forget(self, keys: Sequence[str]) -> None:
        with self._lock, suppress(sqlite3.Error):
            self._connection.executemany(
                "DELETE FROM steps WHERE key = ?", [(key,) for key in keys]
            )


class Cache:
    """One build's view: what is known, plus what --cache-from images tell, plus its own steps."""

    def __init__(
        self, store: CacheStore, layers: Layers, sources: Sequence[Draft], *, enabled: bool
    ) -> None:
        self._store = store
        self._layers = layers
        self._sources = sources
        self._enabled = enabled
        self.made: dict[str, Draft] = {}

    def find(self, parent: Draft, created_by: str, wanted: Draft, extra: str = "") -> Draft | None:
        """The image after a step, if it was made before.  `wanted` has the config after it."""
        if not self._enabled:
            return None
        found = self._known(key(parent, created_by, wanted, extra))
        if found is None and not extra:
            found = self._from_sources(parent, created_by, wanted)
        if found is None or not self._layers.has(found.diff_ids):
            return None
        return found

    def _known(self, wanted: str) -> Draft | None:
        if wanted in self.made:
            return self.made[wanted]
        row = self._store.get(wanted)
        if row is None:
            return None
        with suppress(EngineError):
            return drafts.load(row[1], row[0])
        return None

    def _from_sources(self, parent: Draft, created_by: str, wanted: Draft) -> Draft | None:
        """--cache-from: an image whose history begins as the parent's and goes on with this step."""
        place = len(parent.history)
        for source in self._sources:
            if len(source.history) <= place or source.history[:place] != parent.history:
                continue
            entry = source.history[place]
            if entry.get("created_by") != created_by:
                continue
            used = sum(1 for one in source.history[: place + 1] if not one.get("empty_layer"))
            layers = source.diff_ids[:used]
            if layers[: len(parent.diff_ids)] != parent.diff_ids:
                continue
            return _restored(wanted, source, layers, place)
        return None

    def add(self, parent: Draft, created_by: str, made: Draft, extra: str = "") -> None:
        self.made[key(parent, created_by, made, extra)] = made

    def save(self) -> None:
        if self.made:
            self._store.put(self.made)


def _restored(wanted: Draft, source: Draft, layers: tuple[str, ...], place: int) -> Draft:
    import dataclasses

    if place + 1 == len(source.history):
        return source
    made = dataclasses.replace(wanted, diff_ids=layers, history=source.history[: place + 1])
    return made.sealed(0)


def key(parent: Draft, created_by: str, wanted: Draft, extra: str = "") -> str:
    """SHA-256 of parent, instruction, the configuration after it, and what it reads."""
    import json

    state = hashlib.sha256()
    config = json.dumps(wanted.config, sort_keys=True)
    for part in (parent.image_id, "/".join(wanted.platform), created_by, config, extra):
        raw = part.encode("utf-8", "surrogateescape")
        state.update(b"%d:" % len(raw) + raw)
    return state.hexdigest()
