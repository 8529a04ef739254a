"""Docker Engine as the yardstick: Debian's own (bookworm: 20.10) or sid's (28.5 and newer).

sid's programs need sid's C library, so they run in a root of their own: unpacked by mmdebstrap
once (never installed, no package's script runs), kept in the lab's cache, copied into the lab
host, and entered by chroot in a private mount namespace.  It is bound on itself first: runc's
pivot_root asks for a root that is a mount point.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from bench.engines import WITH_PID, Engine, Supervised, inside_url
from tests.lab.cache import key_of
from tests.lab.compose import _sid
from tests.lab.lab import Lab
from tests.lab.process import run

_PACKAGES: Final = "docker.io,docker-cli,containerd,runc,iptables,ca-certificates"
_TRIMMED: Final = ("man", "locale", "doc", "info", "lintian", "bug")
_LINKS: Final = ("bin", "sbin", "lib", "lib64")  # made by a script of base-files when installed
_PROGRAMS: Final = ("dockerd", "containerd", "docker-proxy")
_ENTER: Final = """\
R=$1; shift
mkdir -p "$R/var/lib/docker" "$R/proc" "$R/sys" "$R/dev" "$R/run" /var/lib/machine/dockerd
mount --bind "$R" "$R"
for d in proc sys dev run; do mount --rbind "/$d" "$R/$d"; done
mount --bind /var/lib/machine/dockerd "$R/var/lib/docker"
cp /etc/resolv.conf /etc/hosts "$R/etc/" 2>/dev/null
exec env PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$R" "$@"
"""


def sid_root(lab: Lab) -> Path:
    """The unpacked root with sid's docker.io; about 20 s and 250 MB when it is not cached."""

    def build(place: Path) -> None:
        options = ['Acquire::Languages "none"', 'Acquire::Check-Valid-Until "false"']
        argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract"]
        argv += [f"--aptopt={one}" for one in options]
        argv += [f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in _TRIMMED]
        root = place / "root"
        run([*argv, f"--include={_PACKAGES}", "sid", str(root), _sid()], timeout=600)
        shutil.rmtree(root / "dev")  # device nodes: nothing to copy
        for name in _LINKS:
            if not (root / name).exists():
                (root / name).symlink_to(f"usr/{name}")
        for name in ("iptables", "ip6tables"):  # by update-alternatives when installed
            (root / "usr/sbin" / name).symlink_to("xtables-nft-multi")

    return lab.debian.cache.entry("docker-sid", key_of("docker-sid", 1, _PACKAGES), build) / "root"


def _flags(data: str, mirror: str) -> list[str]:
    registry = mirror.removeprefix("http://")
    return [
        "--data-root", data, "-H", "unix:///run/docker.sock",
        "--registry-mirror", mirror, "--insecure-registry", registry, "-l", "error",
    ]  # fmt: skip


def sid(lab: Lab, mirror: str) -> Engine:
    """Docker Engine of Debian sid."""
    host = lab.host("docker", "plain")
    place = host.data / "sid"
    if not place.exists():
        shutil.copytree(sid_root(lab), place, symlinks=True)
    (host.data / "enter-sid").write_text(_ENTER)
    inside = "/var/lib/machine"
    argv = ["unshare", "-m", "sh", f"{inside}/enter-sid", f"{inside}/sid"]
    argv += ["/usr/sbin/dockerd", *_flags("/var/lib/docker", mirror)]
    program = Supervised(
        host,
        ["sh", "-c", WITH_PID, "sh", *argv],
        inside_url(host, "/run/docker.sock"),
        host.directory / "dockerd.log",
    )
    program.start()
    return Engine("docker", program.url, _PROGRAMS, host, program.start, program.stop)


def bookworm(lab: Lab, mirror: str) -> Engine:
    """Docker Engine of Debian 12, by its files alone."""
    host = lab.host("docker", "plain")
    place = host.data / "docker"
    if not place.exists():
        shutil.copytree(lab.engine(), place, symlinks=True)
        for name in ("iptables", "ip6tables"):  # by update-alternatives when installed
            (place / "usr/sbin" / name).symlink_to("xtables-nft-multi")
    root = "/var/lib/machine/docker"
    env = [
        "env",
        f"PATH={root}/usr/sbin:{root}/usr/bin:{root}/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu",
        f"XTABLES_LIBDIR={root}/usr/lib/x86_64-linux-gnu/xtables",
    ]
    flags = _flags("/var/lib/machine/dockerd", mirror)
    argv = ["sh", "-c", WITH_PID, "sh", *env, f"{root}/usr/sbin/dockerd", *flags]
    program = Supervised(
        host, argv, inside_url(host, "/run/docker.sock"), host.directory / "dockerd.log"
    )
    program.start()
    return Engine("docker", program.url, _PROGRAMS, host, program.start, program.stop)


YARDSTICKS: Final = {"sid": sid, "bookworm": bookworm}
