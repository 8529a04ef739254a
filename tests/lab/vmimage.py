"""What a virtual machine boots from: Debian's kernel, a tiny initrd, a disk, and the emulator.

The disk holds a systemd host's root (see `hostroot`) with a kernel's modules and udev. There is no
boot loader and no initramfs-tools: the initrd is busybox, three drivers and ten lines of shell,
which saves 9 of 25 seconds under emulation. What makes a machine itself (name, keys, network)
comes as a second archive behind the initrd, unpacked at the first boot: no cloud-init, no time.
"""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import key_of
from tests.lab.debian import MINIMAL_KEY, Debian
from tests.lab.hostroot import SYSTEMD_FULL_KEY, HostRoots
from tests.lab.process import run

IMAGE_ON_VM = "/image"  # where the emulator sees the image's folder: the overlay's backing file
MODULES_NEEDED = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4")
_DISK = "3G"  # sparse
_EMULATOR = "qemu-system-x86 qemu-utils busybox-static"
_PACKAGES = "udev"
# the kernel is unpacked, not installed: its package would build an initramfs for half a minute
_AFTER = """\
apt-get -q -y install --no-install-recommends --download-only linux-image-cloud-amd64
mkdir /kernel
dpkg-deb -x /var/cache/apt/archives/linux-image-[0-9]*-cloud-amd64_*.deb /kernel
cp -a /kernel/lib/modules /usr/lib/
cp /kernel/boot/vmlinuz-* /boot/vmlinuz
rm -r /kernel
depmod "$(ls /usr/lib/modules)"
cd /etc/systemd/system
rm -f systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
  systemd-udev-trigger.service systemd-sysctl.service sys-fs-fuse-connections.mount
# a cold start of every device takes seconds under emulation; the network is what needs it
mkdir systemd-udev-trigger.service.d
printf '[Service]\\nExecStart=\\nExecStart=udevadm trigger --action=add --subsystem-match=net\\n' \
  >systemd-udev-trigger.service.d/lab.conf
systemctl enable systemd-networkd
# user@: a service manager for each login would double the time of one
for unit in systemd-networkd-wait-online systemd-network-generator systemd-journal-flush \
  systemd-update-utmp systemd-update-utmp-runlevel kmod-static-nodes systemd-pstore \
  systemd-journal-catalog-update systemd-update-done systemd-networkd-persistent-storage \
  user@ user-runtime-dir@ modprobe@configfs modprobe@drm modprobe@efi_pstore modprobe@fuse modprobe@dm_mod modprobe@loop
do ln -sf /dev/null $unit.service; done
printf '/dev/vda / ext4 defaults,noatime 0 0\\n' >/etc/fstab
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nAudit=no\\n' >/etc/systemd/journald.conf.d/lab.conf
"""
_INIT = """\
#!/bin/sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
while read module; do $b insmod /modules/$module; done </modules/list
n=0; while [ ! -b /dev/vda ] && [ $n -lt 500 ]; do $b usleep 10000; n=$((n+1)); done
$b mount -t ext4 -o rw,noatime /dev/vda /root || { echo "lab: no root file system"; $b poweroff -f; }
[ -e /root/etc/lab-seeded ] || { $b cp -a /seed/. /root/ && : >/root/etc/lab-seeded; }
$b umount /proc
$b mount -o move /dev /root/dev
exec $b switch_root /root /sbin/init
"""
_EMULATOR_KEY = key_of("emulator", 1, MINIMAL_KEY, _EMULATOR)
ROOT_KEY = key_of("vm-root", 1, SYSTEMD_FULL_KEY, _PACKAGES, _AFTER)
_IMAGE_KEY = key_of("vm", 1, ROOT_KEY, _EMULATOR_KEY, _INIT, MODULES_NEEDED, _DISK)


@dataclass(frozen=True)
class Entry:
    """One file of an archive; `mode` with the file type, as stat(2) has it."""

    name: str
    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0


def archive(entries: Iterable[Entry]) -> bytes:
    """A cpio archive as the kernel unpacks them ("newc", initramfs buffer format); parents first.

    Several, one after the other, are one file system: each is padded to 512 bytes.
    """
    out = bytearray()
    for number, entry in enumerate((*entries, Entry("TRAILER!!!", 0)), 1):
        name = entry.name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (
            number, entry.mode, entry.uid, entry.gid, links, 0, len(entry.data), 0, 0, 0, 0,
            len(name), 0,
        )  # fmt: skip
        out += b"070701" + b"".join(b"%08x" % value for value in fields) + name
        out += bytes(-len(out) % 4)
        out += entry.data
        out += bytes(-len(out) % 4)
    return bytes(out + bytes(-len(out) % 512))


