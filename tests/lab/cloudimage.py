"""A cloud image as providers have them: Debian with cloud-init and GRUB on a partitioned disk, qcow2.

Built of Debian's packages, without a loop device or a mount that stays: mkfs writes the file system
into the disk at the partition's offset, and GRUB's core stands where its boot sector looks for it by
default, in the sectors between that and the partition. The initrd is the lab's small one.
"""

import os
import shutil
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import key_of
from tests.lab.debian import MINIMAL_KEY, Debian
from tests.lab.process import run
from tests.lab.vmimage import MODULES_NEEDED, ROOT_KEY, Entry, VmImages, archive, load_order

_PACKAGES = "cloud-init cloud-guest-utils fdisk e2fsprogs"
_BOOT_TOOLS = "grub-pc-bin grub-common"
# Debian's own, without what asks the network or takes long under emulation and changes nothing here
_CLOUD = """\
datasource_list: [NoCloud, None]
apt: {preserve_sources_list: true}
locale: false
cloud_init_modules: [growpart, resizefs, mounts, write-files, set_hostname, update_hostname, users-groups, ssh]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user, final-message]
"""
_AFTER = f"""\
userdel -r debian 2>/dev/null
rm -f /etc/sudoers.d/debian /etc/lab-seeded
rm -f /etc/systemd/system/systemd-network-generator.service
# logind sees the power button through udev, growpart the disk
cat >/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf <<'X'
[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=net --subsystem-match=acpi --subsystem-match=input --subsystem-match=block
X
printf '/dev/vda1 / ext4 defaults,noatime 0 1\\n' >/etc/fstab
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost\\n' >/etc/hosts
rm -f /etc/hostname
: >/etc/machine-id
printf 'PermitRootLogin prohibit-password\\nPasswordAuthentication no\\nUseDNS no\\n' \
  >/etc/ssh/sshd_config.d/lab.conf
cat >/etc/cloud/cloud.cfg.d/90_lab.cfg <<'X'
{_CLOUD}X
"""
_INIT = """\
#!/bin/sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
while read module; do $b insmod /modules/$module; done </modules/list
n=0; while [ ! -b /dev/vda1 ] && [ $n -lt 500 ]; do $b usleep 10000; n=$((n+1)); done
$b mount -t ext4 -o rw,noatime /dev/vda1 /root || { echo "lab: no root file system"; $b poweroff -f; }
$b umount /proc
$b mount -o move /dev /root/dev
exec $b switch_root /root /sbin/init
"""
_GRUB = """\
set root=(hd0,msdos1)
linux /boot/vmlinuz root=/dev/vda1 rw console=ttyS0 mitigations=off panic=5 quiet
initrd /boot/initrd.lab
boot
"""
_SIZE = 2 << 30  # sparse; cloud-init grows it into the machine's disk
_START = 2048  # sectors; the partition
_ROOT_KEY = key_of("cloud-root", 1, ROOT_KEY, _PACKAGES, _AFTER)
_TOOLS_KEY = key_of("boot-tools", 1, MINIMAL_KEY, _BOOT_TOOLS)
_KEY = key_of("cloud-image", 1, _ROOT_KEY, _TOOLS_KEY, _INIT, _GRUB, MODULES_NEEDED, _SIZE)


@dataclass(frozen=True)
class CloudImages:
    """Builds and finds it in the cache."""

    debian: Debian

    def image(self) -> Path:
        """The image, about 1 minute the first time."""

        def build(place: Path) -> None:
            layers = self._root()
            disk = place / "tree/var/tmp/disk.raw"
            disk.parent.mkdir(parents=True)
            boot = place / "boot/boot"
            boot.mkdir(parents=True)
            busybox = VmImages(self.debian).emulator() / "usr/bin/busybox"
            (boot / "initrd.lab").write_bytes(_initrd(layers[1], busybox))
            _make_disk(disk, [place / "boot", *layers], self._boot_code(place))
            self._convert(place)
            shutil.rmtree(place / "tree")
            shutil.rmtree(place / "boot")

        return self.debian.cache.entry("cloud-image", _KEY, build) / "debian.qcow2"

    def _root(self) -> list[Path]:
        below = VmImages(self.debian).root()

        def build(place: Path) -> None:
            self.debian.layer(place, below, _PACKAGES, _AFTER)

        return [self.debian.cache.entry("cloud-root", _ROOT_KEY, build) / "root", *below]

    def _boot_code(self, place: Path) -> tuple[bytes, bytes]:
        """(GRUB's boot sector, its core with the commands inside)."""

        def build(tools: Path) -> None:
            self.debian.layer(tools, [self.debian.minimal()], _BOOT_TOOLS)

        tools = self.debian.cache.entry("boot-tools", _TOOLS_KEY, build) / "root"
        scratch = place / "grub"
        script = (
            f"cd /var/tmp; printf '%s' '{_GRUB}' >early.cfg; grub-mkimage -O i386-pc -o core.img "
            "-c early.cfg -p /boot/grub biosdisk part_msdos ext2 linux boot"
        )
        self.debian.layer_offline(scratch, [tools, self.debian.minimal()], script)
        core = (scratch / "root/var/tmp/core.img").read_bytes()
        shutil.rmtree(scratch)
        return (tools / "usr/lib/grub/i386-pc/boot.img").read_bytes(), core

    def _convert(self, place: Path) -> None:
        emulator = VmImages(self.debian).emulator()
        scratch = place / "scratch"
        script = (
            "cd /var/tmp; qemu-img convert -O qcow2 -c -o compression_type=zstd "
            "disk.raw debian.qcow2"
        )
        lowers = [place / "tree", emulator, self.debian.minimal()]
        self.debian.layer_offline(scratch, lowers, script)
        (scratch / "root/var/tmp/debian.qcow2").rename(place / "debian.qcow2")
        shutil.rmtree(scratch)


def _initrd(root: Path, busybox: Path) -> bytes:
    (modules,) = (root / "usr/lib/modules").iterdir()
    order = load_order((modules / "modules.dep").read_text(), MODULES_NEEDED)
    names = [Path(file).name for file in order]
    folders = ("bin", "dev", "modules", "proc", "root")
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


def boot_record(code: bytes, start: int, sectors: int) -> bytes:
    """A master boot record (sector 0): GRUB's code, and one Linux partition that is active."""
    row = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", start, sectors)
    return code[:440].ljust(440, b"\0") + b"LAB0\0\0" + row + bytes(48) + b"\x55\xaa"


def _make_disk(disk: Path, layers: list[Path], code: tuple[bytes, bytes]) -> None:
    boot, core = code
    assert len(core) < (_START - 1) * 512, len(core)
    with disk.open("wb") as file:
        file.write(boot_record(boot, _START, _SIZE // 512 - _START))
        file.write(core)
    os.truncate(disk, _SIZE)
    top = disk.with_name("top")
    top.mkdir()
    script = (
        'mount -t overlay lab -o "lowerdir=$1" "$2"\n'
        'mkfs.ext4 -q -F -m 0 -L root -E "lazy_itable_init=1,nodiscard,offset=$4" -d "$2" "$3" "$5"'
    )
    lower, offset = ":".join(map(str, layers)), _START * 512
    blocks = f"{(_SIZE - offset) // 1024}k"
    paths = ["sh", lower, str(top), str(disk), str(offset), blocks]
    run(["unshare", "--mount", "sh", "-ec", script, *paths])
    top.rmdir()
