"""A Compose project on a created machine, by the unmodified program from the user's computer."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.installed import Done, Installed

PROJECTS = Path(__file__).parent
_NO_WAIT = ("-t", "0")  # containers of the tests need no time to end


def install_plugin(program: Path, configuration: Path) -> dict[str, str]:
    """Make `program` the client's plugin below a DOCKER_CONFIG folder; the variables to run with."""
    plugins = configuration / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    (plugins / "docker-compose").symlink_to(program)
    return {"DOCKER_CONFIG": str(configuration), "COMPOSE_PROGRESS": "plain"}


class Project:
    """`docker compose -p NAME -f FOLDER/compose.yaml ...`; everything of it is removed by `remove`.

    Bind mounts, and secrets and configs of files, are looked up on the machine: `share` puts the
    project's folder there, in the same place, as users of a remote engine do.
    """

    def __init__(self, box: Installed, folder: Path, extra: Mapping[str, str]) -> None:
        self.box = box
        self.folder = folder
        self.extra = dict(extra)
        self.name = folder.name

    def write(self, text: str, name: str = "compose.yaml") -> None:
        """One of the project's files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def take(self, source: str) -> None:
        """The project's files are those of tests/live/compose/`source` (a folder or one file)."""
        found = PROJECTS / source
        if found.is_dir():
            shutil.copytree(found, self.folder, dirs_exist_ok=True)
        else:
            self.write(found.read_text())

    def share(self) -> None:
        """Copy the project's folder to the machine."""
        self.box.machine("ssh", self.box.name, "mkdir", "-p", str(self.folder.parent))
        target = f"{self.box.name}:{self.folder.parent}/"
        self.box.machine("scp", "-r", str(self.folder), target)

    def argv(self, *arguments: str) -> tuple[str, ...]:
        """The client's arguments."""
        return ("compose", "-p", self.name, "-f", str(self.folder / "compose.yaml"), *arguments)

    def __call__(self, *arguments: str, check: bool = True, **more: str) -> Done:
        """One command to its end; `more` are environment variables."""
        return self._run(arguments, more, check=check)

    def _run(self, arguments: Sequence[str], more: Mapping[str, str], *, check: bool) -> Done:
        extra = self.extra | dict(more)
        return self.box.docker(*self.argv(*arguments), check=check, extra=extra, timeout=120)

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command left running."""
        return self.box.begin(
            "docker", *self.argv(*arguments), env=self.box.environment | self.extra
        )

    def up(self, *arguments: str, **more: str) -> Done:
        """`up --no-build -d ...`."""
        words = ("up", "--no-build", "--quiet-pull", "-d", *_NO_WAIT, *arguments)
        return self._run(words, more, check=True)

    def sh(self, service: str, script: str, *, check: bool = True, index: int = 1) -> Done:
        """A shell script in a service's container."""
        return self("exec", "-T", "--index", str(index), service, "sh", "-c", script, check=check)

    def rows(self, *arguments: str) -> list[dict[str, object]]:
        """`ps --format json`, sorted by name."""
        lines = self("ps", "--format", "json", *arguments).lines
        return sorted((json.loads(x) for x in lines), key=lambda row: str(row["Name"]))

    def states(self, *arguments: str) -> dict[str, str]:
        """Containers' names after the project's, and their states."""
        prefix = f"{self.name}-"
        return {str(r["Name"]).removeprefix(prefix): str(r["State"]) for r in self.rows(*arguments)}

    def document(self, container: str) -> dict[str, object]:
        """The inspect document of `container` (SERVICE-N)."""
        return self.box.inspect(f"{self.name}-{container}")

    def down(self) -> Done:
        """`down` with volumes and all that this file does not name any more."""
        profiles = ("--profile", "*") if (self.folder / "compose.yaml").exists() else ()
        return self(*profiles, "down", "-v", "--remove-orphans", *_NO_WAIT)

    def left(self) -> list[str]:
        """What is on the machine with the project's label: containers, networks, volumes."""
        label = json.dumps({"label": [f"com.docker.compose.project={self.name}"]})
        containers = self.box.api("GET", "/containers/json", all="true", filters=label).json()
        networks = self.box.api("GET", "/networks", filters=label).json()
        volumes = self.box.api("GET", "/volumes", filters=label).document["Volumes"] or []
        assert isinstance(containers, list)
        assert isinstance(networks, list)
        assert isinstance(volumes, list)
        return [
            *(str(x["Names"]) for x in containers),
            *(f"network {x['Name']}" for x in networks),
            *(f"volume {x['Name']}" for x in volumes),
        ]

    def remove(self) -> None:
        """`down`, after which nothing is left."""
        if not (self.folder / "compose.yaml").exists():
            return
        self.down()
        assert self.left() == []
