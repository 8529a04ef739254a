"""How arguments are read: click, with the spellings that Go's flag package also took."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable

import click

from machine.cli import COMMANDS
from machine.errors import EXIT_DOCKER_USAGE, MachineError

_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


def normalise(
    args: Iterable[str], params: Iterable[click.Parameter], *, interspersed: bool = True
) -> list[str]:
    """Turn `-debug` into `--debug` and `--force=true` into `--force`; stops at `--`.

    A value that follows an option is never touched, so `--engine-label -x` arrives as it is.
    Where options must stand first (`run IMAGE COMMAND -name x`) the first other word ends them.
    """
    options = [p for p in params if isinstance(p, click.Option)]
    by_name = {
        name: option for option in options for name in (*option.opts, *option.secondary_opts)
    }
    out: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--" or not (interspersed or arg.startswith("-")):
            out.append(arg)
            break
        word = _long(arg, by_name)
        name, has_value, value = word.partition("=")
        option = by_name.get(name) if word.startswith("-") else None
        if option is not None and option.is_flag and has_value:
            out.extend(_flag(name, value, option.secondary_opts))
            continue
        out.append(word)
        if option is not None and not option.is_flag and not has_value:
            out.extend(itertools.islice(rest, 1))
    out.extend(rest)
    return out


def _long(arg: str, by_name: dict[str, click.Option]) -> str:
    single = arg.startswith("-") and not arg.startswith("--")
    name = "-" + arg.partition("=")[0]
    return "-" + arg if single and len(arg) > 2 and name in by_name else arg


def _flag(name: str, value: str, opposite: list[str]) -> list[str]:
    word = value.lower()
    if word in _TRUE:
        return [name]
    if word in _FALSE:
        return opposite[:1]  # of a flag that is set unless it is denied
    raise MachineError(f'invalid boolean value "{value}" for {name}')


class Command(click.Command):
    """A command whose options may stand before or after its names, in Go's spellings too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        params = self.get_params(ctx)
        free = ctx.allow_interspersed_args
        return super().parse_args(ctx, normalise(args, params, interspersed=free))


class DockerUsageError(click.UsageError):
    """Wrong flags of a container command."""

    exit_code = EXIT_DOCKER_USAGE


class DockerCommand(Command):
    """A container command: flags that it doesn't know end it with 125, as docker's.

    Too few or too many words end it with 1, as docker's do (measured with 28.2).
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if isinstance(error, click.MissingParameter) or type(error) is click.UsageError:
                raise
            raise DockerUsageError(error.format_message(), error.ctx) from error


class LazyGroup(click.Group):
    """Commands from the table in `machine.cli`; help needs none of their modules."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._normalise_head(args, self.get_params(ctx)))

    def _normalise_head(self, args: list[str], params: list[click.Parameter]) -> list[str]:
        """Only what stands before the command's name is ours to read."""
        takes_value = {
            n for p in params if isinstance(p, click.Option) and not p.is_flag for n in p.opts
        }
        skip = False
        for index, arg in enumerate(args):
            if skip:
                skip = False
            elif not arg.startswith("-") or arg == "-":
                return normalise(args[:index], params) + args[index:]
            else:
                long = "-" + arg if not arg.startswith("--") and len(arg) > 2 else arg
                skip = arg in takes_value or long in takes_value
        return normalise(args, params)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = COMMANDS.get("help" if cmd_name == "h" else cmd_name)
        if row is None:
            return None
        module, _, attribute = row[0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{row[0]} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, (_, section, text) in COMMANDS.items():
            sections.setdefault(section, []).append((name, text))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)
