"""The pure parts of a virtual machine: the initrd's archive, the drivers' order, the hardware."""

import stat

from tests.lab.network import Plug
from tests.lab.vm import emulator_argv
from tests.lab.vmimage import Entry, archive, load_order, tree

DEP = """\
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/virtio.ko
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/virtio.ko:
kernel/drivers/net/virtio-net.ko: kernel/net/failover.ko kernel/virtio.ko
kernel/net/failover.ko:
"""


def parse(data):
    """An archive's (name, mode, bytes), by the format's own description."""
    found: list[tuple[str, int, bytes, int, int]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = data[at + 110 : at + 109 + name_size].decode()
        begin = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found, data[begin:]
        found.append((name, mode, data[begin : begin + size], numbers[2], numbers[3]))
        at = (begin + size + 3) // 4 * 4


def test_archive():
    entries = [
        Entry("bin", stat.S_IFDIR | 0o755),
        Entry("bin/a", stat.S_IFREG | 0o600, b"12345", 1000, 1001),
        Entry("bin/b", stat.S_IFLNK | 0o777, b"a"),
    ]
    data = archive(entries)
    assert len(data) % 512 == 0
    found, rest = parse(data)
    assert found == [
        ("bin", stat.S_IFDIR | 0o755, b"", 0, 0),
        ("bin/a", stat.S_IFREG | 0o600, b"12345", 1000, 1001),
        ("bin/b", stat.S_IFLNK | 0o777, b"a", 0, 0),
    ]
    assert not rest.strip(b"\0")


def test_tree(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/key").write_text("secret")
    (tmp_path / "etc/key").chmod(0o600)
    found = list(tree(tmp_path, "seed"))
    assert [one.name for one in found] == ["seed", "seed/etc", "seed/etc/key"]
    assert (found[2].mode, found[2].data) == (stat.S_IFREG | 0o600, b"secret")


def test_load_order():
    order = load_order(DEP, ("virtio_pci", "virtio_net", "built_in"))
    assert [name.rpartition("/")[2] for name in order] == [
        "virtio_pci_modern_dev.ko",
        "virtio.ko",
        "virtio_pci.ko",
        "failover.ko",
        "virtio-net.ko",
    ]


def test_never_kvm():
    argv = emulator_argv(Plug("switch", "netns", "10.77.0.11", "10.77.0.1", "tap0").mac)
    assert argv[argv.index("-accel") + 1].startswith("tcg")
    assert not [word for word in argv if "kvm" in word]
    assert any("mac=02:77:0a:4d:00:0b" in word for word in argv)
