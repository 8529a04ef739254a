"""docs/api-coverage.md from the route table and the create body's field tables.

`python -m tests.meta.coverage` writes it; `test_coverage` says when it is stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agent.api.routes import ROUTES, Row
from agent.api.schema import config, host
from agent.api.schema.fields import Table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/api-coverage.md"

HEAD = """# API coverage

Docker Engine API 1.51 (minimum 1.24). Made by `python -m tests.meta.coverage` from the route table
(`agent/api/routes.py`) and the field tables (`agent/api/schema`); a test keeps it fresh.

*served*: answered as Docker Engine does. *not yet*: 501 that names the endpoint. *no swarm*: 503 with
Docker's text, as of an engine outside a swarm. A create field that is not served is refused by its name unless
it has its zero value.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_routes(), "", *_fields()]) + "\n"


def _routes() -> Iterator[str]:
    served = sum(row.service.value == "served" for row in ROUTES)
    core = sum(row.service.value != "no swarm" for row in ROUTES)
    yield f"## Endpoints: {served} of {core} served, {len(ROUTES) - core} of a swarm"
    yield ""
    yield "| method | path | |"
    yield "| --- | --- | --- |"
    for row in sorted(ROUTES, key=_order):
        yield f"| {row.method} | `{row.template}` | {row.service.value} |"


def _order(row: Row) -> tuple[str, str]:
    return row.template, row.method


def _fields() -> Iterator[str]:
    yield "## Fields of POST /containers/create"
    tables = [value for module in (config, host) for value in vars(module).values()]
    for table in (one for one in tables if isinstance(one, Table)):
        missing = [f"`{field.name}`" for field in table.fields if not field.served]
        served = [f"`{field.name}`" for field in table.fields if field.served]
        yield ""
        yield f"**{table.definition}**: {len(served)} of {len(table.fields)} served."
        yield f"Served: {', '.join(served)}."
        yield f"Refused: {', '.join(missing) or 'none'}."


if __name__ == "__main__":
    PAGE.write_text(page())
