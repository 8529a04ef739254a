"""Seeds: the same at every call, whole for cloud-init, and nothing a user gives changes their shape."""

import email
import gzip
import stat
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from drivers.api import SeedRequest
from drivers.errors import DriverError
from machine.cloudinit import CloudSeeds


def seeds(folder: Path) -> CloudSeeds:
    return CloudSeeds("web.example", "6b8b4567-uuid", folder / "m")


def test_a_seed_is_the_same_at_every_call(tmp_path: Path) -> None:
    wanted = SeedRequest("debian", b"#!/bin/sh\ntrue\n")
    assert seeds(tmp_path).seed(wanted) == seeds(tmp_path).seed(wanted)


def test_what_the_host_is_told(tmp_path: Path) -> None:
    seed = seeds(tmp_path).seed(SeedRequest("debian", mounts=(("share", "/mnt/s", "9p"),)))
    told = yaml.safe_load(seed.user_data)
    assert seed.user_data.startswith(b"#cloud-config\n")
    assert told["hostname"] == "web.example"
    assert told["users"][0]["ssh_authorized_keys"] == [seed.public_key]
    assert told["users"][0]["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert told["mounts"][0][:3] == ["share", "/mnt/s", "9p"]
    assert told["disable_root"] is True
    meta = yaml.safe_load(seed.meta_data)
    assert meta == {"instance-id": "6b8b4567-uuid", "local-hostname": "web.example"}
    assert yaml.safe_load(seed.network_config)["version"] == 2


def test_the_host_keys_it_gets_are_those_we_expect(tmp_path: Path) -> None:
    seed = seeds(tmp_path).seed(SeedRequest("root"))
    told = yaml.safe_load(seed.user_data)
    for kind, line in zip(("ed25519", "ecdsa"), seed.host_keys, strict=True):
        private = serialization.load_ssh_private_key(
            told["ssh_keys"][f"{kind}_private"].encode(), None
        )
        public = private.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        assert public.decode() == line
    assert told["disable_root"] is False
    assert "sudo" not in told["users"][0]


def test_keys_are_for_the_owner_only(tmp_path: Path) -> None:
    seed = seeds(tmp_path).seed(SeedRequest("debian"))
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in Path(seed.key_path).parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 6


@pytest.mark.parametrize(
    "name", ['a"\nusers: []\n', "$user", "${hostname}", "x: {y: [", "- !!python/name:os.system"]
)
def test_a_value_stays_a_value(tmp_path: Path, name: str) -> None:
    seed = CloudSeeds(name, "u", tmp_path).seed(SeedRequest(name))
    told = yaml.safe_load(seed.user_data)
    assert (told["hostname"], told["users"][0]["name"]) == (name, name)


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        (b"#cloud-config\npackages: [tree]\n", "text/cloud-config"),
        (b"#!/bin/bash\necho hi\n", "text/x-shellscript"),
        (b"## template: jinja\n#cloud-config\n{}\n", "text/jinja2"),
        (b"#include\nhttps://example.com/x\n", "text/x-include-url"),
    ],
)
def test_the_users_own_part_goes_along(tmp_path: Path, theirs: bytes, kind: str) -> None:
    seed = seeds(tmp_path).seed(SeedRequest("debian", theirs))
    _, second, first = email.message_from_bytes(seed.user_data).walk()
    assert first.get_content_type() == kind
    assert first.get_payload(decode=True) == theirs
    assert second.get_content_type() == "text/cloud-config"
    assert first["Merge-Type"]


@pytest.mark.parametrize(
    ("theirs", "says"),
    [(b"hello\n", 'begins with "hello"'), (b"\xff\xfe", "no text"), (b"\x1b[2J", "begins with")],
)
def test_what_cloud_init_would_ignore_is_refused(tmp_path: Path, theirs: bytes, says: str) -> None:
    with pytest.raises(DriverError, match=says) as caught:
        seeds(tmp_path).seed(SeedRequest("debian", theirs))
    assert "\x1b" not in caught.value.message


def test_a_large_seed_is_compressed_and_a_larger_one_refused(tmp_path: Path) -> None:
    theirs = b"#!/bin/sh\n" + b"# padding\n" * 3000
    seed = seeds(tmp_path).seed(SeedRequest("debian", theirs))
    assert seed.user_data[:2] == b"\x1f\x8b"
    assert b"padding" in gzip.decompress(seed.user_data) or len(seed.user_data) < 16384
    with pytest.raises(DriverError, match="the provider takes 1000"):
        seeds(tmp_path).seed(SeedRequest("debian", theirs, limit=1000))


def test_the_smallest_limit_of_a_provider_holds_it(tmp_path: Path) -> None:
    assert len(seeds(tmp_path).seed(SeedRequest("debian")).user_data) < 16 * 1024 - 2048
