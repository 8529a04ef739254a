"""`snapshot`, `resize`, `console`: for the drivers that can."""

from __future__ import annotations

import click

from drivers.api import Size
from machine.cli.grammar import Command
from machine.cli.session import Session


@click.group()
def snapshot() -> None:
    """Keep and restore states of a machine."""


@snapshot.command("create", cls=Command)
@click.argument("name")
@click.argument("label")
@click.pass_obj
def snapshot_create(session: Session, name: str, label: str) -> None:
    """Keep the machine as it is now, under LABEL."""
    session.service.abilities.snapshot(name, label)
    session.say(f'Snapshot "{label}" of machine "{name}" was made.')


@snapshot.command("ls", cls=Command)
@click.argument("name", required=False)
@click.pass_obj
def snapshot_ls(session: Session, name: str | None) -> None:
    """List a machine's snapshots, oldest first."""
    for label in session.service.abilities.snapshots(session.name_or_default(name)):
        session.say(label)


@snapshot.command("restore", cls=Command)
@click.argument("name")
@click.argument("label")
@click.pass_obj
def snapshot_restore(session: Session, name: str, label: str) -> None:
    """Put the machine back to LABEL. What happened on it since then is lost."""
    session.service.abilities.restore(name, label)
    session.service_note(f'Machine "{name}" is back at "{label}".')


@snapshot.command("rm", cls=Command)
@click.argument("name")
@click.argument("label")
@click.pass_obj
def snapshot_rm(session: Session, name: str, label: str) -> None:
    """Forget a snapshot."""
    session.service.abilities.drop_snapshot(name, label)
    session.say(f'Snapshot "{label}" of machine "{name}" was removed.')


@click.command(cls=Command)
@click.option("--cpus", type=click.IntRange(min=0), default=0, help="Virtual CPUs")
@click.option("--memory", type=click.IntRange(min=0), default=0, help="Memory in MiB")
@click.option("--disk", type=click.IntRange(min=0), default=0, help="Disk in GiB; it only grows")
@click.option("--size", "plan", default="", help="The provider's name of a size")
@click.argument("name", required=False)
@click.pass_obj
def resize(
    session: Session, name: str | None, cpus: int, memory: int, disk: int, plan: str
) -> None:
    """Change the size of a machine; where the provider wants it off for that, it is restarted."""
    wanted = session.name_or_default(name)
    session.service.abilities.resize(wanted, Size(cpus, memory, disk, plan))
    session.service_note(f'Machine "{wanted}" has its new size.')


@click.command(cls=Command)
@click.argument("name", required=False)
@click.pass_obj
def console(session: Session, name: str | None) -> None:
    """Show what a machine wrote on its console: for a host that does not answer SSH."""
    from machine.errors import printable

    text = session.service.abilities.console(session.name_or_default(name))
    session.say(printable(text.replace("\r", ""), limit=len(text) + 1).rstrip("\n"))
