"""`rm`."""

from __future__ import annotations

import click

from machine.cli.grammar import Command
from machine.cli.session import Session
from machine.errors import MachineError, NotFoundError


@click.command(cls=Command)
@click.option(
    "--force",
    "-f",
    is_flag=True,
    help="Remove local configuration even if machine cannot be removed, also implies an automatic "
    "yes (-y)",
)
@click.option("-y", "yes", is_flag=True, help="Assumes automatic yes to proceed with remove")
@click.option(
    "--uninstall",
    is_flag=True,
    help="Also take the engine, its containers and all that came with it off the host",
)
@click.argument("names", nargs=-1, metavar="NAME...")
@click.pass_context
def rm(
    ctx: click.Context, /, *, names: tuple[str, ...], force: bool, yes: bool, uninstall: bool
) -> None:
    """Remove a machine."""
    session = ctx.ensure_object(Session)
    if not names:
        click.echo(ctx.get_help())
        raise MachineError("Error: You must specify a machine name")
    names = tuple(dict.fromkeys(names))
    session.say(f"About to remove {', '.join(names)}")
    session.say(_warning(session, names, uninstall=uninstall))
    if not (force or yes or session.confirm("Are you sure? (y/n): ")):
        return
    failed = []
    for name in names:
        try:
            session.service.remove(name, force=force, uninstall=uninstall)
        except NotFoundError as err:
            if not force:
                failed.append(str(err))
            continue
        except MachineError as err:
            failed.append(str(err))
            continue
        session.service_note(f"Successfully removed {name}")
    session.close()
    if failed:
        raise MachineError("\n".join(failed))


def _warning(session: Session, names: tuple[str, ...], *, uninstall: bool) -> str:
    """docker-machine's sentence where it is true; it also said it of hosts that it left alone."""
    lost = [name for name in names if session.service.loses_host(name)]
    if lost:
        return (
            f"WARNING: Of {', '.join(lost)} this deletes the local reference only. What docker-machine "
            "made at the provider stays, and goes on costing: remove it there."
        )
    if not all(session.service.keeps_host(name) for name in names):
        return "WARNING: This action will delete both local reference and remote instance."
    if uninstall:
        return (
            "WARNING: This action will delete the local reference, and the engine with all its "
            "containers, images and volumes on the host."
        )
    return (
        "This deletes the local reference; the host keeps the engine and its containers "
        "(--uninstall takes them off)."
    )
