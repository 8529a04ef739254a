"""Docker Compose v2: the program of Debian sid's docker-compose package, taken out of it.

bookworm has only the old Python one. The package is fetched with lists of sid in a folder of
their own, from the mirror that this computer's bookworm comes from, and is never installed.
"""

from pathlib import Path

from tests.lab.cache import key_of
from tests.lab.debian import SUITE, Debian, sources_of_this_computer
from tests.lab.errors import LabError
from tests.lab.process import run

_PACKAGE = "docker-compose"
_PLACES = ("usr/libexec/docker/cli-plugins/docker-compose", "usr/bin/docker-compose")


def _sid() -> str:
    """The line of sources.list: the mirror of bookworm, with another suite."""
    for line in sources_of_this_computer():
        if line.endswith(f" {SUITE} main"):
            return line.removesuffix(f"{SUITE} main") + "sid main"
    raise LabError(f"no mirror of {SUITE} to take sid from")


def _apt(place: Path, *command: str) -> None:
    folders = {
        "Dir::Etc::SourceList": place / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::Etc::Preferences": "-",
        "Dir::Etc::PreferencesParts": "-",
        "Dir::State": place / "state",
        "Dir::State::Status": place / "state/status",
        "Dir::Cache": place / "cache",
        "Acquire::Languages": "none",
        "Acquire::Check-Valid-Until": "false",  # sid's Release is good for a week only
        "APT::Sandbox::User": "root",  # _apt may not write below `place`
    }
    options = [f"-o={name}={value}" for name, value in folders.items()]
    run(["apt-get", "-q", "-q", *options, *command], cwd=str(place), timeout=600)


def compose_program(debian: Debian) -> Path:
    """The docker-compose program: static enough to run here, and a plugin of the docker client."""

    def build(place: Path) -> None:
        work = place / "work"
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        (work / "state/status").touch()
        (work / "sources.list").write_text(_sid() + "\n")
        _apt(work, "update")
        _apt(work, "download", _PACKAGE)
        (deb,) = work.glob(f"{_PACKAGE}_*.deb")
        run(["dpkg-deb", "-x", str(deb), str(work / "root")])
        found = [work / "root" / x for x in _PLACES]
        program = next((x for x in found if x.is_file() and not x.is_symlink()), None)
        if program is None:
            raise LabError(f"{deb.name} has no docker-compose program")
        program.rename(place / "docker-compose")
        run(["rm", "-r", str(work)])

    key = key_of("compose", 1, _PACKAGE)
    return debian.cache.entry("compose", key, build) / "docker-compose"
