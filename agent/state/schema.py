"""The state file's schema, as numbered steps; PRAGMA user_version says how many were taken.

A step is never edited after a release; a change is a new step at the end.
"""

from __future__ import annotations

from typing import Final

_CONTAINERS = (
    "CREATE TABLE containers (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE,"
    " record TEXT NOT NULL) WITHOUT ROWID"
)
# AUTOINCREMENT: a row number is never used again, so a late `end` can't hit another's row.
_INTENTS = (
    "CREATE TABLE intents (row INTEGER PRIMARY KEY AUTOINCREMENT, container_id TEXT NOT NULL,"
    " intent TEXT NOT NULL, detail TEXT NOT NULL)"
)
_QUARANTINE = (
    "CREATE TABLE quarantine (id TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL,"
    " reason TEXT NOT NULL)"
)
STEPS: Final[tuple[tuple[str, ...], ...]] = ((_CONTAINERS, _INTENTS, _QUARANTINE),)
VERSION: Final = len(STEPS)
