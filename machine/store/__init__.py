"""Machine records on disk, in docker-machine's layout. Use `Store` from `machine.store.disk`."""

from machine.store.disk import Entry, Store, StorePaths

__all__ = ["Entry", "Store", "StorePaths"]
