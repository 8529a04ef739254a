"""Images as the registry stores them: layers from folders, configs, manifests, indexes.

Formats: OCI image-spec v1.1 and Docker image manifest v2 schema 2 (most public images of today
are still the latter, so most of ours are).
"""

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol, cast

from tests.lab.errors import LabError

Style = Literal["docker", "oci"]
_OCI = "application/vnd.oci.image."
_DOCKER = "application/vnd.docker."
_TYPES: Mapping[str, Mapping[str, str]] = {
    "docker": {
        "manifest": f"{_DOCKER}distribution.manifest.v2+json",
        "index": f"{_DOCKER}distribution.manifest.list.v2+json",
        "config": f"{_DOCKER}container.image.v1+json",
        "gzip": f"{_DOCKER}image.rootfs.diff.tar.gzip",
    },
    "oci": {
        "manifest": f"{_OCI}manifest.v1+json",
        "index": f"{_OCI}index.v1+json",
        "config": f"{_OCI}config.v1+json",
        "gzip": f"{_OCI}layer.v1.tar+gzip",
        "zstd": f"{_OCI}layer.v1.tar+zstd",
    },
}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Layer:
    """A compressed layer that lies in a `Blobs` folder."""

    digest: str
    size: int
    diff_id: str
    compression: Literal["gzip", "zstd"]


@dataclass(frozen=True)
class Config:
    """What runs in a container of the image, and how (OCI config.md)."""

    command: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    environment: Sequence[str] = ()
    ports: Sequence[str] = ()
    volumes: Sequence[str] = ()
    directory: str = ""
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The "config" object of an image configuration; what is not set is left out."""
        everything: dict[str, object] = {
            "Env": [_PATH, *self.environment],
            "Cmd": list(self.command),
            "Entrypoint": list(self.entrypoint),
            "ExposedPorts": {p: {} for p in self.ports},
            "Volumes": {v: {} for v in self.volumes},
            "WorkingDir": self.directory,
            "StopSignal": self.stop_signal,
            "Labels": dict(self.labels),
        }
        return {k: v for k, v in everything.items() if v}


@dataclass(frozen=True)
class Reference:
    """A manifest or index among the blobs."""

    digest: str
    size: int
    media_type: str
    architecture: str = ""


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


class _Hashed(io.RawIOBase):
    """A writer that counts and hashes what goes through it."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._hash.update(data)
        self.size += len(data)
        self._sink.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _add(archive: tarfile.TarFile, path: Path, name: str, seen: dict[tuple[int, int], str]) -> None:
    info = path.lstat()
    if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:  # overlay's whiteout -> the image's
        folder, _, leaf = name.rpartition("/")
        mark = tarfile.TarInfo(f"{folder}/.wh.{leaf}" if folder else f".wh.{leaf}")
        archive.addfile(mark)
        return
    entry = archive.gettarinfo(str(path), name)
    if entry is None:
        raise LabError(f"{path}: cannot be in an image")
    entry.uname = entry.gname = ""
    inode = (info.st_dev, info.st_ino)
    if entry.isreg() and info.st_nlink > 1:
        if inode in seen:
            entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, seen[inode], 0
        else:
            entry.type = tarfile.REGTYPE
            seen[inode] = name
    if entry.isreg():
        with path.open("rb") as content:
            archive.addfile(entry, content)
        return
    archive.addfile(entry)
    if entry.isdir() and "trusted.overlay.opaque" in os.listxattr(path):
        archive.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))


def write_tar(root: Path, sink: IO[bytes]) -> None:
    """An overlay's upper folder (or a whole root) as an uncompressed layer."""
    seen: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for place, folders, files in os.walk(root):
            folders.sort()
            relative = Path(place).relative_to(root)
            empty = str(relative) in ("dev", "proc", "sys", "tmp")
            if empty:
                folders.clear()
            for name in sorted([*folders, *([] if empty else files)]):
                _add(archive, Path(place, name), str(relative / name), seen)


