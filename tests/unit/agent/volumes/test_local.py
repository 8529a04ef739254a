from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import EngineError, Kind
from agent.volumes.local import LocalVolumes, checked_name, open_volumes


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_life_of_a_volume(tmp_path: Path) -> None:
    volumes = open_volumes(str(tmp_path))
    made = volumes.create("data", labels={"a": "b"})
    assert made.mountpoint == str(tmp_path / "volumes/data/_data")
    assert (made.driver, made.labels, made.anonymous) == ("local", {"a": "b"}, False)
    assert mode(tmp_path / "volumes") == 0o701
    assert mode(tmp_path / "volumes/data") == 0o701
    assert mode(tmp_path / "volumes/data/_data") == 0o755
    assert volumes.get("data") == made
    (Path(made.mountpoint) / "file").write_text("kept")
    assert volumes.create("data", labels={"other": "x"}) == made
    assert (Path(made.mountpoint) / "file").read_text() == "kept"
    nameless = volumes.create("")
    assert len(nameless.name) == 64
    assert nameless.anonymous
    assert volumes.all() == sorted([made, nameless], key=lambda one: one.name)
    assert open_volumes(str(tmp_path)).all() == volumes.all()
    volumes.remove("data")
    volumes.remove("data")
    with pytest.raises(EngineError, match="get data: no such volume") as error:
        volumes.get("data")
    assert error.value.kind is Kind.NOT_FOUND
    volumes.close()
    assert os.listdir(tmp_path / "volumes") == [nameless.name]


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".", "..", "a", "a b", "-x", ".x", "x\n", "ä1", "x" * 256, "a\0b"]
)
def test_case_069_names(tmp_path: Path, name: str) -> None:
    volumes = open_volumes(str(tmp_path))
    with pytest.raises(EngineError) as error:
        volumes.create(name)
    assert error.value.kind is Kind.INVALID
    with pytest.raises(EngineError) as error:
        volumes.get(name)
    assert error.value.kind is Kind.NOT_FOUND
    volumes.remove(name)
    assert os.listdir(tmp_path / "volumes") == []
    assert os.listdir(tmp_path) == ["volumes"]


def test_case_069_moby_text() -> None:
    with pytest.raises(EngineError) as error:
        checked_name("a/b")
    assert error.value.message == (
        'create a/b: "a/b" includes invalid characters for a local volume name, only '
        '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
        "use absolute path"
    )


@given(st.text(max_size=12))
def test_case_069_a_good_name_is_one_path_component(name: str) -> None:
    try:
        found = checked_name(name)
    except EngineError:
        return
    assert os.path.basename(found) == found
    assert found.isascii()
    assert not found.startswith(".")


def test_drivers_and_options(tmp_path: Path) -> None:
    volumes = open_volumes(str(tmp_path))
    for driver, options, kind, words in (
        ("nfs", {}, Kind.NOT_FOUND, 'plugin "nfs" not found'),
        ("local", {"type": "tmpfs"}, Kind.INVALID, 'missing required option: "device"'),
        ("local", {"device": "/x"}, Kind.INVALID, 'missing required option: "type"'),
        ("local", {"o": "bind", "type": "none"}, Kind.INVALID, 'required option: "device"'),
        ("local", {"size": "1g"}, Kind.INVALID, "no quota support"),
        ("local", {"x": "y"}, Kind.INVALID, 'invalid option: "x"'),
    ):
        with pytest.raises(EngineError, match=words) as error:
            volumes.create("data", driver=driver, options=options)
        assert error.value.kind is kind
    assert volumes.all() == []


def test_case_068_twenty_creators_one_volume(tmp_path: Path) -> None:
    volumes = open_volumes(str(tmp_path))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(volumes.create("same"))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert len(set(map(repr, found))) == 1
    volumes.close()
    assert os.listdir(tmp_path / "volumes") == ["same"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"version": 1}', b"\xff", b'{"version":1,"created":1,"labels":3}'],
)
def test_a_damaged_record_loses_labels_only(tmp_path: Path, damage: bytes) -> None:
    volumes = open_volumes(str(tmp_path))
    made = volumes.create("data", labels={"a": "b"})
    (tmp_path / "volumes/data/volume.json").write_bytes(damage)
    found = volumes.get("data")
    assert (found.name, found.mountpoint, found.labels) == ("data", made.mountpoint, {})
    assert volumes.all() == [found]


def test_leftovers_are_swept(tmp_path: Path) -> None:
    folder = tmp_path / "volumes"
    for name in (".making-1/_data", ".removing-2/_data/deep"):
        (folder / name).mkdir(parents=True)
    volumes: LocalVolumes = open_volumes(str(tmp_path))
    volumes.close()
    assert os.listdir(folder) == []


def test_a_link_is_no_volume(tmp_path: Path) -> None:
    volumes = open_volumes(str(tmp_path))
    (tmp_path / "volumes/evil").mkdir()
    (tmp_path / "volumes/evil/_data").symlink_to("/etc")
    with pytest.raises(EngineError, match="no such volume"):
        volumes.get("evil")
