"""The root file systems of hosts: which layers a variant and flavour is made of.

Variants: `systemd` (systemd as process 1), `systemd-v2` (the same, sees only cgroup v2, without
controllers where this computer has them in v1), `plain` (no systemd installed; the small init
of `plain_init.py`), `cloud` (systemd, and Debian's cloud-init, which does nothing without a seed:
`cloudhosts.py`). Flavours: `bare` (Python and a package manager, no container parts) and
`full` (crun, runc, conmon and nftables too, installed by apt from the host's own repository).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tests.lab.cache import key_of
from tests.lab.debian import MINIMAL_KEY, Debian, write_package_index
from tests.lab.errors import LabError

Variant = Literal["systemd", "systemd-v2", "plain", "cloud"]
Flavour = Literal["full", "bare"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

REPOSITORY_ON_HOST = "/var/local/lab-debs"
_BARE = (
    "openssh-server python3 sudo iproute2 ca-certificates procps curl rsync iputils-ping netbase "
    "kmod init-system-helpers less"
)
_SYSTEMD = "systemd systemd-sysv dbus libpam-systemd"
_CLOUD = "cloud-init"
_PARTS = "crun runc conmon nftables libnftables1"
# also in the hosts' repository, for provisioning that wants them
_OFFERED = (
    f"{_PARTS} python3-minimal python3 ca-certificates iptables zstd libzstd1 busybox-static tini"
)
_SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication yes
UseDNS no
MaxStartups 100
"""
# useless or slow in a container
_MASKED = (
    "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket", "systemd-modules-load.service", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount", "dev-mqueue.mount", "systemd-journald-audit.socket",
    "systemd-firstboot.service", "systemd-timesyncd.service", "systemd-hwdb-update.service",
    "systemd-binfmt.service", "systemd-random-seed.service", "systemd-sysctl.service",
    "systemd-remount-fs.service", "getty.target", "console-getty.service", "apt-daily.timer",
    "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "systemd-tmpfiles-clean.timer",
)  # fmt: skip
# What the image of a provider would say: where seeds are, that the network is up already, that the
# folder of packages stays the mirror, and that there are no locales.
_CLOUD_CONFIG = """\
datasource_list: [NoCloud]
network: {config: disabled}
apt: {preserve_sources_list: true}
locale: false
"""
_CLOUD_UNITS = ("cloud-init-local", "cloud-init", "cloud-config", "cloud-final")
_ONLY_WITH_SEED = "[Unit]\nConditionPathExists=/var/lib/cloud/seed/nocloud/user-data\n"
_AFTER_BARE = """\
rm -f /etc/ssh/ssh_host_*
useradd -m -s /bin/bash -u 1000 debian
usermod -aG sudo debian
echo debian:debian | chpasswd
echo 'debian ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/debian
chmod 440 /etc/sudoers.d/debian
mkdir -p /var/lib/machine
"""
_POWER = """\
#!/bin/sh
# the small init reboots on SIGTERM and switches off on SIGUSR2
case "$(basename "$0") $*" in
  reboot*|"shutdown -r"*|"shutdown "*" -r"*) exec kill -TERM 1 ;;
  *) exec kill -USR2 1 ;;
esac
"""
_INIT = (Path(__file__).parent / "plain_init.py").read_text()
_BARE_KEY = key_of("bare", 1, MINIMAL_KEY, _BARE, _OFFERED, _SSHD, _AFTER_BARE)
_PLAIN_KEY = key_of("plain", 1, _BARE_KEY, _INIT, _POWER)
_SYSTEMD_KEY = key_of("systemd", 2, _BARE_KEY, _SYSTEMD, _MASKED)
_CLOUD_KEY = key_of("cloud", 1, _SYSTEMD_KEY, _CLOUD, _CLOUD_CONFIG, _ONLY_WITH_SEED)
SYSTEMD_FULL_KEY = key_of("full", 1, _SYSTEMD_KEY, _PARTS)


