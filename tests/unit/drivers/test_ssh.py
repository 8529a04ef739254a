from pathlib import Path

import pytest

from drivers import registry
from drivers.api import Completed, HostState
from drivers.errors import DriverError
from drivers.ssh.driver import DRIVER
from drivers.testkit import ScriptedHost, context, created


@pytest.mark.parametrize("bad", ["-oProxyCommand=x", "a b", "$(id)", "a;b", "a'b", "host\u202e"])
def test_case_149_hostile_addresses_are_refused(tmp_path: Path, bad: str) -> None:
    found = DRIVER.check(context(tmp_path, DRIVER.options, {"ip-address": bad}))
    assert len(found) == 1
    assert "no host name" in found[0]


@pytest.mark.parametrize("good", ["10.0.0.1", "web.example", "fe80::1%eth0", "2001:db8::1", "::1"])
def test_addresses(tmp_path: Path, good: str) -> None:
    assert DRIVER.check(context(tmp_path, DRIVER.options, {"ip-address": good})) == []


def test_all_problems_at_once(tmp_path: Path) -> None:
    given = {"ip-address": "-x", "ssh-user": "-l root", "ssh-key": str(tmp_path / "none")}
    assert len(DRIVER.check(context(tmp_path, DRIVER.options, given))) == 3


def test_case_146_open_key_is_refused_and_copies_are_private(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    key.chmod(0o644)
    folder = tmp_path / "machine"
    folder.mkdir()
    ctx = context(folder, DRIVER.options, {"ip-address": "h", "ssh-key": str(key)})
    assert "chmod 600" in DRIVER.check(ctx)[0]
    key.chmod(0o600)
    ctx = created(DRIVER, ctx)
    copy = folder / "id"
    assert copy.read_text() == key.read_text()
    assert copy.stat().st_mode & 0o777 == 0o600
    address = DRIVER.address(ctx)
    assert address.ssh is not None
    assert address.ssh.key_path == str(copy)


def test_unreachable(tmp_path: Path) -> None:
    host = ScriptedHost(closed=[("h", 22)])
    ctx = context(tmp_path, DRIVER.options, {"ip-address": "h"}, host)
    assert DRIVER.check(ctx) == ["SSH at h port 22 can't be reached: Connection refused"]
    assert DRIVER.state(ctx) is HostState.STOPPED


def test_restart_waits_for_another_boot(tmp_path: Path) -> None:
    boots = [Completed(0, "1"), Completed(0, "1"), Completed(255), Completed(0, "2")]
    host = ScriptedHost({"boot_id": boots})
    DRIVER.restart(context(tmp_path, DRIVER.options, {"ip-address": "h"}, host))
    assert "shutdown -r now" in host.commands[1]


def test_restart_that_never_happens(tmp_path: Path) -> None:
    host = ScriptedHost({"boot_id": [Completed(0, "1")]})
    with pytest.raises(DriverError, match="the reboot did not happen"):
        DRIVER.restart(context(tmp_path, DRIVER.options, {"ip-address": "h"}, host))


def test_registry() -> None:
    assert registry.load("generic") is registry.load("ssh") is DRIVER
    assert registry.default_name({}, "linux") == "local"
    assert registry.default_name({}, "darwin") == "ssh"
    assert registry.default_name({"MACHINE_DRIVER": "fake"}) == "fake"
    with pytest.raises(DriverError, match='Driver "bogus" not found'):
        registry.load("bogus")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ssh-ed25519 AAAA me@laptop\n", "is a public key"),
        ("junk\n", "is no SSH private key"),
        ("", "is no SSH private key"),
    ],
)
def test_what_is_no_private_key_is_told_before_anything_is_made(
    tmp_path: Path, text: str, said: str
) -> None:
    key = tmp_path / "id.pub"
    key.write_text(text)
    key.chmod(0o644)
    ctx = context(tmp_path, DRIVER.options, {"ip-address": "h", "ssh-key": str(key)})
    assert said in DRIVER.check(ctx)[0]