class Blobs:
    """A folder of blobs named by their digests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> tuple[str, int]:
        """Store `data`; its digest and size."""
        name = hashlib.sha256(data).hexdigest()
        (self.folder / name).write_bytes(data)
        return f"sha256:{name}", len(data)

    def put_json(self, document: Mapping[str, object]) -> tuple[str, int]:
        """Store a JSON document."""
        return self.put(json.dumps(document, separators=(",", ":")).encode())

    def gzip_layer(self, write: Callable[[IO[bytes]], None]) -> Layer:
        """Store what `write` writes as a gzip layer."""
        temporary = self.folder / f".layer-{os.urandom(6).hex()}"
        with temporary.open("wb") as file:
            packed = _Hashed(file)
            with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as middle:
                plain = _Hashed(middle)
                with io.BufferedWriter(cast("io.RawIOBase", plain), 1 << 20) as buffer:
                    write(buffer)
        temporary.rename(self.folder / packed.digest.partition(":")[2])
        return Layer(packed.digest, packed.size, plain.digest, "gzip")

    def zstd_layer(self, layer: Layer) -> Layer:
        """The same layer as `layer` (gzip), compressed with zstd(1)."""
        plain = gzip.decompress((self.folder / layer.digest.partition(":")[2]).read_bytes())
        packed = subprocess.run(
            ["zstd", "-q", "-3", "-c"], input=plain, capture_output=True, check=True
        )
        digest, size = self.put(packed.stdout)
        return Layer(digest, size, layer.diff_id, "zstd")

    def manifest(
        self, layers: Sequence[Layer], config: Config, architecture: str, style: Style = "docker"
    ) -> Reference:
        """Store an image made of `layers` (bottom first)."""
        types = _TYPES[style]
        document = {
            "architecture": architecture,
            "os": "linux",
            "created": _CREATED,
            "config": config.to_json(),
            "rootfs": {"type": "layers", "diff_ids": [x.diff_id for x in layers]},
            "history": [{"created": _CREATED, "created_by": "lab"} for _ in layers],
        }
        digest, size = self.put_json(document)
        body = {
            "schemaVersion": 2,
            "mediaType": types["manifest"],
            "config": {"mediaType": types["config"], "size": size, "digest": digest},
            "layers": [
                {"mediaType": types[x.compression], "size": x.size, "digest": x.digest}
                for x in layers
            ],
        }
        digest, size = self.put_json(body)
        return Reference(digest, size, types["manifest"], architecture)

    def index(self, members: Iterable[Reference], style: Style = "docker") -> Reference:
        """Store an index over images of several architectures."""
        kind = _TYPES[style]["index"]
        rows = [
            {
                "mediaType": m.media_type,
                "digest": m.digest,
                "size": m.size,
                "platform": {"architecture": m.architecture, "os": "linux"}
                | ({"variant": "v8"} if m.architecture == "arm64" else {}),
            }
            for m in members
        ]
        body = {"schemaVersion": 2, "mediaType": kind, "manifests": rows}
        digest, size = self.put_json(body)
        return Reference(digest, size, kind)


@dataclass(frozen=True)
class Built:
    """What a cached image folder holds: its layers, and tags with what they point at."""

    layers: tuple[Layer, ...]
    tags: Mapping[str, str]  # "library/x:tag" -> digest
    members: tuple[str, ...] = ()  # manifests that only an index names

    def save(self, place: Path) -> None:
        """Write image.json."""
        (place / "image.json").write_text(json.dumps(asdict(self)))


def load(place: Path) -> Built:
    """The inverse of Built.save."""
    raw = json.loads((place / "image.json").read_text())
    layers = tuple(Layer(**x) for x in raw["layers"])
    return Built(layers, raw["tags"], tuple(raw["members"]))


def _link(path: Path, digest: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "link").write_text(digest)


def _link_repository(top: Path, blobs: Path, repository: str, digest: str) -> None:
    """Name manifest `digest`, and all that it needs, in a repository."""
    place = top / "repositories" / repository
    _link(place / "_manifests/revisions/sha256" / digest.partition(":")[2], digest)
    body = json.loads((blobs / digest.partition(":")[2]).read_text())
    for member in body.get("manifests", ()):
        _link_repository(top, blobs, repository, member["digest"])
    for blob in [body["config"], *body["layers"]] if "config" in body else ():
        _link(place / "_layers/sha256" / blob["digest"].partition(":")[2], blob["digest"])


def fill_store(store: Path, images: Sequence[Path]) -> None:
    """Lay out `images` as docker-registry's file system driver keeps them (blobs are hard links)."""
    top = store / "docker/registry/v2"
    pool = store / ".pool"
    pool.mkdir(parents=True)
    for image in images:
        for blob in (image / "blobs").iterdir():
            place = top / "blobs/sha256" / blob.name[:2] / blob.name
            if not place.exists():
                place.mkdir(parents=True)
                os.link(blob, place / "data")
                os.link(blob, pool / blob.name)
    for image in images:
        for name, digest in load(image).tags.items():
            repository, _, tag = name.rpartition(":")
            _link_repository(top, pool, repository, digest)
            tags = top / "repositories" / repository / "_manifests/tags" / tag
            _link(tags / "current", digest)
            _link(tags / "index/sha256" / digest.partition(":")[2], digest)
    for blob in pool.iterdir():
        blob.unlink()
    pool.rmdir()