@dataclass(frozen=True)
class HostRoots:
    """Builds and finds host roots."""

    debian: Debian

    def _bare(self) -> Path:
        def build(place: Path) -> None:
            minimal = self.debian.minimal()
            self.debian.layer(place, [minimal], _BARE, _AFTER_BARE)
            root = place / "root"
            (root / "etc/ssh/sshd_config.d/lab.conf").write_text(_SSHD)
            stock = root / REPOSITORY_ON_HOST.lstrip("/")
            stock.mkdir(parents=True)
            self.debian.download(stock, [minimal], f"{_OFFERED} {_SYSTEMD}")
            write_package_index(stock)
            (root / "etc/apt").mkdir(exist_ok=True)
            # hosts have no way out: their package manager's mirror is a folder
            source = f"deb [trusted=yes] file:{REPOSITORY_ON_HOST} ./\n"
            (root / "etc/apt/sources.list").write_text(source)

        return self.debian.cache.entry("host-bare", _BARE_KEY, build) / "root"

    def _plain(self) -> list[Path]:
        below = [self._bare(), self.debian.minimal()]

        def build(place: Path) -> None:
            sbin = place / "root/usr/sbin"
            sbin.mkdir(parents=True)
            (sbin / "init").write_text(_INIT)
            for name in ("shutdown", "reboot", "poweroff", "halt"):
                (sbin / name).write_text(_POWER)
            for file in sbin.iterdir():
                file.chmod(0o755)

        return [self.debian.cache.entry("host-plain", _PLAIN_KEY, build) / "root", *below]

    def _systemd(self) -> list[Path]:
        below = [self._bare(), self.debian.minimal()]

        def build(place: Path) -> None:
            self.debian.layer(place, below, _SYSTEMD)
            units = place / "root/etc/systemd/system"
            for name in _MASKED:
                (units / name).unlink(missing_ok=True)
                (units / name).symlink_to("/dev/null")
            (units / "default.target").unlink(missing_ok=True)
            (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
            (place / "root/etc/machine-id").write_text("")
            late = units / "ssh.service.d"  # else users are refused in the first tenths of a second
            late.mkdir()
            (late / "lab.conf").write_text("[Unit]\nAfter=systemd-user-sessions.service\n")

        return [self.debian.cache.entry("host-systemd", _SYSTEMD_KEY, build) / "root", *below]

    def _cloud(self) -> list[Path]:
        below = self._systemd()

        def build(place: Path) -> None:
            self.debian.layer(place, below, _CLOUD)
            (place / "root/etc/cloud/cloud.cfg.d/90_lab.cfg").write_text(_CLOUD_CONFIG)
            for unit in _CLOUD_UNITS:
                folder = place / f"root/etc/systemd/system/{unit}.service.d"
                folder.mkdir(parents=True)
                (folder / "lab.conf").write_text(_ONLY_WITH_SEED)

        return [self.debian.cache.entry("host-cloud", _CLOUD_KEY, build) / "root", *below]

    def _full(self, kind: str, below: list[Path]) -> list[Path]:
        def build(place: Path) -> None:
            script = (
                "apt-get -q update\napt-get -q -y -o Dpkg::Options::=--force-unsafe-io install "
                f"--no-install-recommends {_PARTS}\n"
                "rm -rf /var/lib/apt/lists/*_* /var/log/apt /var/log/dpkg.log /var/cache/apt/*.bin"
            )
            self.debian.layer_offline(place, below, script)

        keys = {"plain": _PLAIN_KEY, "systemd": _SYSTEMD_KEY, "cloud": _CLOUD_KEY}
        key = key_of("full", 1, keys[kind], _PARTS)
        return [self.debian.cache.entry(f"host-{kind}-full", key, build) / "root", *below]

    def layers(self, variant: Variant, flavour: Flavour) -> tuple[Path, ...]:
        """The root's folders, topmost first; built now when the cache has none (about 1 minute)."""
        if variant not in VARIANTS or flavour not in FLAVOURS:
            raise LabError(f"no host {variant}/{flavour}: {VARIANTS}, {FLAVOURS}")
        kind = variant.removesuffix("-v2")
        roots = {"plain": self._plain, "systemd": self._systemd, "cloud": self._cloud}
        below = roots[kind]()
        return tuple(self._full(kind, below) if flavour == "full" else below)
