"""Today's docker client and Docker Compose v2: the programs of Debian sid's packages, taken out of them.

bookworm's client is of 2020, and its Compose the old Python one. The packages are fetched with
lists of sid in a folder of their own, from the mirror that this computer's bookworm comes from,
and are never installed.
"""

from pathlib import Path

from tests.lab.cache import key_of
from tests.lab.debian import SUITE, Debian, sources_of_this_computer
from tests.lab.errors import LabError
from tests.lab.process import run

_PROGRAMS = {
    "docker-cli": ("usr/bin/docker",),
    "docker-compose": (
        "usr/libexec/docker/cli-plugins/docker-compose",
        "usr/bin/docker-compose",
    ),
}


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


def programs(debian: Debian) -> Path:
    """A folder with `docker` and `docker-compose`: Go programs that need the C library alone."""

    def build(place: Path) -> None:
        work = place / "work"
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        (work / "state/status").touch()
        (work / "sources.list").write_text(_sid() + "\n")
        _apt(work, "update")
        _apt(work, "download", *_PROGRAMS)
        for package, places in _PROGRAMS.items():
            (deb,) = work.glob(f"{package}_*.deb")
            run(["dpkg-deb", "-x", str(deb), str(work / package)])
            found = [work / package / x for x in places]
            program = next((x for x in found if x.is_file() and not x.is_symlink()), None)
            if program is None:
                raise LabError(f"{deb.name} has no {' or '.join(places)}")
            program.rename(place / program.name)
        run(["rm", "-r", str(work)])

    key = key_of("clients", 1, sorted(_PROGRAMS))
    return debian.cache.entry("clients", key, build)


def compose_program(debian: Debian) -> Path:
    """The docker-compose program, also a plugin of the docker client."""
    return programs(debian) / "docker-compose"
