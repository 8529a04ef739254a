"""The driver's options. docker-machine had no libvirt driver; where its plugin docker-machine-driver-kvm
had an option of the same meaning and unit, that name works too."""

from __future__ import annotations

from typing import Final

from drivers.options import Kind, OptionSpec

OPTIONS: Final = (
    OptionSpec(
        "uri",
        ("--libvirt-uri",),
        "Where libvirtd is: qemu:///system, qemu:///session, qemu+ssh://USER@HOST/system ...",
        default="qemu:///system",
        env=("LIBVIRT_DEFAULT_URI",),
    ),
    OptionSpec(
        "cpus",
        ("--libvirt-cpus", "--kvm-cpu-count"),
        "Number of CPUs",
        kind=Kind.INTEGER,
        default=2,
        env=("LIBVIRT_CPUS", "KVM_CPU_COUNT"),
    ),
    OptionSpec(
        "memory",
        ("--libvirt-memory", "--kvm-memory"),
        "Memory in MiB",
        kind=Kind.INTEGER,
        default=2048,
        env=("LIBVIRT_MEMORY", "KVM_MEMORY"),
    ),
    OptionSpec(
        "disk-size",
        ("--libvirt-disk-size",),
        "Size of the disk in GiB; it takes only what is written",
        kind=Kind.INTEGER,
        default=20,
        env=("LIBVIRT_DISK_SIZE",),
    ),
    OptionSpec(
        "extra-disk",
        ("--libvirt-extra-disk",),
        "Another empty disk of so many GiB",
        kind=Kind.LIST,
        default=(),
        env=("LIBVIRT_EXTRA_DISK",),
    ),
    OptionSpec(
        "image",
        ("--libvirt-image",),
        "Cloud image (qcow2 or raw, with cloud-init): a file, or an https URL; "
        "default: the newest Debian generic cloud image",
        env=("LIBVIRT_IMAGE",),
    ),
    OptionSpec(
        "image-checksum",
        ("--libvirt-image-checksum",),
        "Its checksum, sha512:HEX or sha256:HEX; default for a URL: SHA512SUMS beside the image",
        env=("LIBVIRT_IMAGE_CHECKSUM",),
    ),
    OptionSpec(
        "network",
        ("--libvirt-network", "--kvm-network"),
        "libvirt network; default: the NAT network `machine`, made when it is missing",
        env=("LIBVIRT_NETWORK", "KVM_NETWORK"),
    ),
    OptionSpec(
        "bridge",
        ("--libvirt-bridge",),
        "Bridge of the hypervisor's host, instead of a network",
        env=("LIBVIRT_BRIDGE",),
    ),
    OptionSpec(
        "pool",
        ("--libvirt-pool",),
        "Storage pool (a directory) for disks; default: `machine`, made when it is missing",
        env=("LIBVIRT_POOL",),
    ),
    OptionSpec(
        "firmware",
        ("--libvirt-firmware",),
        "bios or uefi (with uefi, libvirt has no snapshots)",
        default="bios",
        env=("LIBVIRT_FIRMWARE",),
    ),
    OptionSpec(
        "accelerator",
        ("--libvirt-accelerator",),
        "auto (KVM where it really works), kvm, or tcg (emulation, slow)",
        default="auto",
        env=("LIBVIRT_ACCELERATOR",),
    ),
    OptionSpec(
        "autostart",
        ("--libvirt-autostart",),
        "Start the machine with the hypervisor",
        kind=Kind.FLAG,
        default=False,
        env=("LIBVIRT_AUTOSTART",),
    ),
    OptionSpec(
        "share",
        ("--libvirt-share",),
        "Folder of the hypervisor's host for the machine, FOLDER:WHERE[:ro]; "
        "with one, libvirt has no suspend and no snapshots of a running machine",
        kind=Kind.LIST,
        default=(),
        env=("LIBVIRT_SHARE",),
    ),
    OptionSpec(
        "share-type",
        ("--libvirt-share-type",),
        "virtiofs or 9p",
        default="virtiofs",
        env=("LIBVIRT_SHARE_TYPE",),
    ),
    OptionSpec(
        "ssh-user",
        ("--libvirt-ssh-user", "--kvm-ssh-user"),
        "Login that cloud-init makes",
        default="debian",
        env=("LIBVIRT_SSH_USER", "KVM_SSH_USER"),
    ),
    OptionSpec(
        "userdata",
        ("--libvirt-userdata",),
        "File with cloud-init user data of yours, merged with ours",
        kind=Kind.PATH,
        env=("LIBVIRT_USERDATA",),
    ),
)
