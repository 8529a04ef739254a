"""`start`, `stop`, `restart`, `kill`, `suspend`, `resume`."""

from __future__ import annotations

import click

from machine.cli.grammar import Command
from machine.cli.session import Session
from machine.lifecycle import Event


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def start(session: Session, names: tuple[str, ...]) -> None:
    """Start a machine."""
    _power(session, names, Event.START)
    _new_address_note(session)


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def stop(session: Session, names: tuple[str, ...]) -> None:
    """Stop a machine."""
    _power(session, names, Event.STOP)


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def kill(session: Session, names: tuple[str, ...]) -> None:
    """Kill (abruptly force stop) a machine."""
    _power(session, names, Event.KILL)


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def restart(session: Session, names: tuple[str, ...]) -> None:
    """Restart a machine."""
    _power(session, names, Event.RESTART)
    _new_address_note(session)


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def suspend(session: Session, names: tuple[str, ...]) -> None:
    """Suspend a machine: its memory is kept, and `resume` goes on where it was."""
    _power(session, names, Event.SUSPEND)


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def resume(session: Session, names: tuple[str, ...]) -> None:
    """Resume a suspended machine."""
    _power(session, names, Event.RESUME)
    _new_address_note(session)


def _power(session: Session, names: tuple[str, ...], event: Event) -> None:
    session.service.power(session.names_or_default(names), event)
    session.close()


def _new_address_note(session: Session) -> None:
    session.say(
        "Started machines may have new IP addresses. You may need to re-run the "
        f"`{session.program} env` command."
    )
