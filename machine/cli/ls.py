"""`ls` and `active`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Final

import click

from machine.cli.grammar import Command
from machine.cli.output import show_rows
from machine.cli.session import Session
from machine.errors import MachineError
from machine.listing import HEADERS, TABLE, Row, matches, parse_filters
from machine.model import Phase
from machine.store import Entry

_UNFINISHED: Final = {
    Phase.CREATING: "The create has not finished: run it again",
    Phase.REMOVING: "The removal has not finished: run rm again",
}


@click.command(cls=Command)
@click.option("-q", "--quiet", is_flag=True, help="Enable quiet mode")
@click.option("--filter", "filters", multiple=True, help="Filter output based on conditions")
@click.option("-t", "--timeout", default=10, show_default=True, help="Timeout in seconds")
@click.option("-f", "--format", "template", default="", help="Pretty-print using a Go template")
@click.pass_obj
def ls(
    session: Session, quiet: bool, filters: tuple[str, ...], timeout: int, template: str
) -> None:
    """List machines."""
    wanted = parse_filters(filters)
    entries = session.store.entries()
    if quiet and "state" not in wanted:
        known = [Row(entry.name, entry.record) for entry in entries if entry.record]
        _say_names(session, [row for row in known if matches(row, wanted)])
        return
    rows = [row for row in ask_all(session, entries, timeout) if matches(row, wanted)]
    if quiet:
        _say_names(session, rows)
        return
    docker_host = session.env.get("DOCKER_HOST", "")
    cells = [row.cells(docker_host) for row in rows]
    if template == "json":
        session.say(json.dumps(cells, indent=4))
        return
    show_rows(session, cells, TABLE, HEADERS, template)


def _say_names(session: Session, rows: Sequence[Row]) -> None:
    for row in rows:
        session.say(row.name)


def ask_all(session: Session, entries: Sequence[Entry], timeout: float) -> list[Row]:
    """Every machine at once; one that takes longer than `timeout` seconds is a Timeout."""
    answers: dict[str, Row] = {}

    def one(entry: Entry) -> None:
        answers[entry.name] = _ask(session, entry)

    threads = [threading.Thread(target=one, args=(entry,), daemon=True) for entry in entries]
    session.service  # noqa: B018  # made here, once, and not by the threads
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = "Timeout: the machine did not answer"
    return [
        answers.get(entry.name) or Row(entry.name, entry.record, "Timeout", error=late)
        for entry in entries
    ]


def _ask(session: Session, entry: Entry) -> Row:
    if entry.record is None:
        problem = entry.problem.brief if entry.problem else "unreadable record"
        return Row(entry.name, None, "Error", error=problem)
    start = time.monotonic()
    state = url = version = error = ""
    try:
        state = session.service.state(entry.name).value
        url = entry.record.url if state == "Running" else ""
        version = session.service.engine_version(entry.name) if url else ""
    except MachineError as problem:
        error = _one_line(problem)
        state = state or "Error"
    if entry.record.phase is not Phase.READY:  # why the engine does not answer, in most cases
        error = _UNFINISHED[entry.record.phase]
    return Row(entry.name, entry.record, state, url, version, error, time.monotonic() - start)


def _one_line(problem: MachineError) -> str:
    """What failed and why, where the why is short enough for a column."""
    short = problem.details and len(problem.details) < 80 and "\n" not in problem.details
    return f"{problem.brief}: {problem.details}" if short else problem.brief


@click.command(cls=Command)
@click.option("-t", "--timeout", default=10, show_default=True, help="Timeout in seconds")
@click.argument("words", nargs=-1, metavar="")
@click.pass_obj
def active(session: Session, timeout: int, words: tuple[str, ...]) -> None:
    """Print which machine is active."""
    if words:
        raise MachineError("Error: Too many arguments given")
    rows = ask_all(session, session.store.entries(), timeout)
    docker_host = session.env.get("DOCKER_HOST", "")
    for row in rows:
        if row.cells(docker_host)["Active"] == "*":
            session.say(row.name)
            return
    if any(row.state == "Timeout" for row in rows):
        raise MachineError("Error getting active host: timeout")
    raise MachineError(
        "No active host found", hint=f'Make one active: eval "$({session.program} env NAME)"'
    )
