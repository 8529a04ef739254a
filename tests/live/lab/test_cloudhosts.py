"""Hosts of emulators: Debian's cloud-init applies the seed for real."""

import gzip
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cloudhosts import CloudHosts, CloudSeed
from tests.lab.host import new_ssh_key
from tests.lab.lab import Lab
from tests.lab.process import run
from tests.lab.waiting import wait_until


@pytest.fixture
def cloud_hosts(lab: Lab) -> Iterator[CloudHosts]:
    made = CloudHosts(lab)
    try:
        yield made
    finally:
        made.close()


def _user_data(login: str, host_key: tuple[str, str]) -> bytes:
    private = textwrap.indent(host_key[0], "    ")
    return (
        f"#cloud-config\nhostname: web\nusers:\n- name: ubuntu\n  ssh_authorized_keys: ['{login}']\n"
        f"ssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: {host_key[1]}"
        "runcmd:\n- [touch, /var/lib/ran]\n"
    ).encode()


def test_a_seed_is_applied_once_and_the_address_may_change(
    cloud_hosts: CloudHosts, tmp_path: Path
) -> None:
    login, host_key = new_ssh_key("login"), new_ssh_key("host")
    key, known = tmp_path / "key", tmp_path / "known"
    key.write_text(login[0])
    key.chmod(0o600)
    seed = CloudSeed("i-1", gzip.compress(_user_data(login[1].strip(), host_key)), hostname="x")
    box = cloud_hosts.create(seed, wait=True)
    options = ["-oStrictHostKeyChecking=yes", f"-oUserKnownHostsFile={known}", "-oBatchMode=yes"]

    def remote(command: str) -> str:
        known.write_text(f"{box.ip} {host_key[1]}")
        argv = ["ssh", "-F", "none", "-i", str(key), *options, f"ubuntu@{box.ip}", command]
        return run(argv).stdout.strip()

    assert remote("hostname") == "web"
    wait_until(lambda: box.host.run("test", "-e", "/var/lib/ran", check=False).returncode == 0, 30,
               "runcmd")  # fmt: skip
    done = box.host.run("sh", "-c", "cloud-init status --wait >&2; cat /run/cloud-init/result.json")
    assert json.loads(done.stdout)["v1"]["errors"] == []
    box.host.run("rm", "/var/lib/ran")
    before = box.ip
    box.shut_down()
    assert not box.on
    assert not box.answers()
    box.start(move=True, wait=True)
    assert box.ip != before
    assert remote("sudo -n true; hostname") == "web"
    box.host.run("cloud-init", "status", "--wait")
    assert box.host.run("test", "-e", "/var/lib/ran", check=False).returncode == 1
    assert cloud_hosts.left() == ["i-1"]
    box.destroy()
    box.destroy()
    assert cloud_hosts.left() == []
