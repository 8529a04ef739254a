"""What is to be made, from options; images by their first bytes."""

import dataclasses
import ipaddress
import struct
from pathlib import Path

import pytest

from drivers.api import DriverContext
from drivers.errors import InvalidError
from drivers.libvirt import plan
from drivers.libvirt.options import OPTIONS
from drivers.testkit import context

MACHINE = "0f8fad5b-d9cb-469f-a165-70867728950e"


def ctx_of(folder: Path, **given: object) -> DriverContext:
    options = {key.replace("_", "-"): value for key, value in given.items()}
    return context(folder, OPTIONS, options)  # type: ignore[arg-type]


def qcow2(size: int, *, version: int = 3, backing: int = 0, incompatible: int = 0) -> bytes:
    """A header as docs/interop/qcow2.txt has it: magic, version, backing offset and size,
    cluster bits, disk size ... incompatible features at 72."""
    head = b"QFI\xfb" + struct.pack(">IQIIQ", version, backing, 0, 16, size)
    return head.ljust(72, b"\0") + struct.pack(">Q", incompatible) + bytes(24)


def test_the_defaults_have_no_problem(tmp_path: Path) -> None:
    assert plan.problems(ctx_of(tmp_path)) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cpus": 0}, "--libvirt-cpus 0"),
        ({"memory": 100}, "--libvirt-memory 100"),
        ({"disk_size": 0}, "--libvirt-disk-size 0"),
        ({"extra_disk": ("1", "x")}, '--libvirt-extra-disk takes a size in GiB, not "x"'),
        ({"extra_disk": ("1",) * 21}, "at most 20"),
        ({"firmware": "coreboot"}, "--libvirt-firmware coreboot: there is only bios, uefi"),
        ({"accelerator": "hax"}, "--libvirt-accelerator hax"),
        ({"share_type": "nfs"}, "--libvirt-share-type nfs"),
        ({"share": ("relative:/x",)}, "FOLDER:WHERE"),
        ({"share": ("/a:/b:no",)}, "FOLDER:WHERE"),
        ({"share": ("/a:/b:ro",)}, "needs --libvirt-share-type 9p"),
        ({"network": "a", "bridge": "b"}, "exclude each other"),
        ({"network": "a b"}, '--libvirt-network "a b"'),
        ({"bridge": "much-too-long-a-name"}, "--libvirt-bridge"),
        ({"pool": "-x"}, '--libvirt-pool "-x"'),
        ({"ssh_user": "Root!"}, '--libvirt-ssh-user "Root!"'),
        ({"ssh_user": ""}, "--libvirt-ssh-user"),
        ({"image_checksum": "sha512:12", "image": "/x"}, "--libvirt-image-checksum"),
        ({"image_checksum": f"sha256:{'0' * 64}"}, "is for a --libvirt-image of yours"),
        ({"uri": "xen:///system"}, "only qemu://"),
        ({"userdata": "/nowhere/user-data"}, "--libvirt-userdata /nowhere/user-data"),
    ],
)
def test_each_wrong_option_is_told(tmp_path: Path, given: dict[str, object], told: str) -> None:
    (problem,) = plan.problems(ctx_of(tmp_path, **given))
    assert told in problem


def test_all_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    assert len(plan.problems(ctx_of(tmp_path, cpus=0, firmware="x", share=("y",), uri="z"))) == 4


def test_user_data_is_read_within_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "user-data"
    file.write_bytes(b"#cloud-config\n")
    assert plan.userdata(ctx_of(tmp_path, userdata=str(file))) == b"#cloud-config\n"
    file.write_bytes(bytes(plan.MOST_USERDATA + 1))
    with pytest.raises(InvalidError, match="512 KiB"):
        plan.userdata(ctx_of(tmp_path, userdata=str(file)))


