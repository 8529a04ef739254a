"""`version`, `drivers`."""

from __future__ import annotations

import click

from drivers import registry
from drivers.api import abilities
from drivers.errors import DriverError
from machine.cli.grammar import Command
from machine.cli.root import program_version, root
from machine.cli.session import Session
from machine.errors import MachineError
from machine.tables import table


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
    """List the drivers: what they make, what they can do, and what is missing to use them."""
    missing: list[tuple[str, str]] = []
    rows = []
    for name in [*registry.names(), *registry.plugins(session.env.get("PATH", ""))]:
        try:
            driver = registry.load(name, session.plugins)
            lacks = session.service.abilities.missing(driver) if driver.name == name else []
        except (DriverError, MachineError) as err:
            rows.append((name, "", "no", f"not usable: {err}"))
            continue
        if driver.name != name:
            rows.append((name, "", "", f"the same as {driver.name}"))
            continue
        missing += [(name, thing) for thing in lacks]
        can = " ".join(abilities(driver))
        rows.append((name, can, "no" if lacks else "yes", driver.summary))
    session.say(table(("DRIVER", "CAN", "READY", "WHAT IT DOES"), rows))
    for name, thing in missing:
        session.say(f"{name}: {thing}")
