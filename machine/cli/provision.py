"""`provision`, `upgrade`, `regenerate-certs`."""

from __future__ import annotations

import click

from machine.cli.grammar import Command
from machine.cli.session import Session


@click.command(cls=Command)
@click.option(
    "--take-over", is_flag=True, help="Make a host that is another store's machine yours again"
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def provision(session: Session, *, names: tuple[str, ...], take_over: bool) -> None:
    """Re-provision existing machines. Containers live on."""
    session.service.provision(session.names_or_default(names), take_over=take_over)
    session.close()


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def upgrade(session: Session, names: tuple[str, ...]) -> None:
    """Upgrade a machine to the agent that this program brings. Containers live on."""
    session.service.upgrade(session.names_or_default(names))
    session.close()


@click.command("regenerate-certs", cls=Command)
@click.option("--force", "-f", is_flag=True, help="Force rebuild and do not prompt")
@click.option("--client-certs", is_flag=True, help="Also regenerate client certificates")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def regenerate_certs(
    session: Session, *, names: tuple[str, ...], force: bool, client_certs: bool
) -> None:
    """Regenerate TLS certificates for a machine. Containers live on."""
    wanted = session.names_or_default(names)
    if not force and not session.confirm(
        "Regenerate TLS machine certs?  Warning: this is irreversible. (y/n): "
    ):
        return
    session.say("Regenerating TLS certificates")
    session.service.regenerate_certs(wanted, client=client_certs)
    session.close()
