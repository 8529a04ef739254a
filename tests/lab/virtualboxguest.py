"""A disk that VirtualBox's own emulation boots to SSH: Debian with a process 1 of 30 lines.

That emulation is 40 times slower than QEMU's: systemd never comes up in it, since its units time out.
The disk, its boot loader and its file system are made as the cloud image's; process 1 mounts the
seed, takes the login's key and the host's keys from it as cloud-init would, asks for an address and
starts sshd.
"""

import os
import shutil
import stat
from pathlib import Path

from tests.lab.cache import key_of
from tests.lab.cloudimage import CloudImages, _make_disk
from tests.lab.debian import Debian
from tests.lab.vmimage import ROOT_KEY, Entry, VmImages, archive, load_order

_MODULES = ("virtio_pci", "virtio_scsi", "sd_mod", "sr_mod", "isofs", "virtio_net", "ext4")
_EARLY = """\
#!/bin/sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
echo "guest: kernel up" >/dev/ttyS0
while read module; do $b insmod /modules/$module; done </modules/list
n=0; while [ ! -b /dev/sda1 ] && [ $n -lt 5000 ]; do $b usleep 10000; n=$((n+1)); done
$b mount -t ext4 -o rw,noatime /dev/sda1 /root || { echo "guest: no root" >/dev/ttyS0; $b poweroff -f; }
$b umount /proc
$b mount -o move /dev /root/dev
exec $b switch_root /root /usr/sbin/guest-init
"""
# the user data is YAML whose strings are JSON: `ed25519_private: "-----BEGIN ...\\n..."`
_INIT = """\
#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
b=/bin/busybox
$b mount -t proc p /proc
$b mount -t sysfs s /sys
$b mount -t tmpfs t /run
$b mkdir -p /dev/pts /run/sshd /run/seed /root/.ssh
$b mount -t devpts d /dev/pts
$b ip link set lo up
$b ip link set eth0 up
cat >/run/dhcp <<'X'
#!/bin/busybox sh
b=/bin/busybox
[ "$1" = bound ] || exit 0
$b ip addr add $ip/$mask dev $interface
echo "guest: $interface $ip" >/dev/ttyS0
X
$b chmod +x /run/dhcp
$b udhcpc -b -q -n -t 20 -T 2 -i eth0 -s /run/dhcp >/dev/null 2>&1 &
$b mount -o ro -t iso9660 /dev/sr0 /run/seed && echo "guest: seed" $($b ls /run/seed) >/dev/ttyS0
value() { $b sed -n "s/^ *$1: *\\"\\(.*\\)\\"\\$/\\1/p" /run/seed/user-data | $b head -n 1; }
printf '%b' "$(value ed25519_private)" >/etc/ssh/ssh_host_ed25519_key
$b chmod 600 /etc/ssh/ssh_host_ed25519_key
$b grep -o 'ssh-ed25519 [A-Za-z0-9+/=]*' /run/seed/user-data >/root/.ssh/authorized_keys
$b chmod 700 /root/.ssh
$b chmod 600 /root/.ssh/authorized_keys
echo "guest: starting sshd" >/dev/ttyS0
/usr/sbin/sshd -D -e -o HostKey=/etc/ssh/ssh_host_ed25519_key -o UsePAM=no -o UseDNS=no \
  -o LoginGraceTime=600 2>/dev/ttyS0 &
while :; do wait; $b sleep 1; done
"""
_KEY = key_of("virtualbox-guest", 1, ROOT_KEY, _MODULES, _EARLY, _INIT)


def guest_disk(debian: Debian) -> Path:
    """The raw disk, in the cache; half a minute the first time, when the cloud image is there."""

    def build(place: Path) -> None:
        images = VmImages(debian)
        layers = images.root()
        busybox = (images.emulator() / "usr/bin/busybox").read_bytes()
        own = place / "own"
        for name, data in (
            ("boot/initrd.lab", _initrd(layers[0], busybox)),
            ("usr/bin/busybox", busybox),
            ("usr/sbin/guest-init", _INIT.encode()),
        ):
            path = own / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)
        code = CloudImages(debian)._boot_code(place)
        _make_disk(place / "disk.raw", [own, *layers], code)
        shutil.rmtree(own)

    disk = debian.cache.entry("virtualbox-guest", _KEY, build) / "disk.raw"
    assert os.path.getsize(disk) % 512 == 0
    return disk


def _initrd(root: Path, busybox: bytes) -> bytes:
    (modules,) = (root / "usr/lib/modules").iterdir()
    order = load_order((modules / "modules.dep").read_text(), _MODULES)
    names = [Path(file).name for file in order]
    entries = [Entry(n, stat.S_IFDIR | 0o755) for n in ("bin", "dev", "modules", "proc", "root")]
    entries += [
        Entry("bin/busybox", stat.S_IFREG | 0o755, busybox),
        Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
        Entry("init", stat.S_IFREG | 0o755, _EARLY.encode()),
        Entry("modules/list", stat.S_IFREG | 0o644, "".join(f"{n}\n" for n in names).encode()),
    ]
    entries += [
        Entry(f"modules/{name}", stat.S_IFREG | 0o644, (modules / file).read_bytes())
        for name, file in zip(names, order, strict=True)
    ]
    return archive(entries)
