import json
from pathlib import Path

import pytest

from machine.errors import MachineError
from machine.model import MachineRecord
from machine.store import Store, codec, legacy

GENERIC = {
    "ConfigVersion": 3,
    "Driver": {
        "IPAddress": "10.1.2.3", "MachineName": "old", "SSHUser": "ubuntu", "SSHPort": 2222,
        "SSHKeyPath": "/home/u/.docker/machine/machines/old/id_rsa", "StorePath": "/s",
        "EnginePort": 2377, "SSHKey": "/home/u/.ssh/id_rsa",
    },
    "DriverName": "generic",
    "HostOptions": {
        "EngineOptions": {"Labels": ["a=b"], "RegistryMirror": ["http://m"], "Env": None},
        "AuthOptions": {"ServerCertSANs": ["x.example"]},
    },
    "Name": "old",
}  # fmt: skip


def _decode(doc: object) -> MachineRecord:
    return codec.decode(json.dumps(doc).encode(), "old")


def test_generic_is_imported() -> None:
    record = _decode(GENERIC)
    assert record.imported
    assert record.url == "tcp://10.1.2.3:2377"
    assert record.ssh is not None
    assert (record.ssh.user, record.ssh.port) == ("ubuntu", 2222)
    assert record.engine.labels == ("a=b",)
    assert record.auth.sans == ("x.example",)
    assert record.driver_options["ip-address"] == "10.1.2.3"
    assert _decode(GENERIC).uuid == record.uuid


def test_the_stores_own_copy_of_a_key_comes_first() -> None:
    """SSHKey says where the key was copied from, perhaps years ago on another computer."""
    driver = {"IPAddress": "192.0.2.1", "SSHKey": "/gone/id", "SSHKeyPath": "/store/old/id"}
    doc = {"ConfigVersion": 3, "DriverName": "generic", "Driver": driver}
    assert legacy.decode(doc, "old").driver_options["ssh-key"] == "/store/old/id"


def test_other_drivers_are_shown() -> None:
    record = _decode({**GENERIC, "DriverName": "digitalocean"})
    assert (record.driver, record.imported) == ("digitalocean", True)


@pytest.mark.parametrize(("version", "text"), [(4, "from the future"), (2, "too old")])
def test_versions(version: int, text: str) -> None:
    with pytest.raises(MachineError, match=text):
        _decode({**GENERIC, "ConfigVersion": version})


def test_reading_writes_nothing_and_saving_makes_it_ours(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.prepare()
    folder = store.machine_dir("old")
    folder.mkdir(mode=0o700)
    path = folder / "config.json"
    path.write_text(json.dumps(GENERIC))
    path.chmod(0o600)
    before = path.read_bytes()
    record = store.load("old")
    assert path.read_bytes() == before
    store.save(record)
    assert not store.load("old").imported
    assert (folder / "config.json.bak").read_bytes() == before


def test_inspect_document_has_docker_machines_keys_in_order() -> None:
    doc = legacy.document(_decode(GENERIC), "/s/machines/old", "/s/certs")
    assert list(doc) == ["ConfigVersion", "Driver", "DriverName", "HostOptions", "Name"]
    driver = doc["Driver"]
    assert isinstance(driver, dict)
    assert driver["IPAddress"] == "10.1.2.3"
    assert driver["StorePath"] == "/s"
