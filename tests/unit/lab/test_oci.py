import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import IO

from tests.lab.oci import Blobs, Built, Config, fill_store, load, write_tar


def _write_layer(sink: IO[bytes]) -> None:
    sink.write(b"layer")


def _blob(blobs: Blobs, digest: str) -> bytes:
    data = (blobs.folder / digest.removeprefix("sha256:")).read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
    return data


def test_a_layer_has_files_links_and_modes_but_no_kernel_views(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "proc").mkdir()
    (root / "proc/x").touch()
    (root / "bin/a").write_text("A")
    (root / "bin/a").chmod(0o4755)
    os.link(root / "bin/a", root / "bin/b")
    (root / "bin/c").symlink_to("a")
    sink = io.BytesIO()
    write_tar(root, sink)
    sink.seek(0)
    with tarfile.open(fileobj=sink) as archive:
        members = {m.name: m for m in archive}
    assert sorted(members) == ["bin", "bin/a", "bin/b", "bin/c", "proc"]
    assert members["bin/a"].mode == 0o4755
    assert (members["bin/b"].islnk(), members["bin/b"].linkname) == (True, "bin/a")
    assert members["bin/c"].linkname == "a"


def test_digests_name_what_they_should(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    layer = blobs.gzip_layer(_write_layer)
    packed = _blob(blobs, layer.digest)
    assert len(packed) == layer.size
    assert f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}" == layer.diff_id
    made = blobs.manifest([layer], Config(["sh"]), "amd64", "oci")
    manifest = json.loads(_blob(blobs, made.digest))
    config = json.loads(_blob(blobs, manifest["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == [layer.diff_id]
    assert config["config"]["Cmd"] == ["sh"]
    index = json.loads(_blob(blobs, blobs.index([made], "oci").digest))
    assert index["manifests"][0]["platform"] == {"architecture": "amd64", "os": "linux"}


def test_the_store_has_tags_manifests_and_layers_linked(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "image/blobs")
    layer = blobs.gzip_layer(_write_layer)
    made = blobs.manifest([layer], Config(), "amd64")
    listing = blobs.index([made])
    built = Built((layer,), {"library/x:latest": listing.digest})
    built.save(tmp_path / "image")
    assert load(tmp_path / "image") == built
    fill_store(tmp_path / "store", [tmp_path / "image"])
    place = tmp_path / "store/docker/registry/v2/repositories/library/x"
    assert (place / "_manifests/tags/latest/current/link").read_text() == listing.digest
    revisions = {p.name for p in (place / "_manifests/revisions/sha256").iterdir()}
    assert revisions == {made.digest[7:], listing.digest[7:]}
    assert layer.digest[7:] in {p.name for p in (place / "_layers/sha256").iterdir()}
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["docker"]
