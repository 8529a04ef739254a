"""`machine docker ...`: the docker command line, for those without the docker binary.

`machine docker stop apache` stops a container; `machine stop demo` stops a machine.
"""

from __future__ import annotations

import importlib
from typing import Final

import click

from machine.cli.grammar import Command
from machine.errors import MachineError

_C: Final = "machine.cli.containers"
_I: Final = "machine.cli.images"
_A: Final = "machine.cli.archives"
_F: Final = "machine.cli.enginefacts"
_V: Final = "machine.cli.volumes"

# docker's words -> where the command is.  Two words are a management command (`container ls`).
TABLE: Final[dict[str, str]] = {
    **{verb: f"{_C}:{verb}" for verb in ("attach", "events", "inspect", "kill", "logs", "pause")},
    **{verb: f"{_C}:{verb}" for verb in ("port", "ps", "rename", "restart", "rm", "start")},
    **{verb: f"{_C}:{verb}" for verb in ("stop", "unpause", "wait")},
    **{verb: f"{_F}:{verb}" for verb in ("info", "version")},
    "exec": f"{_C}:exec_",
    "run": "machine.cli.run:run",
    "create": "machine.cli.run:create",
    **{verb: f"{_I}:{verb}" for verb in ("images", "pull", "rmi", "tag")},
    **{
        f"container {verb}": f"{_C}:{verb}"
        for verb in ("attach", "inspect", "kill", "logs", "pause", "port", "rename", "restart")
    },
    **{f"container {verb}": f"{_C}:{verb}" for verb in ("rm", "start", "stop", "unpause", "wait")},
    "container ls": f"{_C}:ps",
    "container ps": f"{_C}:ps",
    "container list": f"{_C}:ps",
    "container exec": f"{_C}:exec_",
    "container run": "machine.cli.run:run",
    "container create": "machine.cli.run:create",
    **{verb: f"{_A}:{verb}" for verb in ("history", "load", "login", "logout", "push", "save")},
    "import": f"{_A}:import_",
    "search": f"{_A}:search",
    **{f"image {verb}": f"{_A}:{verb}" for verb in ("history", "load", "push", "save")},
    "image import": f"{_A}:import_",
    "image prune": f"{_A}:image_prune",
    **dict.fromkeys(("build", "image build", "builder build"), "machine.cli.build:build"),
    "image ls": f"{_I}:images",
    "image list": f"{_I}:images",
    "image pull": f"{_I}:pull",
    "image rm": f"{_I}:rmi",
    "image tag": f"{_I}:tag",
    "image inspect": f"{_I}:inspect",
    "volume ls": f"{_V}:volume_ls",
    "volume create": f"{_V}:volume_create",
    "volume rm": f"{_V}:volume_rm",
    "volume inspect": f"{_V}:volume_inspect",
    "network ls": f"{_V}:network_ls",
    "network inspect": f"{_V}:network_inspect",
    **{
        f"network {verb}": f"{_V}:network_{verb}"
        for verb in ("create", "rm", "connect", "disconnect")
    },
    **{verb: f"machine.cli.copying:{verb}" for verb in ("cp", "diff", "export")},
    **{f"container {verb}": f"machine.cli.copying:{verb}" for verb in ("cp", "diff", "export")},
    **{verb: f"machine.cli.usage:{verb}" for verb in ("stats", "top", "update")},
    **{f"container {verb}": f"machine.cli.usage:{verb}" for verb in ("stats", "top", "update")},
    "container prune": "machine.cli.usage:container_prune",
    "volume prune": "machine.cli.usage:volume_prune",
    "network prune": "machine.cli.upkeep:network_prune",
    **dict.fromkeys(("commit", "container commit"), "machine.cli.upkeep:commit"),
    "builder prune": "machine.cli.upkeep:builder_prune",
    "system df": "machine.cli.upkeep:system_df",
    "system prune": "machine.cli.upkeep:system_prune",
    "system info": f"{_F}:info",
    "system events": f"{_C}:events",
}
# The rest of docker's grammar: known, and said to be not served rather than unknown.
NOT_SERVED: Final[dict[str, tuple[str, ...]]] = {
    "": (
        *("buildx", "checkpoint", "compose", "config", "context"),
        "manifest",
        *("node", "plugin", "secret", "service", "stack"),
        *("swarm", "trust"),
    ),
    "volume ": ("update",),
    "system ": ("dial-stdio",),
}


_ELSEWHERE: Final = {
    "compose": "Docker Compose itself works here, with the docker binary or alone: "
    'eval "$(machine env NAME)"',
    "buildx": "`machine build` builds without BuildKit; the docker binary does with DOCKER_BUILDKIT=0.",
}


def _load(place: str) -> click.Command:
    module, _, attribute = place.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{place} is not a command")
    return command


def _refusal(words: str) -> click.Command:
    @click.command(cls=Command, name=words, context_settings={"ignore_unknown_options": True})
    @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
    def refuse(rest: tuple[str, ...]) -> None:
        raise MachineError(
            f"docker {words} is not served yet",
            details=_ELSEWHERE.get(
                words, "The rest of the docker command line works on this machine."
            ),
            hint="`machine docker --help` lists what is served.",
        )

    return refuse


class DockerGroup(click.Group):
    """Commands out of TABLE below a prefix ("" or "container ")."""

    prefix = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = [n.removeprefix(self.prefix) for n in TABLE if n.startswith(self.prefix)]
        return sorted({name.split()[0] for name in names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        words = self.prefix + cmd_name
        if words in TABLE:
            return _load(TABLE[words])
        if cmd_name in NOT_SERVED.get(self.prefix, ()):
            return _refusal(words)
        if any(name.startswith(f"{words} ") for name in TABLE):
            group = DockerGroup(cmd_name, help=f"Manage {cmd_name}s")
            group.prefix = f"{words} "
            return group
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            rows.append((name, _short(command) if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _short(command: click.Command) -> str:
    """Whole and without a full stop, as in the list of `machine --help`."""
    return command.get_short_help_str(limit=200).removesuffix(".")


docker = DockerGroup("docker", help="The docker commands, for those without the docker binary.")
