"""Images: references, registries, the store of layers, unpacking, writable layers.

`open_store` is the composition entry.  Its imports are inside, because the unpack worker imports
this package at every start and must stay light.
"""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from agent.images.settings import RegistrySettings
    from agent.images.snapshots import SnapshotStore
    from agent.images.store import ImageStore


def open_store(root: str, settings: RegistrySettings) -> tuple[ImageStore, SnapshotStore]:
    """Open (make, recover) the image store below `root`, the agent's data folder.

    Only one process may have it open: the agent's lock on its data folder sees to that.
    """
    import os

    from agent.images.disk import Disk
    from agent.images.metadata import Metadata
    from agent.images.shelf import LocalShelf
    from agent.images.snapshots import SnapshotStore
    from agent.images.store import ImageStore

    disk = Disk(root)
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    shelf = LocalShelf(disk, Metadata(os.path.join(disk.images, "images.db"), boot_id))
    snapshots = SnapshotStore(disk, shelf)  # pins first: recovery must not take pinned layers
    shelf.recover()
    return ImageStore(disk, shelf, settings), snapshots
