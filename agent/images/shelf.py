"""What the store knows, on disk and in memory: layers, documents, images, names, who needs what.

One lock guards the tables, the holds of running pulls and the pins of containers, so garbage
collection never takes what a pull has just found or a container was just given.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable

from agent.engine.model import Image
from agent.engine.transfers import ImageSpace
from agent.errors import conflict, internal, not_found
from agent.images import digest as digests
from agent.images import imageconfig, lowers, partial, reference
from agent.images.disk import Disk
from agent.images.imageconfig import DecodedConfig
from agent.images.manifest import Descriptor
from agent.images.metadata import Layer, Metadata, Ref
from agent.images.pull import Pulled
from agent.images.workerpool import Unpacked

_LEFTOVER_AGE = 24 * 3600 * 1_000_000_000  # layers of a pull that nobody tried again


class LocalShelf:
    """The `pull.Shelf` of one $ROOT.  Thread-safe."""

    def __init__(self, disk: Disk, metadata: Metadata) -> None:
        self.lock = threading.RLock()
        self._disk = disk
        self._metadata = metadata
        self._held: Counter[str] = Counter()
        self._pins: dict[str, frozenset[str]] = {}  # container id -> layer folder names
        self._configs: dict[str, DecodedConfig] = {}

    # ----------------------------------------------------------------------------------- layers

    def has_layer(self, diff_id: str) -> bool:
        with self.lock:
            return self._metadata.layer(diff_id) is not None

    def commit_layer(self, diff_id: str, staged: str, report: Unpacked) -> None:
        """A verified layer becomes usable: by rename, then by its row."""
        with self.lock:
            if self._metadata.layer(diff_id) is not None:
                self._disk.discard(staged)
                return
            lowers.note_implicit(staged, report.implicit)
            name = self._disk.publish_layer(staged)
            cut = b"" in report.opaque
            try:
                self._metadata.add_layer(
                    Layer(diff_id, name, report.size, report.root, cut, time.time_ns())
                )
            except sqlite3.Error as error:
                self._disk.discard(self._disk.layer_path(name).removesuffix("/diff"))
                raise internal(f"failed to register layer: {error}") from error

    def remember_blob(self, diff_id: str, blob: Descriptor, repository: str) -> None:
        with self.lock:
            self._metadata.add_blob(diff_id, (blob.digest, blob.size, blob.media_type), repository)

    def hold(self, diff_ids: tuple[str, ...]) -> None:
        with self.lock:
            self._held.update(diff_ids)

    def release(self, diff_ids: tuple[str, ...]) -> None:
        with self.lock:
            self._held.subtract(diff_ids)
            self._held += Counter()  # drops what reached zero

    def rows(self, diff_ids: Iterable[str]) -> list[Layer]:
        """Base first.  CONFLICT when one is not there."""
        with self.lock:
            found = [self._metadata.layer(diff_id) for diff_id in diff_ids]
        kept = [one for one in found if one is not None]
        if len(kept) != len(found):
            raise conflict("a layer was removed meanwhile")
        return kept

    def collect(self, diff_ids: Iterable[str]) -> None:
        """Remove those of these layers that nobody needs."""
        with self.lock:
            self._collect(set(diff_ids))

    # -------------------------------------------------------------------------------- documents

    def has_document(self, digest: str) -> bytes | None:
        try:
            return self._disk.read_blob(digest)
        except (OSError, ValueError):
            return None

    def keep_document(self, digest: str, raw: bytes) -> None:
        self._disk.write_blob(digest, raw)

    # ----------------------------------------------------------------------------------- images

    def record(self, pulled: Pulled) -> tuple[Image, bool]:
        """Sync the file system once, then let the image appear in one transaction."""
        name = pulled.reference.name
        refs = [Ref(name, f"@{pulled.top_digest}", pulled.image_id)]
        if not pulled.reference.digest:
            refs.insert(0, Ref(name, f":{pulled.reference.tag}", pulled.image_id))
        with self.lock:
            ready = self._is_whole(pulled)
        if not ready:
            # Layers are held here: what a fit costs is paid by the pull, and no lock is held.
            lowers.lower_names(self._disk, self.rows(pulled.config.diff_ids))
            self._write_documents(pulled)
            self._disk.sync()  # outside the lock: it may take seconds
        with self.lock:
            # A removal may have come between: layers are held, documents are not.
            if self._write_documents(pulled):
                self._disk.sync()
            old = self._metadata.ref(name, refs[0].suffix)
            changed = old is None or old.image_id != pulled.image_id
            if changed or not ready or not self._is_whole(pulled) or not self._known(refs):
                self._metadata.add_image(
                    pulled.image_id,
                    pulled.manifest_digest,
                    pulled.config.diff_ids,
                    refs,
                    time.time_ns(),
                )
            return self.image(pulled.image_id), changed

    def _write_documents(self, pulled: Pulled) -> bool:
        missing = [part for part in pulled.documents if not self._disk.has_blob(part[0])]
        for digest, raw in missing:
            self.keep_document(digest, raw)
        return bool(missing)

    def record_built(
        self,
        image_id: str,
        documents: tuple[bytes, bytes],
        diff_ids: tuple[str, ...],
        refs: list[Ref],
    ) -> Image:
        """An image made here: `documents` are its config and its manifest; durable on return."""
        config, manifest = documents
        with self.lock:
            known = self._metadata.manifest(image_id) is not None
            if known and len(self._metadata.image_layers(image_id)) == len(diff_ids):
                for ref in refs:
                    old = self._metadata.ref(ref.name, ref.suffix)
                    if old is None or old.image_id != image_id:
                        self.set_ref(ref)
                return self.image(image_id)
        digest = digests.of(manifest)
        self.keep_document(image_id, config)
        self.keep_document(digest, manifest)
        self._disk.sync()
        with self.lock:
            for name, raw in ((image_id, config), (digest, manifest)):
                if not self._disk.has_blob(name):  # collected between the writing and the lock
                    self.keep_document(name, raw)
            self._metadata.add_image(image_id, digest, diff_ids, refs, time.time_ns())
            return self.image(image_id)

    def _is_whole(self, pulled: Pulled) -> bool:
        layers = self._metadata.image_layers(pulled.image_id)
        known = self._metadata.manifest(pulled.image_id) is not None
        return known and len(layers) == len(pulled.config.diff_ids)

    def _known(self, refs: list[Ref]) -> bool:
        return all(self._metadata.ref(ref.name, ref.suffix) == ref for ref in refs)

    def image(self, image_id: str) -> Image:
        """NOT_FOUND when there is none, DATA_LOSS when its config is damaged."""
        with self.lock:
            if self._metadata.manifest(image_id) is None:
                raise not_found(f"No such image: {image_id}")
            refs = self._metadata.refs(image_id)
            layers = self._metadata.image_layers(image_id)
            config = self._config(image_id)
        names = [(reference.familiar(ref.name) + ref.suffix, ref.canonical) for ref in refs]
        return imageconfig.image(
            image_id,
            config,
            sum(layer.size for layer in layers),
            tuple(name for name, canonical in names if not canonical),
            tuple(name for name, canonical in names if canonical),
        )

    def _config(self, image_id: str) -> DecodedConfig:
        found = self._configs.get(image_id)
        if found is None:
            found = imageconfig.decode(self._disk.document(image_id))
            self._configs[image_id] = found
        return found

    def image_ids(self) -> list[str]:
        with self.lock:
            return self._metadata.image_ids()

    def resolve(self, text: str) -> str:
        """The id of the image that a name, name@digest, id or unique id prefix means."""
        with self.lock:
            prefix = reference.id_prefix(text)
            if prefix is not None and len(prefix) == 64:
                if self._metadata.manifest(f"sha256:{prefix}") is None:
                    raise not_found(f"No such image: {text}")
                return f"sha256:{prefix}"
            if not text.startswith("sha256:"):
                found = reference.parse(text).tagged()
                suffix = f"@{found.digest}" if found.digest else f":{found.tag}"
                ref = self._metadata.ref(found.name, suffix)
                if ref is not None:
                    return ref.image_id
                text = found.familiar
            ids = self._metadata.ids_with_prefix(prefix) if prefix else []
        if len(ids) == 1:
            return ids[0]
        raise not_found(f"No such image: {text}")

    def refs(self, image_id: str) -> list[Ref]:
        with self.lock:
            return self._metadata.refs(image_id)

    def set_ref(self, ref: Ref) -> None:
        with self.lock, self._metadata.transaction() as connection:
            self._metadata.set_ref(connection, ref)

    def remove_refs(self, refs: Iterable[Ref]) -> None:
        with self.lock:
            self._metadata.remove_refs(refs)

    def remove_image(self, image_id: str) -> list[str]:
        """Forget an image and its names; the chain IDs of the layers that went with it."""
        with self.lock:
            config = self._configs.pop(image_id, None) or imageconfig.decode(
                self._disk.document(image_id)
            )
            self._metadata.remove_image(image_id)
            gone = self._collect(set(config.diff_ids))
            self._drop_documents()
        chain = digests.chain_ids(config.diff_ids)
        paired = list(zip(config.diff_ids, chain, strict=True))
        return [chain_id for diff_id, chain_id in reversed(paired) if diff_id in gone]

    def tags_of(self, name: str) -> list[Ref]:
        """The tags of a repository ("docker.io/library/x")."""
        with self.lock:
            return self._metadata.tags_of(name)

    def named(self, text: str) -> list[tuple[str, list[tuple[str, str]]]]:
        """What `docker save TEXT` means: images, each with the (name, tag) pairs that go with it.

        A name without a tag stands for all tags of its repository.
        """
        with self.lock:
            if not text.startswith("sha256:") and reference.id_prefix(text) != text:
                found = reference.parse(text)
                tags = self._metadata.tags_of(found.name)
                if tags and not found.tag and not found.digest:
                    return [(ref.image_id, [(ref.name, ref.suffix[1:])]) for ref in tags]
            image_id = self.resolve(text)
            if image_id.removeprefix("sha256:").startswith(text.removeprefix("sha256:")):
                return [(image_id, [])]
            found = reference.parse(text).tagged()
            return [(image_id, [] if found.digest else [(found.name, found.tag)])]

    def blobs(self, diff_id: str) -> list[tuple[str, int, str, str]]:
        """(digest, size, media type, repository) of each known blob of a layer."""
        with self.lock:
            return self._metadata.blobs(diff_id)

    def manifest_of(self, image_id: str) -> bytes | None:
        """The manifest that an image came with, if it is there and whole."""
        with self.lock:
            digest = self._metadata.manifest(image_id)
        return self.has_document(digest) if digest else None

    def space(self) -> ImageSpace:
        """What images take on disk; a layer counts once in `layers`."""
        with self.lock:
            uses = self._metadata.layer_uses()
            total = sum(layer.size for layer in self._metadata.all_layers())
        users = Counter(diff_id for _, diff_id, _ in uses)
        sizes: Counter[str] = Counter()
        shared: Counter[str] = Counter()
        for image_id, diff_id, size in uses:
            sizes[image_id] += size
            shared[image_id] += size if users[diff_id] > 1 else 0
        return ImageSpace(sizes, shared, total)

    # ----------------------------------------------------------------------------- containers

    def layers_of(self, image_id: str) -> list[Layer]:
        """Base first.  NOT_FOUND without such an image, CONFLICT when a layer was lost."""
        with self.lock:
            if self._metadata.manifest(image_id) is None:
                raise not_found(f"No such image: {image_id}")
            layers = self._metadata.image_layers(image_id)
            if len(layers) != len(self._config(image_id).diff_ids):
                raise conflict(f"image {image_id} has lost layers: pull it again")
            return layers

    def pin(self, container_id: str, names: Iterable[str]) -> None:
        with self.lock:
            self._pins[container_id] = frozenset(names)

    def unpin(self, container_id: str) -> None:
        """Layers of force-removed images go with their last container."""
        with self.lock:
            names = self._pins.pop(container_id, frozenset())
            self._collect(
                {layer.diff_id for layer in self._metadata.unused_layers() if layer.name in names}
            )

    # ----------------------------------------------------------------------- garbage collection

    def _collect(self, candidates: set[str]) -> set[str]:
        """Remove those of the candidates that nobody needs; rows first, then folders."""
        pinned = frozenset[str]().union(*self._pins.values())
        now = time.time_ns()
        gone = [
            layer
            for layer in self._metadata.unused_layers()
            if layer.name not in pinned
            and not self._held[layer.diff_id]
            and (layer.diff_id in candidates or now - layer.created > _LEFTOVER_AGE)
        ]
        self._metadata.forget_layers(layer.diff_id for layer in gone)
        for layer in gone:
            self._discard_layer(layer.name)
        return {layer.diff_id for layer in gone}

    def _discard_layer(self, name: str) -> None:
        self._disk.discard(self._disk.layer_path(name).removesuffix("/diff"))

    def _drop_documents(self) -> None:
        """Documents that no image needs.  Those of a running pull are written again by it."""
        wanted = set(self._metadata.image_ids()) | self._metadata.manifests()
        for image_id in self._metadata.image_ids():
            wanted.update(ref.suffix[1:] for ref in self._metadata.refs(image_id) if ref.canonical)
        for digest in list(self._disk.blob_digests()):
            if digest not in wanted:
                self._disk.remove_blob(digest)

    def close(self) -> None:
        """Close the database; nothing works after it."""
        with self.lock:
            self._metadata.close()

    def recover(self) -> None:
        """At start, before anything else: rows and folders agree again."""
        with self.lock:
            self._disk.sweep()
            partial.sweep(self._disk.partial)
            lost = set(self._metadata.unsynced_layers())
            present = set(self._disk.layer_names())
            rows = self._metadata.all_layers()
            lost.update(layer.diff_id for layer in rows if layer.name not in present)
            self._metadata.forget_layers(lost)
            known = {layer.name for layer in rows if layer.diff_id not in lost}
            pinned = frozenset[str]().union(*self._pins.values())
            for name in present - known - pinned:
                self._discard_layer(name)
            self._collect(set())
            self._drop_documents()
