"""Durable container records and intents: one SQLite file (security.md C37, C38).

WAL with synchronous=FULL: one commit is one fsync (0.5 ms), and on return it is on disk.  One
connection behind one lock; reads happen at start only, the engine answers from memory.

How few commits a container's life needs: `end` does not commit, its deletion rides in the next
commit (redo and undo are idempotent, so an intent that comes back after a crash is harmless), and
`retire` deletes a record and writes the intent to clean up after it in one commit.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from agent.engine.codec import CodecError, dumps, loads
from agent.engine.model import Container
from agent.errors import EngineError, Kind, conflict, internal, no_space
from agent.state.schema import STEPS, VERSION

NAME = "state.db"
T = TypeVar("T")
_log = logging.getLogger(__name__)


class StateDamagedError(EngineError):
    """The state file can't be used; the agent must stop (exit code 3) and show `hint`.

    It is never replaced by an empty one: running containers would be forgotten silently.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.hint = (
            f"keep a copy of {path}*, then restore it from a backup, or move it away to start"
            " with no container records"
        )
        super().__init__(Kind.DATA_LOSS, f"{path}: {reason}; {self.hint}")


class SqliteRecords:
    """`agent.engine.ports.Records` on $ROOT/state.db (mode 0600)."""

    def __init__(self, root: str) -> None:
        """Opens, checks and migrates.  Raises StateDamagedError, OSError."""
        self._path = os.path.join(root, NAME)
        self._lock = threading.Lock()
        self._ended: set[int] = set()
        self._connection: sqlite3.Connection | None = None
        # sqlite would make the file with the umask's mode; -wal and -shm take over the file's.
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)
        os.close(fd)
        try:
            self._connection = self._open()
        except sqlite3.Error as error:
            raise StateDamagedError(self._path, str(error)) from error
        _sync_folder(root)

    def save(self, container: Container) -> None:
        """See Records.save."""
        text = dumps(container)

        def write(database: sqlite3.Connection) -> None:
            database.execute(
                "INSERT INTO containers (id, name, record) VALUES (?, ?, ?) ON CONFLICT (id)"
                " DO UPDATE SET name = excluded.name, record = excluded.record",
                (container.id, container.name, text),
            )

        self._commit(write)

    def delete(self, container_id: str) -> None:
        """See Records.delete."""
        self._commit(
            lambda database: database.execute(
                "DELETE FROM containers WHERE id = ?", (container_id,)
            )
        )

    def retire(self, container_id: str, detail: Mapping[str, str]) -> int:
        """See Records.retire."""

        def write(database: sqlite3.Connection) -> int:
            database.execute("DELETE FROM containers WHERE id = ?", (container_id,))
            return _insert_intent(database, container_id, "remove", detail)

        return self._commit(write)

    def begin(self, container_id: str, intent: str, detail: Mapping[str, str]) -> int:
        """See Records.begin."""
        return self._commit(lambda database: _insert_intent(database, container_id, intent, detail))

    def end(self, row: int) -> None:
        """Without a commit: the next one carries it.  See the module's text."""
        with self._lock:
            self._ended.add(row)

    def flush(self) -> None:
        """Commits what `end` left, if anything."""
        with self._lock:
            idle = not self._ended
        if not idle:
            self._commit(lambda _database: None)

    def all(self) -> list[Container]:
        """Every record that can be read; the others are moved to `quarantine` (case 126)."""
        with self._lock:
            rows = self._read("SELECT id, name, record FROM containers ORDER BY id")
        found: list[Container] = []
        for identity, name, text in rows:
            try:
                found.append(_decoded(str(identity), str(name), str(text)))
            except CodecError as error:
                self._quarantine(str(identity), str(error))
        return found

    def pending(self) -> list[tuple[int, str, str, Mapping[str, str]]]:
        """See Records.pending."""
        with self._lock:
            ended = set(self._ended)
            rows = self._read("SELECT row, container_id, intent, detail FROM intents ORDER BY row")
        found: list[tuple[int, str, str, Mapping[str, str]]] = []
        for row, identity, intent, detail in rows:
            if isinstance(row, int) and row not in ended:
                found.append((row, str(identity), str(intent), _detail(str(detail))))
        return found

    def quarantined(self) -> list[tuple[str, str]]:
        """(container id, reason) of records that could not be read."""
        with self._lock:
            rows = self._read("SELECT id, reason FROM quarantine ORDER BY id")
        return [(str(identity), str(reason)) for identity, reason in rows]

    def close(self) -> None:
        """Commits what `end` left and closes.  Idempotent."""
        if self._connection is None:
            return
        self.flush()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # -------------------------------------------------------------------------------- inside

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=10.0
        )
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA foreign_keys=ON")
            self._check(database)
            self._migrate(database)
        except BaseException:
            database.close()
            raise
        return database

    def _check(self, database: sqlite3.Connection) -> None:
        answer = database.execute("PRAGMA quick_check(1)").fetchone()
        if answer != ("ok",):
            raise StateDamagedError(self._path, f"damaged: {answer}")

    def _migrate(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StateDamagedError(
                self._path,
                f"schema version {version} is of a newer agent (this one knows {VERSION})",
            )
        if version == VERSION:
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            for step in STEPS[version:]:
                for statement in step:
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute("COMMIT")
        except sqlite3.Error:
            database.execute("ROLLBACK")
            raise

    def _commit(self, write: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                database = self._live()
                database.execute("BEGIN IMMEDIATE")
                ended = tuple(self._ended)
                database.executemany("DELETE FROM intents WHERE row = ?", [(r,) for r in ended])
                answer = write(database)
                database.execute("COMMIT")
            except sqlite3.Error as error:
                self._abandon()
                raise _told(error) from error
            self._ended.difference_update(ended)
            return answer

    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _abandon(self) -> None:
        """Rolls back and drops the connection: after a failed fsync nothing that it holds in
        memory may be trusted; the next call reads the file anew (case 128)."""
        database, self._connection = self._connection, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            database.close()

    def _read(self, query: str) -> list[tuple[object, ...]]:
        try:
            return self._live().execute(query).fetchall()
        except sqlite3.Error as error:
            raise StateDamagedError(self._path, str(error)) from error

    def _quarantine(self, identity: str, reason: str) -> None:
        _log.error("container record %s is put aside: %s", identity, reason)

        def write(database: sqlite3.Connection) -> None:
            database.execute(
                "INSERT INTO quarantine SELECT id, name, record, ? FROM containers WHERE id = ?",
                (reason, identity),
            )
            database.execute("DELETE FROM containers WHERE id = ?", (identity,))

        self._commit(write)


def _decoded(identity: str, name: str, text: str) -> Container:
    container = loads(Container, text)
    if (container.id, container.name) != (identity, name):
        raise CodecError("the record's id or name is not its row's")
    return container


def _insert_intent(
    database: sqlite3.Connection, container_id: str, intent: str, detail: Mapping[str, str]
) -> int:
    cursor = database.execute(
        "INSERT INTO intents (container_id, intent, detail) VALUES (?, ?, ?)",
        (container_id, intent, json.dumps(dict(detail))),
    )
    return cursor.lastrowid or 0


def _detail(text: str) -> dict[str, str]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {str(key): str(value) for key, value in document.items()}


def _told(error: sqlite3.Error) -> EngineError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CONSTRAINT:
        return conflict(f"the name is already in use ({error})")
    if code == sqlite3.SQLITE_FULL:
        return no_space("cannot write the engine's state: no space left on device")
    return internal(f"cannot write the engine's state: {error}")


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