def tree(top: Path, prefix: str) -> Iterator[Entry]:
    """The folders and regular files below `top`, named below `prefix`."""
    yield Entry(prefix, stat.S_IFDIR | 0o755)
    for place in sorted(top.rglob("*")):
        info = place.lstat()
        data = place.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        name = f"{prefix}/{place.relative_to(top)}"
        yield Entry(name, info.st_mode, data, info.st_uid, info.st_gid)


def load_order(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """The files to insmod, dependencies first, from the text of modules.dep(5).

    A name that is not there is built into the kernel.
    """
    needs: dict[str, list[str]] = {}
    files: dict[str, str] = {}
    for line in modules_dep.splitlines():
        file, _, rest = line.partition(":")
        needs[file] = rest.split()
        files[Path(file).name.partition(".")[0].replace("-", "_")] = file
    order: dict[str, None] = {}

    def visit(file: str) -> None:
        if file not in order:
            for other in needs[file]:
                visit(other)
            order[file] = None

    for name in wanted:
        if name in files:
            visit(files[name])
    return list(order)


@dataclass(frozen=True)
class VmImages:
    """Builds and finds them in the cache."""

    debian: Debian

    def emulator(self) -> Path:
        """A layer over the minimal system with qemu and busybox. About 40 s, 40 MB of packages."""

        def build(place: Path) -> None:
            self.debian.layer(place, [self.debian.minimal()], _EMULATOR)

        return self.debian.cache.entry("vm-emulator", _EMULATOR_KEY, build) / "root"

    def root(self) -> list[Path]:
        """The layers of a virtual machine's root, topmost first."""
        below = list(HostRoots(self.debian).layers("systemd", "full"))

        def build(place: Path) -> None:
            self.debian.layer(place, below, _PACKAGES, _AFTER)

        return [self.debian.cache.entry("vm-root", ROOT_KEY, build) / "root", *below]

    def image(self) -> Path:
        """A folder with `vmlinuz`, `initrd`, `disk.raw`, and `overlay.qcow2`: an empty difference
        to disk.raw at IMAGE_ON_VM, to be copied for each machine."""

        def build(place: Path) -> None:
            layers = self.root()
            emulator = self.emulator()
            shutil.copyfile(layers[0] / "boot/vmlinuz", place / "vmlinuz")
            (place / "initrd").write_bytes(_initrd(layers[0], emulator / "usr/bin/busybox"))
            _make_disk(layers, place)
            self._make_overlay(place, emulator)

        return self.debian.cache.entry("vm-image", _IMAGE_KEY, build)

    def _make_overlay(self, place: Path, emulator: Path) -> None:
        backing = f"{IMAGE_ON_VM}/disk.raw"
        options = f"-f qcow2 -o backing_file={backing},backing_fmt=raw -u"
        scratch = place / "scratch"
        script = f"cd /var/tmp; qemu-img create -q {options} overlay.qcow2 {_DISK}"
        layers = [emulator, self.debian.minimal()]
        self.debian.layer_offline(scratch, layers, script)
        (scratch / "root/var/tmp/overlay.qcow2").rename(place / "overlay.qcow2")
        shutil.rmtree(scratch)


def _initrd(root: Path, busybox: Path) -> bytes:
    (modules,) = (root / "usr/lib/modules").iterdir()
    order = load_order((modules / "modules.dep").read_text(), MODULES_NEEDED)
    names = [Path(file).name for file in order]
    folders = ("bin", "dev", "modules", "proc", "root", "seed")
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in folders]
    entries += [
        Entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
        Entry("init", stat.S_IFREG | 0o755, _INIT.encode()),
        Entry("modules/list", stat.S_IFREG | 0o644, "".join(f"{n}\n" for n in names).encode()),
    ]
    entries += [
        Entry(f"modules/{name}", stat.S_IFREG | 0o644, (modules / file).read_bytes())
        for name, file in zip(names, order, strict=True)
    ]
    return archive(entries)


def _make_disk(layers: list[Path], place: Path) -> None:
    """One ext4 file system out of the layers, without a loop device or a mount that stays."""
    top, disk = place / "top", place / "disk.raw"
    top.mkdir()
    lower = ":".join(map(str, layers))
    with disk.open("wb"):
        os.truncate(disk, 3 << 30)
    script = (
        'mount -t overlay lab -o "lowerdir=$1" "$2"\n'
        'mkfs.ext4 -q -F -m 0 -L lab -E lazy_itable_init=1,nodiscard -d "$2" "$3"'
    )
    run(["unshare", "--mount", "sh", "-ec", script, "sh", lower, str(top), str(disk)])
    top.rmdir()
