"""A virtual environment with the product and a driver's package in it, both installed by pip."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.support.installed import REPOSITORY

EXAMPLE = REPOSITORY / "docs/examples/machine-driver-nimbus"
_PRODUCT = ("machine", "drivers", "agent", "cloud-init", "pyproject.toml", "README.md")


def installed_beside(folder: Path, package: Path = EXAMPLE) -> Path:
    """The environment's bin folder. Libraries come from this one; pip fetches what builds alone."""
    place = folder / "venv"
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin/python"
    site = place / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for source, name in ((REPOSITORY, "product"), (package, "package")):
        _install(python, _copied(source, folder / name))
    return place / "bin"


def _copied(source: Path, target: Path) -> Path:
    """A build leaves its traces beside the sources: not beside ours."""
    target.mkdir()
    for entry in source.iterdir():
        if source == REPOSITORY and entry.name not in _PRODUCT:
            continue
        if entry.is_dir():
            shutil.copytree(
                entry, target / entry.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(entry, target)
    return target


def _install(python: Path, source: Path) -> None:
    options = ["--quiet", "--no-deps", "--ignore-installed", "--disable-pip-version-check"]
    argv = [str(python), "-m", "pip", "install", *options, str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
