"""$ROOT on disk: folders and modes, blob files, layer folders, deletion behind the caller's back.

$ROOT/                        0710
  images/                     0700
    images.db                 metadata.py
    blobs/sha256/<hex>        manifests and configs, checked again whenever they are read
    partial/sha256-<hex>      partial.py
  layers/                     0700
    <name>/diff               one unpacked layer, for good once its row exists
    .new-<random>/diff        being unpacked; removed at start
    .gone-<random>            being deleted; removed at start
  containers/                 0700
    <id>/{upper,work,lower.json}
    .gone-<random>
  init/                       the layer that lies on top of every image (security.md case 20)
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress

from agent.errors import data_loss
from agent.host import openat, tree
from agent.images import digest as digests
from agent.images import documents

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_NAME_LENGTH = 5  # 33 million names; 127 of "layers/xxxxx/diff" fit mount(2)'s page with chdir


class Reaper:
    """Deletes what was renamed away, in one background thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="image-reaper", daemon=True)
        self._thread.start()

    def add(self, path: str) -> None:
        """Have a folder (already under a `.gone-` name) deleted."""
        self._queue.put(path)

    def close(self) -> None:
        """Finish what was added, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (path := self._queue.get()) is not None:
            # What can't be deleted now (EIO, a mount in it) is tried again at the next start.
            with suppress(OSError), tree.opened(os.path.dirname(path)) as parent:
                tree.remove_tree(parent, os.path.basename(path))


class Disk:
    """The folders of one $ROOT."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.images = os.path.join(self.root, "images")
        self.layers = os.path.join(self.root, "layers")
        self.containers = os.path.join(self.root, "containers")
        self.init = os.path.join(self.root, "init")
        tree.make_private(self.root, 0o710)
        for folder in (self.images, self.layers, self.containers):
            tree.make_private(folder)
        for algorithm in ("sha256", "sha512"):
            tree.make_private(os.path.join(self.images, "blobs", algorithm))
        os.chmod(os.path.join(self.images, "blobs"), 0o700)
        self.partial = os.path.join(self.images, "partial")
        tree.make_private(self.partial)
        self.reaper = Reaper()

    def discard(self, path: str) -> None:
        """Rename a folder away at once and delete it behind.  Idempotent."""
        gone = os.path.join(os.path.dirname(path), f".gone-{secrets.token_hex(8)}")
        with suppress(FileNotFoundError):
            os.rename(path, gone)
            self.reaper.add(gone)

    def sweep(self) -> None:
        """At start: what a dead agent was unpacking, writing or deleting."""
        for algorithm in ("sha256", "sha512"):
            folder = os.path.join(self.images, "blobs", algorithm)
            for name in os.listdir(folder):
                if name.endswith(".new"):
                    os.unlink(os.path.join(folder, name))
        for folder in (self.layers, self.containers):
            for name in os.listdir(folder):
                if name.startswith((".new-", ".gone-")):
                    self.reaper.add(os.path.join(folder, name))

    def sync(self) -> None:
        """Write back everything below $ROOT (one syncfs)."""
        with tree.opened(self.root) as fd:
            openat.syncfs(fd)

    # ----------------------------------------------------------------------------------- layers

    def stage_layer(self) -> str:
        """A new folder with an empty `diff` in it."""
        path = os.path.join(self.layers, f".new-{secrets.token_hex(8)}")
        os.mkdir(path, 0o700)
        os.mkdir(os.path.join(path, "diff"), 0o755)
        os.chmod(os.path.join(path, "diff"), 0o755)  # noqa: S103 - whatever the umask was
        return path

    def publish_layer(self, staged: str) -> str:
        """Give a staged layer its short name; returns it."""
        while True:
            name = "".join(secrets.choice(_ALPHABET) for _ in range(_NAME_LENGTH))
            path = os.path.join(self.layers, name)
            if not os.path.lexists(path):
                os.rename(staged, path)
                return name

    def layer_path(self, name: str) -> str:
        return os.path.join(self.layers, name, "diff")

    def layer_folder(self, name: str) -> str:
        """Where a layer's `diff` and `recipe` are."""
        return os.path.join(self.layers, name)

    def layer_names(self) -> Iterator[str]:
        return (name for name in os.listdir(self.layers) if not name.startswith("."))

    # ------------------------------------------------------------------------------------ blobs

    def has_blob(self, digest: str) -> bool:
        """There and whole."""
        try:
            self.read_blob(digest)
        except (OSError, ValueError):
            return False
        return True

    def read_blob(self, digest: str) -> bytes:
        """A stored document.  ValueError when it is not what its name says."""
        with open(self._blob_path(digest), "rb") as file:
            raw = file.read(documents.CONFIG_LIMIT + 1)
        if not digests.matches(raw, digest):
            raise ValueError(f"blob {digest} is damaged")
        return raw

    def document(self, digest: str) -> bytes:
        """Like `read_blob`; DATA_LOSS for the client."""
        try:
            return self.read_blob(digest)
        except (OSError, ValueError) as error:
            raise data_loss(f"blob {digest} is missing or damaged: pull the image again") from error

    def write_blob(self, digest: str, raw: bytes) -> None:
        """Appears whole or not at all; durable with the next `sync`."""
        path = self._blob_path(digest)
        temporary = f"{path}.{secrets.token_hex(4)}.new"
        with open(temporary, "xb", opener=_private) as file:
            file.write(raw)
        os.rename(temporary, path)

    def remove_blob(self, digest: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._blob_path(digest))

    def blob_digests(self) -> Iterator[str]:
        """All stored documents."""
        for algorithm in ("sha256", "sha512"):
            for name in os.listdir(os.path.join(self.images, "blobs", algorithm)):
                if not name.endswith(".new"):  # another thread is writing it
                    yield f"{algorithm}:{name}"

    def _blob_path(self, digest: str) -> str:
        if not digests.valid(digest):
            raise ValueError("not a digest")
        return os.path.join(self.images, "blobs", *digests.split(digest))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
