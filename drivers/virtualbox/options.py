"""Options of the VirtualBox driver: docker-machine's (reference 2.3), with defaults of today."""

from __future__ import annotations

from typing import Final

from drivers.options import Kind, OptionSpec

NIC_TYPES: Final = (
    "virtio", "82540EM", "82543GC", "82545EM", "Am79C970A", "Am79C973", "Am79C960",
)  # fmt: skip
PROMISCUOUS: Final = ("deny", "allow-vms", "allow-all")
UI_TYPES: Final = ("headless", "gui", "sdl", "separate")

OPTIONS: Final = (
    OptionSpec(
        "image",
        ("--virtualbox-image",),
        "Disk image with cloud-init: PATH, or https URL (qcow2, raw, VDI, VMDK, VHD); "
        "default: the newest Debian",
        env=("VIRTUALBOX_IMAGE",),
    ),
    OptionSpec(
        "cpu-count",
        ("--virtualbox-cpu-count",),
        "Number of processors; -1: as many as this computer has",
        kind=Kind.INTEGER,
        default=1,
        env=("VIRTUALBOX_CPU_COUNT",),
    ),
    OptionSpec(
        "memory",
        ("--virtualbox-memory",),
        "Memory in MiB",
        kind=Kind.INTEGER,
        default=1024,
        env=("VIRTUALBOX_MEMORY_SIZE",),
    ),
    OptionSpec(
        "disk-size",
        ("--virtualbox-disk-size",),
        "Size of the disk in MiB; it takes only the room that is used",
        kind=Kind.INTEGER,
        default=20000,
        env=("VIRTUALBOX_DISK_SIZE",),
    ),
    OptionSpec(
        "ssh-user",
        ("--virtualbox-ssh-user",),
        "Login that cloud-init makes",
        default="debian",
        env=("VIRTUALBOX_SSH_USER",),
    ),
    OptionSpec(
        "userdata",
        ("--virtualbox-userdata",),
        "File with cloud-init user data, merged into ours",
        kind=Kind.PATH,
        env=("VIRTUALBOX_USERDATA",),
    ),
    OptionSpec(
        "nat-nictype",
        ("--virtualbox-nat-nictype",),
        "Card of the NAT network: " + ", ".join(NIC_TYPES),
        default="virtio",
        env=("VIRTUALBOX_NAT_NICTYPE",),
    ),
    OptionSpec(
        "host-dns-resolver",
        ("--virtualbox-host-dns-resolver",),
        "Resolve names by this computer's resolver",
        kind=Kind.FLAG,
        default=False,
        env=("VIRTUALBOX_HOST_DNS_RESOLVER",),
    ),
    OptionSpec(
        "no-dns-proxy",
        ("--virtualbox-no-dns-proxy",),
        "Do not pass name queries on to this computer's name servers",
        kind=Kind.FLAG,
        default=False,
        env=("VIRTUALBOX_NO_DNS_PROXY",),
    ),
    OptionSpec(
        "hostonly-cidr",
        ("--virtualbox-hostonly-cidr",),
        "This computer's address and network of the host-only adapter; VirtualBox allows "
        "192.168.56.0/21 unless its networks.conf says otherwise",
        default="192.168.56.1/24",
        env=("VIRTUALBOX_HOSTONLY_CIDR",),
    ),
    OptionSpec(
        "no-hostonly",
        ("--virtualbox-no-hostonly",),
        "NAT with port forwards only, even where a host-only network can be had",
        kind=Kind.FLAG,
        default=False,
        env=("VIRTUALBOX_NO_HOSTONLY",),
    ),
    OptionSpec(
        "hostonly-nictype",
        ("--virtualbox-hostonly-nictype",),
        "Card of the host-only network: " + ", ".join(NIC_TYPES),
        default="virtio",
        env=("VIRTUALBOX_HOSTONLY_NIC_TYPE",),
    ),
    OptionSpec(
        "hostonly-nicpromisc",
        ("--virtualbox-hostonly-nicpromisc",),
        "What the host-only card may overhear: " + ", ".join(PROMISCUOUS),
        default="deny",
        env=("VIRTUALBOX_HOSTONLY_NIC_PROMISC",),
    ),
    OptionSpec(
        "hostonly-no-dhcp",
        ("--virtualbox-hostonly-no-dhcp",),
        "Leave the host-only network's DHCP server alone; the address is then 127.0.0.1",
        kind=Kind.FLAG,
        default=False,
        env=("VIRTUALBOX_HOSTONLY_NO_DHCP",),
    ),
    OptionSpec(
        "share-folder",
        ("--virtualbox-share-folder",),
        "DIRECTORY:NAME of this computer, mounted at /NAME; default: nothing is shared",
        env=("VIRTUALBOX_SHARE_FOLDER",),
    ),
    OptionSpec(
        "no-share",
        ("--virtualbox-no-share",),
        "Share nothing (so it is unless --virtualbox-share-folder is given)",
        kind=Kind.FLAG,
        default=False,
        env=("VIRTUALBOX_NO_SHARE",),
    ),
    OptionSpec(
        "no-vtx-check",
        ("--virtualbox-no-vtx-check",),
        "Do not check for the kernel module and for hardware virtualisation",
        kind=Kind.FLAG,
        default=False,
        env=("VIRTUALBOX_NO_VTX_CHECK",),
    ),
    OptionSpec(
        "ui-type",
        ("--virtualbox-ui-type",),
        "How it is shown: " + ", ".join(UI_TYPES),
        default="headless",
        env=("VIRTUALBOX_UI_TYPE",),
    ),
    OptionSpec(
        "modify",
        ("--virtualbox-modify",),
        "NAME=VALUE of `VBoxManage modifyvm`, for what has no option here (several times)",
        kind=Kind.LIST,
        default=(),
        env=("VIRTUALBOX_MODIFY",),
    ),
    OptionSpec(
        "program",
        ("--virtualbox-program",),
        "The VBoxManage to use",
        default="VBoxManage",
        env=("VIRTUALBOX_PROGRAM",),
    ),
    OptionSpec(
        "boot2docker-url",
        ("--virtualbox-boot2docker-url",),
        "Refused: boot2docker is no more; see --virtualbox-image",
        env=("VIRTUALBOX_BOOT2DOCKER_URL",),
    ),
    OptionSpec(
        "import-boot2docker-vm",
        ("--virtualbox-import-boot2docker-vm",),
        "Refused: boot2docker is no more; see --virtualbox-image",
        env=("VIRTUALBOX_BOOT2DOCKER_IMPORT_VM",),
    ),
)
