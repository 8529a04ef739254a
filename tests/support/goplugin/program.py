"""docker-machine-driver-standin as a Go program, built with the compiler of Debian's packages."""

from pathlib import Path

from tests.lab.cache import key_of
from tests.lab.debian import Debian
from tests.lab.environment import CLEAN_ENVIRONMENT
from tests.lab.errors import LabError
from tests.lab.process import run

NAME = "docker-machine-driver-standin"
_SOURCES = Path(__file__).parent
_COMPILER = "golang-1.19-go"


def standin_program(debian: Debian) -> Path:
    """A folder for PATH with the program alone. About 20 s the first time, and 80 MB of packages."""

    def build(place: Path) -> None:
        work = place / "work"
        for deb in debian.download(work / "debs", [debian.minimal()], _COMPILER):
            run(["dpkg-deb", "-x", str(deb), str(work / "root")])
        compilers = sorted((work / "root/usr/lib").glob("go-*"))
        if not compilers:
            raise LabError(f"{_COMPILER} has no compiler")
        run(["cp", "-r", str(_SOURCES / "standin"), str(_SOURCES / "go.mod"), str(work)])
        environment = {
            **CLEAN_ENVIRONMENT,
            "GOROOT": str(compilers[-1]),
            "GOCACHE": str(work / "cache"),
            "GOPATH": str(work / "path"),
            "GOFLAGS": "-buildvcs=false",
            "CGO_ENABLED": "0",
        }
        settings = [f"{key}={value}" for key, value in environment.items()]
        go = [str(compilers[-1] / "bin/go"), "build", "-o", str(place / NAME), "./standin"]
        run(["env", "-i", *settings, *go], cwd=str(work), timeout=300)
        run(["chmod", "-R", "u+w", str(work)])
        run(["rm", "-r", str(work)])

    sources = [path.read_text() for path in sorted(_SOURCES.glob("standin/*.go"))]
    return debian.cache.entry("standin", key_of("standin", 1, _COMPILER, sources), build)
