"""Commands about machines, over a store in a folder and without a host."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from machine.cli.root import root
from machine.cli.session import Session
from machine.cli.ssh import place
from machine.errors import MachineError
from machine.model import MachineRecord, Phase, SshEndpoint
from machine.store import Store


def _store(folder: Path, *records: MachineRecord) -> Path:
    store = Store(folder / "store")
    for record in records:
        store.save(record)
    return folder / "store"


def _record(name: str, phase: Phase = Phase.READY, **more: object) -> MachineRecord:
    record = MachineRecord(name, "u", "ssh", "t", phase=phase, address="192.0.2.1")
    return record.with_changes(ssh=SshEndpoint("192.0.2.1"), **more)


def _run(store: Path, *args: str, stdin: str = "", **env: str) -> tuple[int, str]:
    out = io.StringIO()
    session = Session("machine", env, io.StringIO(stdin), out, out)
    status = root.main(
        ["-s", str(store), *args], prog_name="machine", standalone_mode=False, obj=session
    )
    return status if isinstance(status, int) else 0, out.getvalue()


def test_ls_q_asks_nobody(tmp_path: Path) -> None:
    store = _store(tmp_path, _record("web10"), _record("web9"), _record("Db"))
    assert _run(store, "ls", "-q")[1] == "Db\nweb9\nweb10\n"
    assert _run(store, "ls", "-q", "--filter", "name=web")[1] == "web9\nweb10\n"


def test_env_of_a_create_that_has_not_finished(tmp_path: Path) -> None:
    store = _store(tmp_path, _record("web", Phase.CREATING))
    for command in ("env", "config"):
        with pytest.raises(MachineError, match="not created to its end") as caught:
            _run(store, command, "web", SHELL="/bin/sh")
        assert "create" in caught.value.hint


def test_env_refuses_a_name_with_unset_and_more_than_one(tmp_path: Path) -> None:
    store = _store(tmp_path, _record("web"))
    with pytest.raises(MachineError, match="Expected no machine name"):
        _run(store, "env", "-u", "web", SHELL="/bin/sh")
    with pytest.raises(MachineError, match="Expected one machine name"):
        _run(store, "env", "web", "web", SHELL="/bin/sh")


def test_rm_says_what_it_will_do_and_does_nothing_without_a_yes(tmp_path: Path) -> None:
    store = _store(tmp_path, _record("web"), _record("half", Phase.CREATING))
    for args, said in (
        (["web"], "the host keeps the engine"),
        (["--uninstall", "web"], "the engine with all its containers"),
        (["half"], "delete both local reference and remote instance"),
        (["nope"], "delete both local reference and remote instance"),
    ):
        for answer in ("", "n\n", "\n"):
            status, text = _run(store, "rm", *args, stdin=answer)
            assert status == 0
            assert said in text
    assert _run(store, "ls", "-q")[1] == "half\nweb\n"


def test_rm_of_an_adopted_host_only_forgets(tmp_path: Path) -> None:
    store = _store(tmp_path, _record("web", driver_options={"ip-address": "192.0.2.1"}))
    assert "Successfully removed web" in _run(store, "rm", "web", stdin="y\n")[1]
    assert _run(store, "ls", "-q")[1] == ""


@pytest.mark.parametrize(
    ("text", "on_machine", "path"),
    [
        ("web:/x", True, "web:/x"),
        ("me@web:x y", True, "me@web:x y"),
        ("web:", True, "web:"),
        ("/a:b", False, "/a:b"),
        ("a/b:c", False, "a/b:c"),
        ("plain", False, "plain"),
        ("localhost:/x", False, "/x"),
        ("C:\\x", False, "./C:\\x"),
    ],
)
def test_places_of_scp(tmp_path: Path, text: str, on_machine: bool, path: str) -> None:
    session = Session("machine", {}, io.StringIO(), io.StringIO(), io.StringIO())
    session.flags = session.flags.__class__(storage_path=str(_store(tmp_path, _record("web"))))
    record, found = place(session, text)
    assert (record is not None, found) == (on_machine, path)


def test_scp_between_two_local_paths(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="Neither path is on a machine"):
        _run(_store(tmp_path), "scp", "a", "b")
    with pytest.raises(MachineError, match="is on this computer already"):
        _run(_store(tmp_path), "mount", "localhost:/x")


def test_hints_name_the_store_that_was_given(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _, text = _run(store, "env", "-u", SHELL="/bin/sh")
    assert text.endswith(f'# eval "$(machine --storage-path {store} env -u)"\n')
    _, text = _run(store, "env", "-u", SHELL="/bin/sh", MACHINE_STORAGE_PATH=str(store))
    assert text.endswith('# eval "$(machine env -u)"\n')


def test_ls_says_that_a_create_has_not_finished(tmp_path: Path) -> None:
    """Not that the engine can't be reached, which follows from it."""
    half = _record("half", Phase.CREATING).with_changes(address="127.0.0.1")
    store = _store(tmp_path, half)
    assert "The create has not finished: run it again" in _run(store, "ls")[1]


def test_rm_says_what_stays_at_the_provider_of_docker_machine(tmp_path: Path) -> None:
    store = _store(tmp_path, _record("web"))
    folder = store / "machines" / "az"
    folder.mkdir(mode=0o700)
    old = {"ConfigVersion": 3, "Name": "az", "DriverName": "azure"}
    old |= {"Driver": {"IPAddress": "192.0.2.1", "MachineName": "az"}, "HostOptions": {}}
    (folder / "config.json").write_text(json.dumps(old))
    (folder / "config.json").chmod(0o600)
    said = _run(store, "rm", "az", "web")[1]
    assert "Of az this deletes the local reference only" in said
    assert "goes on costing" in said


def test_a_store_open_to_others_is_told_with_the_command_that_repairs_it(tmp_path: Path) -> None:
    store = _store(tmp_path, _record("web"))
    store.chmod(0o777)
    with pytest.raises(MachineError, match="not private") as caught:
        _run(store, "ls")
    assert caught.value.hint == f"Repair it with: machine --fix-perms -s {store} ls"
