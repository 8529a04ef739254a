"""The agent as one file: pure Python sources and h11, packed the same way every time.

The hash is that of the uncompressed archive, so it does not depend on the zlib at hand. What was
packed once is kept in the cache folder under a key made of the sources' names, sizes and times.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from machine.errors import MachineError
from machine.store.files import ensure_dir, write_atomic

MAIN: Final = b"""import sys

from agent.__main__ import main

sys.exit(main())
"""
_KEPT: Final = 3  # bundles in the cache


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """`folder` is the name below /opt/machine, `data` a tar.gz of plain files."""

    folder: str
    sha256: str
    data: bytes


def find_sources() -> list[tuple[str, Path]]:
    """(name in the archive, file) of the packages `agent` and `h11` as they are installed here.

    Raises MachineError when one of them is not there.
    """
    out: list[tuple[str, Path]] = []
    for package in ("agent", "h11"):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise MachineError(
                f"The package {package} is not installed, so there is no agent to send"
            )
        root = Path(next(iter(spec.submodule_search_locations)))
        out += [(f"{package}/{path.relative_to(root).as_posix()}", path) for path in _files(root)]
    return sorted(out)


def pack(files: Iterable[tuple[str, bytes]]) -> Bundle:
    """Pure: the same files give the same bundle."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in [*files, ("__main__.py", MAIN)]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    content = plain.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return Bundle(f"agent-{digest[:16]}", digest, gzip.compress(content, 6, mtime=0))


def load(cache: Path) -> Bundle:
    """The bundle of the installed sources, from the cache when they have not changed."""
    sources = find_sources()
    kept = cache / f"bundle-{_key(sources)}.tar.gz"
    try:
        data = kept.read_bytes()
        digest = hashlib.sha256(gzip.decompress(data)).hexdigest()
        return Bundle(f"agent-{digest[:16]}", digest, data)
    except (OSError, EOFError, gzip.BadGzipFile):
        pass
    bundle = pack((name, path.read_bytes()) for name, path in sources)
    ensure_dir(cache)
    write_atomic(kept, bundle.data)
    _prune(cache)
    return bundle


def _files(root: Path) -> list[Path]:
    return [
        path
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "tests" not in path.relative_to(root).parts
    ]


def _key(sources: list[tuple[str, Path]]) -> str:
    digest = hashlib.sha256(MAIN)
    for name, path in sources:
        found = path.stat()
        digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def _prune(cache: Path) -> None:
    kept = sorted(cache.glob("bundle-*.tar.gz"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in kept[_KEPT:]:
        path.unlink(missing_ok=True)
