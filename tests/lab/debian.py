"""Debian trees for the cache: one minimal system, and layers over it made by its own apt.

Every layer is the upper folder of an overlay, so a host root or an image is a list of folders.
"""

import datetime as dt
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import Cache, key_of
from tests.lab.enter import Overlay, Root
from tests.lab.environment import CLEAN_ENVIRONMENT
from tests.lab.process import run
from tests.lab.settings import REPOSITORY

SUITE = "bookworm"
_TRIMMED = ("man", "locale", "doc", "info", "lintian", "bug")
_APT = "apt-get -q -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io"
_DEFAULT_SOURCES = (
    "deb http://deb.debian.org/debian bookworm main",
    "deb http://deb.debian.org/debian bookworm-updates main",
    "deb http://deb.debian.org/debian-security bookworm-security main",
)


def sources_of_this_computer() -> tuple[str, ...]:
    """Its own mirrors of bookworm, if it has any: they are known to be reachable from here."""
    listing = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        check=False,
    )  # fmt: skip
    lines = []
    for row in listing.stdout.splitlines():
        words = row.split()
        if len(words) == 3 and words[1].startswith(SUITE) and words[2] == "main":
            line = f"deb {words[0].rstrip('/')} {words[1]} main"
            if line not in lines:
                lines.append(line)
    has_base = any(line.endswith(f" {SUITE} main") for line in lines)
    return tuple(lines) if has_base else _DEFAULT_SOURCES


def _apt_options() -> list[str]:
    """This computer's ways through to the mirrors: proxies and date checks."""
    dump = run(["apt-config", "dump"], check=False).stdout.splitlines()
    wanted = ("proxy", "check-valid-until", "check-date")
    keep = [x for x in dump if x.startswith("Acquire::") and any(w in x.lower() for w in wanted)]
    return [x for x in keep if '""' not in x]


def _low_priority(argv: Sequence[str]) -> list[str]:
    return ["nice", "-n", "10", "setpriv", "--pdeathsig", "KILL", *argv]


def _build_minimal(place: Path) -> None:
    options = [f"--aptopt={x}" for x in ['Acquire::Languages "none"', *_apt_options()]]
    options += [f"--dpkgopt=path-exclude=/usr/share/{x}/*" for x in _TRIMMED]
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", *options]
    root = place / "root"
    run(_low_priority([*argv, SUITE, str(root), *sources_of_this_computer()]))
    for name in ("etc/resolv.conf", "etc/machine-id"):
        (root / name).write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)
    shutil.rmtree(root / "dev")
    (root / "dev").mkdir()
    apt = root / "etc/apt"
    (apt / "sources.list").write_text("\n".join(_DEFAULT_SOURCES) + "\n")
    # what was true of the building computer's network is not for hosts and images
    (apt / "apt.conf.d/99mmdebstrap").write_text('Acquire::Languages "none";\n')


MINIMAL_KEY = key_of("minimal", 1, SUITE, _TRIMMED)


@dataclass(frozen=True)
class Debian:
    """Builds trees and layers in `cache`."""

    cache: Cache

    def minimal(self) -> Path:
        """The root of a minimal Debian system (priority required, and apt). About 25 s."""
        return self.cache.entry("minimal", MINIMAL_KEY, _build_minimal) / "root"

    def _indexes(self) -> Path:
        """Package lists fetched for `minimal`, to be bound in wherever apt runs."""

        def build(place: Path) -> None:
            options = ['Acquire::Languages "none";', *_apt_options()]
            config = "\n".join(options) + "\n"
            (place / "apt.conf").write_text(config)
            (place / "sources.list").write_text("\n".join(sources_of_this_computer()) + "\n")
            (place / "lists").mkdir()
            self._inside(place / "scratch", [self.minimal()], f"{_APT} -qq update", lists=place)
            shutil.rmtree(place / "scratch")

        today = dt.datetime.now(tz=dt.UTC).date().isoformat()  # mirrors drop old packages
        return self.cache.entry("indexes", key_of("indexes", 1, MINIMAL_KEY, today), build)

    def _inside(
        self,
        place: Path,
        lowers: Sequence[Path],
        script: str,
        *,
        lists: Path | None = None,
        archives: Path | None = None,
    ) -> Path:
        """Run `script` as root over `lowers`; the upper folder with what it changed.

        With `lists` it has the network and package lists; packages land in `archives`.
        """
        upper, work, top = place / "upper", place / "work", place / "top"
        for folder in (upper, work, top):
            folder.mkdir(parents=True)
        binds: list[tuple[str, str]] = []
        if lists is not None:
            binds.append((str(lists / "lists"), "/var/lib/apt/lists"))
            binds.append((str(lists / "sources.list"), "/etc/apt/sources.list"))
            binds.append((str(lists / "apt.conf"), "/etc/apt/apt.conf.d/99mmdebstrap"))
            binds.append(("/etc/resolv.conf", "/etc/resolv.conf"))
            stock = archives or place / "archives"
            (stock / "partial").mkdir(parents=True, exist_ok=True)
            binds.append((str(stock), "/var/cache/apt/archives"))
        root = Root(
            root=Overlay(tuple(map(str, lowers)), str(upper), str(work), str(top)),
            argv=("/bin/sh", "-ec", script),
            environment=CLEAN_ENVIRONMENT,
            hostname="build",
            binds=tuple(binds),
        )
        spec = place / "root.json"
        spec.write_text(json.dumps(root.to_json()))
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        python = [sys.executable, "-S", "-m", "tests.lab.enter", str(spec)]
        run(_low_priority(["unshare", *spaces, *python]), cwd=str(REPOSITORY))
        return upper

    def layer(self, place: Path, lowers: Sequence[Path], packages: str, after: str = "") -> None:
        """Install `packages` over `lowers`, run `after`, leave the difference in `place`/root."""
        script = (
            "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d\n"
            f"{_APT} install --no-install-recommends {packages}\n"
            "rm -f /usr/sbin/policy-rc.d /var/cache/debconf/*-old /var/lib/dpkg/*-old\n"
            "rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log "
            "/var/cache/ldconfig /var/cache/apt/*.bin\n"
            f"{after}\n"
        )
        upper = self._inside(place / "build", lowers, script, lists=self._indexes())
        upper.rename(place / "root")
        shutil.rmtree(place / "build")

    def layer_offline(self, place: Path, lowers: Sequence[Path], script: str) -> None:
        """Run `script` over `lowers` without package lists; the difference in `place`/root."""
        upper = self._inside(place / "build", lowers, script)
        upper.rename(place / "root")
        shutil.rmtree(place / "build")

    def download(self, place: Path, lowers: Sequence[Path], packages: str) -> list[Path]:
        """Fetch `packages` and all that they need over `lowers` into `place`; the .deb files."""
        with_network = f"{_APT} install --no-install-recommends --download-only {packages}"
        scratch = place / "scratch"
        self._inside(scratch, lowers, with_network, lists=self._indexes(), archives=place)
        shutil.rmtree(scratch)
        (place / "lock").unlink(missing_ok=True)
        shutil.rmtree(place / "partial")
        return sorted(place.glob("*.deb"))


def write_package_index(folder: Path) -> None:
    """Make `folder` a repository: its Packages file, for `deb [trusted=yes] file:FOLDER ./`."""
    entries = []
    for deb in sorted(folder.glob("*.deb")):
        control = run(["dpkg-deb", "-f", str(deb)]).stdout.rstrip("\n")
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        entries.append(
            f"{control}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
        )
    (folder / "Packages").write_text("\n".join(entries))
