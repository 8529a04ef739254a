import os
from pathlib import Path

import pytest

from machine.errors import CorruptRecordError, MachineError, NotFoundError
from machine.model import (
    AuthFiles,
    Deployed,
    EngineOptions,
    JournalEntry,
    MachineRecord,
    Phase,
    SshEndpoint,
    StepStatus,
)
from machine.store import Store, codec
from machine.store.names import INVALID, check_new_name


def full(name: str = "web") -> MachineRecord:
    return MachineRecord(
        name=name,
        uuid="u-1",
        driver="generic",
        created="2026-01-01T00:00:00Z",
        phase=Phase.READY,
        driver_options={"ssh-port": 22, "tags": ["a"]},
        driver_state={"key_file": "id"},
        engine=EngineOptions(labels=("a=b",), registry_mirrors=("http://m",), env=("A=ü",)),
        auth=AuthFiles(sans=("x.example",)),
        ssh=SshEndpoint("10.0.0.1", 2222, "debian", "/k"),
        address="10.0.0.1",
        engine_port=2377,
        deployed=Deployed("b", "systemd", "Debian", "2027"),
        journal=(JournalEntry("host", StepStatus.DONE, "t"),),
    )


def test_record_round_trip() -> None:
    assert codec.decode(codec.encode(full()), "web") == full()
    bare = MachineRecord("a", "u", "local", "t")
    assert codec.decode(codec.encode(bare), "a") == bare


def test_url() -> None:
    assert full().url == "tcp://10.0.0.1:2377"
    assert full().with_changes(address="2001:db8::1").url == "tcp://[2001:db8::1]:2377"
    assert full().with_changes(address="").url == ""


def test_save_load_update_forget(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save(full())
    assert store.load("web") == full()
    store.update("web", lambda r: r.with_changes(address="10.0.0.2"))
    assert store.load("web").address == "10.0.0.2"
    assert (store.machine_dir("web") / "config.json.bak").read_bytes() == codec.encode(full())
    store.forget("web")
    store.forget("web")
    with pytest.raises(NotFoundError, match='Docker machine "web" does not exist'):
        store.load("web")


def test_modes(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save(full())
    for path in [store.paths.root, *store.paths.root.rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o777 == wanted, path
    store.check_modes("web")


def test_names_are_sorted_naturally(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    for name in ("web10", "Web2", "alpha", "web1"):
        store.save(full(name))
    assert store.names() == ["alpha", "web1", "Web2", "web10"]


@pytest.mark.parametrize(
    "bad", ["../x", "-rf", ".", "..", "", "a" * 64, "wеb", "con", "COM1", "a.", "a b", "a/b", "a\n"]
)
def test_case_148_bad_names(tmp_path: Path, bad: str) -> None:
    with pytest.raises(MachineError) as caught:
        check_new_name(bad)
    assert caught.value.brief == INVALID
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_case_148_twins() -> None:
    check_new_name("web", ["web", "other"])
    with pytest.raises(MachineError, match="only in case"):
        check_new_name("Web", ["web"])
    check_new_name("a" * 63)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"Schema": 1}', b'{"Schema": "x"}', b"[" * 100_000,
     b"{}", b'{"ConfigVersion": 3}', b" " * (2 << 20)],
)  # fmt: skip
def test_case_164_damage_stays_with_its_machine(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path / "s")
    store.save(full("good"))
    store.save(full("bad"))
    store.save(full("bad"))
    path = store.machine_dir("bad") / "config.json"
    path.write_bytes(damage)
    entries = {e.name: e for e in store.entries()}
    assert entries["good"].record == full("good")
    problem = entries["bad"].problem
    assert isinstance(problem, CorruptRecordError)
    assert "backup is available" in problem.hint
    assert store.restore_backup("bad") == full("bad")
    assert store.load("bad") == full("bad")


def test_case_164_every_flipped_byte_is_read_or_refused(tmp_path: Path) -> None:
    data = codec.encode(full())
    for index in range(0, len(data), 3):
        flipped = data[:index] + bytes([data[index] ^ 0x15]) + data[index + 1 :]
        try:
            codec.decode(flipped, "web")
        except MachineError:
            continue


def test_case_164_folder_without_record_and_foreign_files(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save(full())
    (store.paths.machines / "empty").mkdir()
    (store.paths.machines / "file").write_text("x")
    (store.paths.machines / ".hidden").mkdir()
    assert [(e.name, e.record is not None) for e in store.entries()] == [
        ("empty", False),
        ("web", True),
    ]
    store.forget("empty")
    assert store.names() == ["web"]


def test_case_167_newer_schema_is_refused_and_not_rewritten(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save(full())
    path = store.machine_dir("web") / "config.json"
    newer = path.read_bytes().replace(b'"Schema": 1', b'"Schema": 2')
    path.write_bytes(newer)
    with pytest.raises(MachineError, match="newer version"):
        store.load("web")
    with pytest.raises(MachineError, match="newer version"):
        store.update("web", lambda r: r)
    assert path.read_bytes() == newer


def test_case_166_wide_store_is_refused_and_repaired(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save(full())
    store.paths.root.chmod(0o777)
    (store.machine_dir("web") / "config.json").chmod(0o644)
    with pytest.raises(MachineError) as caught:
        store.check_modes("web")
    assert len(caught.value.details.splitlines()) == 2
    store.fix_modes()
    store.check_modes("web")


def test_case_166_symlink_and_hard_link(tmp_path: Path) -> None:
    real = Store(tmp_path / "real")
    real.save(full())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(MachineError) as caught:
        Store(tmp_path / "link").check_modes()
    assert "symbolic link" in caught.value.details
    key = real.paths.certs / "key.pem"
    key.touch(0o600)
    os.link(key, tmp_path / "stolen")
    with pytest.raises(MachineError) as caught:
        real.check_modes()
    assert "hard links" in caught.value.details


def test_case_165_read_only_or_full_disk_keeps_the_record(tmp_path: Path) -> None:
    """A folder in the way of the temporary file stands for a disk that takes nothing."""
    store = Store(tmp_path / "s")
    store.save(full())
    huge = full().with_changes(driver_state={"x": "y" * 100})
    folder = store.machine_dir("web")
    before = (folder / "config.json").read_bytes()
    (folder / "config.json.bak").unlink(missing_ok=True)
    (folder / "config.json.bak").mkdir()
    with pytest.raises(MachineError, match="Cannot write"):
        store.save(huge)
    assert (folder / "config.json").read_bytes() == before
    assert not [p for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_case_159_second_operation_is_refused_with_the_pid(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with store.operating("web"):
        with pytest.raises(MachineError) as caught, store.operating("web"):
            pass
        assert str(os.getpid()) in caught.value.details
    with store.operating("web"):
        pass
