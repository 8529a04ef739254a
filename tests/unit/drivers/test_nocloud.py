"""The seed disc, read back by a library that is not ours."""

import io
import stat
from pathlib import Path

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.nocloud import SECTOR, iso9660, seed_image, write_seed


def read(image: bytes) -> dict[str, bytes]:
    """The files by their Joliet names; the primary tree must have the same contents."""
    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(image))
    found: dict[str, bytes] = {}
    for kind in ("joliet_path", "iso_path"):
        contents = []
        for child in disc.list_children(**{kind: "/"}):
            if child.is_dir():
                continue
            out = io.BytesIO()
            encoded = child.file_identifier()
            name = encoded.decode("utf-16-be" if kind == "joliet_path" else "ascii")
            disc.get_file_from_iso_fp(out, **{kind: f"/{name}"})
            contents.append(out.getvalue())
            if kind == "joliet_path":
                found[name.removesuffix(";1")] = out.getvalue()
        assert sorted(contents) == sorted(found.values())
    disc.close()
    return found


def test_cloud_init_finds_its_files() -> None:
    image = seed_image(b"#cloud-config\n{}\n", b"instance-id: x\n", b"version: 2\n")
    assert read(image) == {
        "user-data": b"#cloud-config\n{}\n",
        "meta-data": b"instance-id: x\n",
        "network-config": b"version: 2\n",
    }
    assert len(image) % SECTOR == 0


def test_without_network_config_there_is_no_such_file() -> None:
    assert set(read(seed_image(b"a", b"b"))) == {"user-data", "meta-data"}


@pytest.mark.parametrize("at", [16, 17])
def test_the_label_is_where_blkid_looks(at: int) -> None:
    image = seed_image(b"a", b"b")
    label = image[at * SECTOR + 40 : at * SECTOR + 72]
    text = label.decode("utf-16-be").rstrip("\0") if at == 17 else label.decode().rstrip()
    assert text == "cidata"


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert seed_image(b"a", b"b", b"c") == seed_image(b"a", b"b", b"c")


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "user-data", "b.txt", "network-config"]), st.binary(max_size=5000)))  # fmt: skip
def test_any_contents_come_back(files: dict[str, bytes]) -> None:
    assert read(iso9660(files, "cidata")) == files


def test_names_without_an_8_3_form_of_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match="same in 8"):
        iso9660({"network-config": b"", "network-data": b""}, "x")


def test_too_many_files_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        iso9660({f"f{n}": b"" for n in range(100)}, "x")


def test_a_seed_is_private_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    for data in (b"one", b"two"):
        write_seed(path, data)
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
