"""`inspect`: a machine's record as docker-machine's config.json shows it."""

from __future__ import annotations

import json

import click

from machine.cli.grammar import Command
from machine.cli.session import Session
from machine.errors import MachineError
from machine.gotemplate import render
from machine.store import legacy


@click.command(cls=Command)
@click.option("-f", "--format", "template", default="", help="Format using the given go template")
@click.argument("names", nargs=-1, metavar="[NAME]")
@click.pass_obj
def inspect(session: Session, template: str, names: tuple[str, ...]) -> None:
    """Inspect information about a machine."""
    if len(names) > 1:
        raise MachineError("Error: Expected one machine name as an argument")
    name = session.name_or_default(names[0] if names else None)
    record = session.store.load(name)
    folder, certs = session.store.machine_dir(name), session.store.paths.certs
    document = legacy.document(record, str(folder), str(certs))
    if template:
        session.say(render(template.replace("\\n", "\n").replace("\\t", "\t"), document))
    else:
        session.say(json.dumps(document, indent=4, ensure_ascii=False))
