"""Our seeds before Debian's real cloud-init: its schema, and a first boot of a host with systemd."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.api import SeedRequest
from machine.cloudinit import CloudSeeds
from tests.lab.cloudhosts import CloudHost, CloudHosts, CloudSeed
from tests.lab.lab import Lab

pytestmark = pytest.mark.live

THEIRS = b"""#cloud-config
write_files:
  - path: /etc/theirs
    content: from the user
runcmd:
  - [touch, /run/theirs-ran]
users:
  - name: colleague
    lock_passwd: true
hostname: not-ours
"""


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Iterator[CloudHosts]:
    made = CloudHosts(lab)
    yield made
    made.close()


def seeded(folder: Path, hosts: CloudHosts, request: SeedRequest) -> tuple[CloudHost, object]:
    seed = CloudSeeds("web", f"i-{folder.name}", folder).seed(request)
    made = CloudSeed(f"i-{folder.name}", seed.user_data, hostname="web")
    return hosts.create(made, wait=True), seed


def status(host: CloudHost) -> dict[str, object]:
    said = host.host.run("cloud-init", "status", "--wait", "--format", "json", check=False)
    return dict(json.loads(said.stdout))


def test_schema_and_first_boot(tmp_path: Path, hosts: CloudHosts) -> None:
    host, seed = seeded(tmp_path, hosts, SeedRequest("debian"))
    assert status(host)["status"] == "done"
    place = "var/lib/cloud/seed/nocloud/user-data"
    checked = host.host.run("cloud-init", "schema", "--config-file", f"/{place}", check=False)
    assert "Valid" in checked.stdout, checked.stdout + checked.stderr
    assert "deprec" not in checked.stdout + checked.stderr, checked.stdout
    assert host.host.run("hostname").stdout.strip() == "web"
    shown = {
        " ".join(line.split()[:2])
        for kind in ("ed25519", "ecdsa")
        for line in [host.host.run("cat", f"/etc/ssh/ssh_host_{kind}_key.pub").stdout]
    }
    assert shown == set(seed.host_keys)  # type: ignore[attr-defined]
    assert host.host.run("id", "-un", "debian").stdout.strip() == "debian"
    rights = host.host.run("su", "debian", "-c", "sudo -n id -u").stdout
    assert rights.strip() == "0"


@pytest.mark.parametrize("limit", [16384, 4000])
def test_the_users_own_part_is_merged(tmp_path: Path, hosts: CloudHosts, limit: int) -> None:
    host, seed = seeded(tmp_path, hosts, SeedRequest("root", THEIRS, limit=limit))
    data: bytes = seed.user_data  # type: ignore[attr-defined]
    assert (data[:2] == b"\x1f\x8b") == (limit == 4000)
    assert b"multipart" in (gzip.decompress(data) if limit == 4000 else data)
    assert status(host)["status"] == "done"
    assert host.host.run("cat", "/etc/theirs").stdout == "from the user"
    host.host.run("test", "-e", "/run/theirs-ran")
    host.host.run("test", "-e", "/run/machine-packages.sh")
    assert host.host.run("id", "-un", "colleague").stdout.strip() == "colleague"
    assert host.host.run("hostname").stdout.strip() == "web"
    assert "machine" in host.host.run("cat", "/var/lib/cloud/instance/scripts/runcmd").stdout