@pytest.mark.parametrize(
    ("given", "expected", "local", "session"),
    [
        ("qemu:///system", "qemu:///system", True, False),
        ("qemu:///session", "qemu:///session", True, True),
        (
            "qemu+unix:///system?socket=/run/a/libvirt-sock",
            "qemu+unix:///system?socket=/run/a/libvirt-sock",
            True,
            False,
        ),
        ("qemu+ssh://me@host/system", "qemu+ssh://me@host/system?no_tty=1", False, False),
        (
            "qemu+ssh://host:2222/session?keyfile=/k",
            "qemu+ssh://host:2222/session?keyfile=/k&no_tty=1",
            False,
            True,
        ),
        ("qemu+ssh://host/system?no_tty=0", "qemu+ssh://host/system?no_tty=0", False, False),
        ("qemu+tls://host/system", "qemu+tls://host/system", False, False),
    ],
)
def test_uris(given: str, expected: str, local: bool, session: bool) -> None:
    assert plan.tidy_uri(given) == expected
    assert plan.is_local(given) is local
    assert plan.is_session(given) is session


def test_names_of_a_machine_are_its_own() -> None:
    name = plan.volume(MACHINE, "disk.qcow2")
    assert name == f"machine-{MACHINE}-disk.qcow2"
    assert name.startswith(plan.volume_prefix(MACHINE))
    assert not name.startswith(plan.BASE_PREFIX)
    mac = plan.mac(MACHINE)
    assert mac == plan.mac(MACHINE)
    assert mac.startswith("52:54:00:")
    assert mac != plan.mac(MACHINE.replace("0f", "1f"))


def test_a_subnet_is_taken_where_nothing_is() -> None:
    first, second, *_ = plan.subnets([])
    assert str(first) == "192.168.150.0/24"
    assert plan.subnets([first])[0] == second
    half = ipaddress.IPv4Network("192.168.0.0/17")
    assert plan.subnets([half])[0] == first
    assert plan.subnets([ipaddress.IPv4Network("192.168.0.0/16")]) == []


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (qcow2(5 << 30), plan.Picture("qcow2", 5 << 30, backing=False)),
        (qcow2(1 << 20, version=2), plan.Picture("qcow2", 1 << 20, backing=False)),
        (qcow2(1 << 20, backing=112), plan.Picture("qcow2", 1 << 20, backing=True)),
        (qcow2(1 << 20, incompatible=4), plan.Picture("qcow2", 1 << 20, backing=True)),  # data file
        (b"\xeb\x63\x90" + bytes(60), plan.Picture("raw", 4096, backing=False)),
    ],
)
def test_images_are_known_by_their_first_bytes(head: bytes, expected: plan.Picture) -> None:
    assert plan.picture(head, 4096) == expected


def test_an_image_that_would_read_other_files_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    image.write_bytes(qcow2(1 << 20, backing=112))
    with pytest.raises(InvalidError, match="refers to another file"):
        plan.look(image)
    image.write_bytes(b"")
    with pytest.raises(InvalidError, match="is empty"):
        plan.look(image)
    with pytest.raises(InvalidError, match="No such file"):
        plan.look(tmp_path / "none")


def test_checksums_are_for_files_and_go_along_with_urls(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert plan.verify(image, "") == digest
    assert plan.verify(image, f"sha256:{digest.upper()}") == digest
    with pytest.raises(InvalidError, match="its sha256 is"):
        plan.verify(image, f"sha256:{'0' * 64}")
    file = ctx_of(tmp_path, image=str(image), image_checksum=f"sha256:{digest}")
    assert plan.image_given(file) == (str(image), f"sha256:{digest}")
    url = dataclasses.replace(
        file, options={**file.options, "image": "https://example.org/i.qcow2"}
    )
    assert plan.image_given(url) == (f"https://example.org/i.qcow2#sha256={digest}", "")


def test_shares_have_short_tags_of_their_own() -> None:
    one, other = plan.share("/srv/a:/mnt/a"), plan.share("/srv/a:/mnt/b:ro")
    assert (one.folder, one.where, one.read_only) == ("/srv/a", "/mnt/a", False)
    assert other.read_only
    assert one.tag != other.tag
    assert len(one.tag) <= 31


def test_neighbours_are_those_who_answered() -> None:
    table = (
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "192.168.1.7      0x1         0x2         52:54:00:c8:12:E1     *        br0\n"
        "192.168.1.8      0x1         0x0         52:54:00:c8:12:e1     *        br0\n"
        "192.168.1.9      0x1         0x2         52:54:00:00:00:01     *        br0\n"
    )
    assert plan.neighbours(table, "52:54:00:c8:12:e1") == ["192.168.1.7"]
    assert plan.neighbours("", "52:54:00:c8:12:e1") == []
