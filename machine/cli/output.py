"""How container commands print: tables, Go templates, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from machine.cli.session import Session
from machine.errors import printable
from machine.gotemplate import render
from machine.tables import table


def show_rows(
    session: Session,
    rows: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    headers: Mapping[str, str],
    template: str,
) -> None:
    """Rows as docker prints them: its table, `table TEMPLATE`, `json`, or a template a row."""
    if not template or template == "table":
        words = [headers.get(name, name.upper()) for name in columns]
        session.say(table(words, [[row[name] for name in columns] for row in rows]))
    elif template == "json":
        for row in rows:
            session.say(json.dumps(row, separators=(",", ":")))
    elif template.startswith("table "):
        _template_table(session, rows, headers, template.removeprefix("table "))
    else:
        for row in rows:
            _say(session, render(_escapes(template), row))


def _template_table(
    session: Session, rows: Sequence[Mapping[str, str]], headers: Mapping[str, str], text: str
) -> None:
    cells = _escapes(text).split("\t")
    names = [re.findall(r"\.([A-Za-z]+)", cell) for cell in cells]
    words = [" ".join(headers.get(n, n.upper()) for n in found) for found in names]
    session.say(table(words, [[render(cell, row) for cell in cells] for row in rows]))


def _escapes(template: str) -> str:
    return template.replace("\\t", "\t").replace("\\n", "\n")


def formatted(session: Session, documents: Sequence[object], template: str) -> None:
    """inspect's output: a JSON array, or a template a document."""
    if not template:
        _say(session, json.dumps(documents, indent=4, ensure_ascii=False))
        return
    for document in documents:
        _say(
            session,
            json.dumps(document, separators=(",", ":"))
            if template == "json"
            else render(_escapes(template), document),
        )


def _say(session: Session, text: str) -> None:
    """What containers put into their names and labels must not steer a terminal; into a pipe it
    goes as it is (security.md C43)."""
    session.say(printable(text, limit=len(text)) if session.stdout.isatty() else text)
