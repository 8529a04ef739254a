"""`version`, `drivers`."""

from __future__ import annotations

import click

from drivers import registry
from drivers.errors import DriverError
from machine.cli.grammar import Command
from machine.cli.root import program_version, root
from machine.cli.session import Session


@click.command(cls=Command)
@click.argument("name", required=False)
@click.pass_obj
def version(session: Session, name: str | None) -> None:
    """Show the program's version, or the engine's version of a machine."""
    if name:
        session.say(session.service.engine_version(name))
    else:
        session.say(f"{session.program} version {program_version()}, build release")


@click.command("help", cls=Command)
@click.argument("words", nargs=-1, metavar="[COMMAND]")
@click.pass_context
def help_(ctx: click.Context, /, words: tuple[str, ...]) -> None:
    """Show the help of a command, or this program's."""
    top = ctx.find_root()
    root.main([*words, "--help"], prog_name=top.info_name, standalone_mode=False, obj=ctx.obj)


@click.command(cls=Command)
@click.pass_obj
def drivers(session: Session) -> None:
    """List the drivers that are installed."""
    rows = []
    for name in registry.names():
        try:
            driver = registry.load(name)
        except DriverError as err:
            rows.append((name, f"not usable: {err.message}"))
            continue
        alias = "" if driver.name == name else f"the same as {driver.name}"
        rows.append((name, alias or driver.summary))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        session.say(f"{name:<{width}}   {text}")
