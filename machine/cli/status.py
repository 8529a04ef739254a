"""`status`, `ip`, `url`."""

from __future__ import annotations

from collections.abc import Callable

import click

from machine import parallel
from machine.cli.grammar import Command
from machine.cli.session import Session
from machine.errors import EXIT_NOT_FOUND, MachineError, NotFoundError


@click.command(cls=Command)
@click.argument("name", required=False)
@click.pass_obj
def status(session: Session, name: str | None) -> None:
    """Get the status of a machine."""
    wanted = session.name_or_default(name)
    try:
        state = session.service.state(wanted)
    except NotFoundError as err:
        raise MachineError(err.brief, exit_code=EXIT_NOT_FOUND) from err
    session.say(state.value)


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def ip(session: Session, names: tuple[str, ...]) -> None:
    """Get the IP address of a machine."""
    _each(session, session.names_or_default(names), session.service.ip)


@click.command(cls=Command)
@click.argument("name", required=False)
@click.pass_obj
def url(session: Session, name: str | None) -> None:
    """Get the URL of a machine."""
    session.say(session.service.url(session.name_or_default(name)))


def _each(session: Session, names: tuple[str, ...], ask: Callable[[str], str]) -> None:
    """All at once, answers in the order of the names; errors are joined."""
    session.service.load_all(names)

    def one(name: str) -> tuple[str, str]:
        try:
            return ask(name), ""
        except MachineError as err:
            return "", str(err)

    answers = parallel.each(one, names)
    for text, _ in answers:
        if text:
            session.say(text)
    failed = [error for _, error in answers if error]
    if failed:
        raise MachineError("\n".join(failed))
