import gzip
import io
import tarfile
from pathlib import Path

from machine.provision import bundle


def test_same_sources_same_bundle() -> None:
    files = [("agent/__init__.py", b""), ("h11/x.py", b"y")]
    one, two = bundle.pack(files), bundle.pack(files)
    assert one == two
    assert one.folder == f"agent-{one.sha256[:16]}"
    assert bundle.pack([("agent/__init__.py", b"#")]).folder != one.folder


def test_real_bundle_is_cached(tmp_path: Path) -> None:
    first = bundle.load(tmp_path)
    assert bundle.load(tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 1
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(first.data))) as archive:
        members = archive.getmembers()
    names = {m.name for m in members}
    assert {"__main__.py", "agent/__init__.py", "h11/__init__.py"} <= names
    assert not [n for n in names if n.endswith(".pyc")]
    assert all(m.isfile() and m.mtime == 0 for m in members)


def test_broken_cache_is_made_anew(tmp_path: Path) -> None:
    first = bundle.load(tmp_path)
    next(tmp_path.iterdir()).write_bytes(first.data[:1000])
    assert bundle.load(tmp_path) == first
