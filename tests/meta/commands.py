"""docs/commands.md from the commands themselves, with examples.

python -m tests.meta.commands      # writes the page anew
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from drivers import registry
from machine.cli import COMMANDS
from machine.cli.create import create
from machine.cli.gc import GcCommand
from machine.cli.root import root
from machine.cli.session import Session

PAGE: Final = Path(__file__).parents[2] / "docs" / "commands.md"
DRIVERS: Final = ("ssh", "local")

INTRO: Final = """# Commands

Written by `python -m tests.meta.commands`; `machine COMMAND --help` says the same.

    machine [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGS]

- Options stand before or after the names; Go's spellings work too (`-debug`, `--force=true`); `--` ends them.
- Where a command takes one machine, or several, and none is named, it is the one called `default`.
- Several machines are worked on at once; their lines then begin with `(NAME)`.
- `docker-machine` is the same program under the name that it replaces.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error; three parts on stderr: what failed, why, what to do |
| 2 | a name or value that can never be right |
| 3 | the host, or the wish, is not suitable: nothing was changed (`create`, `provision`) |
| 4 | `status` of a machine that does not exist |
| 130 | Ctrl-C |
| other | `ssh`: the remote command's own; `run`, `exec`, `attach`: the container's, and 125 to 127 as docker's |

