"""`agent.engine.building.Layers`: layers and images as builds and commits make them."""

from __future__ import annotations

import email.utils
import json
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from agent.engine.building import Gone
from agent.engine.model import Image
from agent.errors import EngineError, conflict, internal, invalid
from agent.host import tree
from agent.images import addresses, imageconfig, layertar, reference, treelayer
from agent.images import digest as digests
from agent.images.cancel import Cancellation
from agent.images.connection import Connector, Request, TlsError, TransientError
from agent.images.disk import Disk
from agent.images.lowers import lower_names, root_metadata
from agent.images.metadata import Layer, Ref
from agent.images.settings import RegistrySettings
from agent.images.shelf import LocalShelf
from agent.wire.http import public

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_PIECE = 256 << 10


class BuildLayers:
    """Thread-safe; one for the store."""

    def __init__(self, disk: Disk, shelf: LocalShelf, settings: RegistrySettings) -> None:
        self._disk = disk
        self._shelf = shelf
        self._settings = settings

    def document(self, image_id: str) -> bytes:
        self._shelf.image(image_id)
        return self._disk.document(image_id)

    def check_tag(self, repo: str, tag: str) -> None:
        reference.with_tag(repo, tag)

    def has(self, diff_ids: Sequence[str]) -> bool:
        return all(self._shelf.has_layer(one) for one in diff_ids)

    def hold(self, diff_ids: Sequence[str]) -> None:
        with self._shelf.lock:
            if not self.has(diff_ids):
                raise conflict("a layer that the build needs was removed meanwhile")
            self._shelf.hold(tuple(diff_ids))

    def release(self, diff_ids: Sequence[str]) -> None:
        with self._shelf.lock:
            self._shelf.release(tuple(diff_ids))
            self._shelf.collect(diff_ids)

    def lower(self, diff_ids: Sequence[str]) -> tuple[str, ...]:
        try:
            names = lower_names(self._disk, self._rows(diff_ids))
        except OSError as error:
            raise internal(f"can't put the layers together: {error.strerror}") from error
        return tuple(self._disk.layer_path(name) for name in names)

    def init(self) -> str:
        return self._disk.init

    def stage(self, diff_ids: Sequence[str]) -> str:
        mode, uid, gid = root_metadata(self._rows(diff_ids))
        folder = self._disk.stage_layer()
        diff = os.path.join(folder, "diff")
        os.chown(diff, uid, gid)
        os.chmod(diff, mode)
        os.mkdir(os.path.join(folder, "work"), 0o700)
        return folder

    def _rows(self, diff_ids: Sequence[str]) -> list[Layer]:
        return self._shelf.rows(diff_ids)

    def discard(self, folder: str) -> None:
        self._disk.discard(folder)

    def commit(self, folder: str) -> str:
        with tree.opened(folder) as parent:
            tree.remove_tree(parent, "work")
        report = treelayer.describe(folder)
        with self._shelf.lock:
            self._shelf.commit_layer(report.diff_id, folder, report)
            self._shelf.hold((report.diff_id,))
        return report.diff_id

    def record(self, config: bytes, tags: Sequence[tuple[str, str]]) -> Image:
        image_id = digests.of(config)
        decoded = imageconfig.decode(config)
        named = [reference.with_tag(repo, tag) for repo, tag in tags]
        refs = [Ref(one.name, f":{one.tag}", image_id) for one in named]
        manifest = self._manifest(config, image_id, decoded.diff_ids)
        return self._shelf.record_built(image_id, (config, manifest), decoded.diff_ids, refs)

    def _manifest(self, config: bytes, image_id: str, diff_ids: Sequence[str]) -> bytes:
        """Uncompressed layers: the digests are the diffIDs, the sizes those of their tars."""
        layers = [
            {"mediaType": LAYER_TYPE, "digest": row.diff_id, "size": self._tar_size(row)}
            for row in self._rows(diff_ids)
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": image_id, "size": len(config)},
            "layers": layers,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def _tar_size(self, row: Layer) -> int:
        with suppress(EngineError):
            return layertar.size(os.path.dirname(self._disk.layer_path(row.name)))
        return row.size

    def download(self, url: str, sink: Callable[[bytes], None], gone: Gone) -> tuple[str, str, int]:
        cancel = Cancellation()
        connector = Connector(self._settings, cancel)
        headers = {"User-Agent": self._settings.user_agent, "Accept": "*/*"}
        try:
            # Guarded from the first hop on: a Dockerfile must not reach the host's own services nor
            # the cloud's metadata.  A private network that its URL names may be reached.
            connector.at_home(_private(url))
            response = connector.open(Request(url, headers, guarded=True))
            try:
                if response.status != 200:
                    raise invalid(f"failed to GET {public(url)} with status {response.status}")
                while piece := response.read(_PIECE):
                    if gone():
                        cancel.cancel()
                    cancel.check()
                    sink(piece)
                stamp = _moment(response.headers.get("Last-Modified"))
                return response.url, response.headers.get("Content-Type") or "", stamp
            finally:
                response.close()
        except (TransientError, TlsError) as error:
            raise invalid(f"failed to GET {public(url)}: {error}") from error
        finally:
            connector.close()


def _private(url: str) -> list[addresses.Address]:
    """The private addresses of a URL's host; never loopback or link-local ones."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError):
        return []
    plain = [addresses.plain(str(entry[4][0])) for entry in found]
    return [one for one in plain if one.is_private and not one.is_loopback]


def _moment(text: str | None) -> int:
    if not text:
        return 0
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp()) * 1_000_000_000
    except (ValueError, TypeError, OverflowError):
        return 0