| environment variable | is the same as |
|---|---|
| `MACHINE_STORAGE_PATH` | `--storage-path` |
| `MACHINE_DEBUG` | `--debug` |
| `MACHINE_DRIVER` | `create --driver` |
| `MACHINE_TLS_CA_CERT`, `MACHINE_TLS_CA_KEY`, `MACHINE_TLS_CLIENT_CERT`, `MACHINE_TLS_CLIENT_KEY` | the `--tls-...` options |
| `ENGINE_REGISTRY_MIRROR` | `create --engine-registry-mirror`, separated by commas |
| `GENERIC_IP_ADDRESS`, `GENERIC_SSH_KEY`, ... | the driver's options; each is shown with its option |
| `DOCKER_HOST`, `DOCKER_CERT_PATH` | which machine the container commands speak to, as `machine env` sets them |
"""

EXAMPLES: Final[dict[str, str]] = {
    "active": "machine active                       # prints web, when DOCKER_HOST is web's",
    "config": "docker $(machine config web) ps      # one command, without changing the environment",
    "create": "machine create dev                   # this computer\n"
    "machine create --driver ssh --ssh-ip-address 203.0.113.7 --ssh-key ~/.ssh/id_ed25519 web\n"
    "machine create -d ssh --ssh-ip-address host.example --ssh-user admin \\\n"
    "    --engine-registry-mirror https://mirror.example --engine-label tier=front web\n"
    "machine create -d ssh --help         # the options of that driver",
    "env": 'eval "$(machine env web)"            # bash, zsh, sh\n'
    "machine env --shell fish web | source\n"
    "machine env --shell powershell web | Invoke-Expression\n"
    'eval "$(machine env -u)"             # back to no machine',
    "help": "machine help create",
    "inspect": "machine inspect web\nmachine inspect -f '{{.Driver.IPAddress}}' web\n"
    "machine inspect -f '{{prettyjson .HostOptions.EngineOptions}}' web",
    "ip": "curl http://$(machine ip web)",
    "kill": "machine kill web",
    "ls": "machine ls\nmachine ls -q --filter driver=ssh --filter name=^web\n"
    "machine ls --format 'table {{.Name}}\\t{{.URL}}'\nmachine ls --format json",
    "mount": "machine mount web:/srv ./srv         # needs sshfs\nmachine mount -u ./srv",
    "provision": "machine provision web db             # again, or upgrade; containers live on\n"
    "machine provision --take-over web    # a host that another store has taken",
    "regenerate-certs": "machine regenerate-certs -f web\n"
    "machine regenerate-certs -f --client-certs $(machine ls -q)   # a new client identity, everywhere",
    "restart": "machine restart web",
    "rm": "machine rm web                       # forgets it; an adopted host keeps the engine\n"
    "machine rm -y --uninstall web        # and takes the engine off the host\n"
    "machine rm -f web                    # forget it, whatever the host says",
    "ssh": "machine ssh web\nmachine ssh web uptime\nmachine ssh web -L 8080:localhost:80 -N\n"
    "machine ssh web -- tar xz -C /srv < site.tgz",
    "scp": "machine scp notes.txt web:/tmp/\nmachine scp -r web:/var/log ./log\n"
    "machine scp db:/dump.sql web:/tmp/   # through this computer, each side with its own key\n"
    "machine scp -r -d site web:/srv      # only what differs, by rsync",
    "start": "machine start web",
    "status": "machine status web                   # Running, Stopped, ...",
    "stop": "machine stop web",
    "upgrade": "machine upgrade web",
    "url": "machine url web                      # tcp://203.0.113.7:2376",
    "version": "machine version\nmachine version web                  # the engine's",
    "run": "machine run -d --name apache --restart always -p 80:80 httpd\n"
    "machine run --rm -ti debian bash\nmachine -m web run --rm busybox uname -r",
    "docker": "machine docker stop apache           # a container; `machine stop web` is a machine",
}


def page() -> str:
    """The whole page."""
    parts = [INTRO, "## Global options\n", _options(root, _context(root))]
    section = ""
    for name, (_, kind, _) in COMMANDS.items():
        if kind != section:
            parts.append(f"# {kind}\n")
            section = kind
        parts.append(_command(name))
    return "\n".join(parts).rstrip() + "\n"


def _context(command: click.Command, name: str = "machine") -> click.Context:
    session = Session("machine", {}, io.StringIO(), io.StringIO(), io.StringIO())
    parent = click.Context(root, info_name="machine", obj=session)
    return parent if command is root else click.Context(command, parent, name)


def _command(name: str) -> str:
    context = _context(root)
    command = root.get_command(context, name)
    assert command is not None
    if command is create:
        options = _create_options()
    elif isinstance(command, GcCommand):  # with a driver's only after parsing, which tests may do
        options = _table(_rows(command.shared(), context))
    else:
        options = _options(command, context)
    lines = [f"## {name}\n", " ".join((command.help or "").split()) + "\n"]
    lines.append(f"    {command.get_usage(_context(command, name)).removeprefix('Usage: ')}\n")
    lines.append(options)
    if name in EXAMPLES:
        lines.append("".join(f"    {line}\n" for line in EXAMPLES[name].splitlines()))
    return "\n".join(line for line in lines if line)


def _create_options() -> str:
    """Shared options, then each driver's own."""
    shared: list[tuple[str, str]] = []
    out = []
    for driver in DRIVERS:
        context = _context(create, "create")
        create.parse_args(context, ["-d", driver, "x"])
        rows = _rows(create.get_params(context), context)
        own = {flag for spec in registry.load(driver).options for flag in spec.flags}
        shared = [row for row in rows if row[0].split("`")[1].split(" ")[0] not in own]
        out.append(f"With `--driver {driver}`:\n\n" + _table([r for r in rows if r not in shared]))
    return "\n".join([_table(shared), *out])


def _options(command: click.Command, context: click.Context) -> str:
    return _table(_rows(command.get_params(context), context))


def _rows(params: Sequence[click.Parameter], context: click.Context) -> list[tuple[str, str]]:
    rows = []
    for parameter in params:
        record = parameter.get_help_record(context)
        if record and "--help" not in record[0] and isinstance(parameter, click.Option):
            flags = ", ".join(f"`{word}`" for word in record[0].split(", "))
            rows.append((flags, " ".join(record[1].split()).replace("|", "\\|")))
    return rows


def _table(rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    return "| option | |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


if __name__ == "__main__":
    PAGE.write_text(page())
