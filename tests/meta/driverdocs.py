"""docs/drivers.md from the drivers' own tables.

python -m tests.meta.driverdocs      # writes the page anew
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from drivers import registry
from drivers.api import ABILITIES, Driver, abilities
from drivers.options import Kind, OptionSpec

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "drivers.md"

INTRO: Final = """# Drivers

Written by `python -m tests.meta.driverdocs` from the drivers' own tables. `machine drivers` says the same of what is
installed on this computer, and what is missing to use it; `machine create -d DRIVER --help` shows a driver's options.

A driver makes a host that answers SSH and unmakes it, by the contract of `drivers/api.py`: everything made carries the
machine's uuid; a create that failed or was killed goes on with the same command; `machine rm` ends with an inventory
that was verified to be empty; `machine gc -d DRIVER` finds what is left over otherwise. Your own: [driver-authoring.md](driver-authoring.md).
`docker-machine-driver-*` binaries on the PATH work too: [drivers/plugins.md](drivers/plugins.md).

The whole fault table (every call of every driver broken in every way): `python -m pytest tests/conformance --whole-fault-table`;
a part of it is in `./test`.
"""


def page() -> str:
    """The whole page."""
    known = [registry.load(name) for name in registry.built_in()]
    drivers = {driver.name: driver for driver in known}
    aliases: dict[str, list[str]] = {}
    for name, driver in zip(registry.built_in(), known, strict=True):
        if name != driver.name:
            aliases.setdefault(driver.name, []).append(name)
    parts = [INTRO, *_matrix(list(drivers.values()), aliases)]
    for driver in drivers.values():
        parts += _driver(driver)
    return "\n".join(parts).rstrip() + "\n"


def _matrix(drivers: list[Driver], aliases: dict[str, list[str]]) -> Iterator[str]:
    words = [word for word, _ in ABILITIES]
    yield f"| driver | also | {' | '.join(words)} |"
    yield "|---" * (len(words) + 2) + "|"
    for driver in drivers:
        can = abilities(driver)
        cells = " | ".join("yes" if word in can else "" for word in words)
        yield f"| [{driver.name}](#{driver.name}) | {' '.join(aliases.get(driver.name, []))} | {cells} |"
    yield ""


def _driver(driver: Driver) -> Iterator[str]:
    yield f"## {driver.name}\n"
    yield f"{driver.summary[:1].upper()}{driver.summary[1:]}."
    more = ROOT / "docs" / "drivers" / f"{driver.name}.md"
    if more.exists():
        yield f"What it makes, what that costs, rights, cleaning up: [drivers/{more.name}](drivers/{more.name})."
    yield ""
    if not driver.options:
        return
    yield "| option | environment | default | |"
    yield "|---|---|---|---|"
    for spec in driver.options:
        yield _row(spec)
    yield ""


def _row(spec: OptionSpec) -> str:
    flags = ", ".join(f"`{flag}`" for flag in spec.flags)
    env = ", ".join(f"`{name}`" for name in spec.env)
    default = "" if spec.default in {"", False, ()} else f"`{spec.default}`"
    marks = [
        word
        for word, holds in (
            ("required", spec.required),
            ("secret: never stored", spec.secret),
            ("may be given several times", spec.kind is Kind.LIST),
        )
        if holds
    ]
    text = spec.help.replace("|", "\\|") + (f" ({'; '.join(marks)})" if marks else "")
    return f"| {flags} | {env} | {default} | {text} |"


if __name__ == "__main__":
    PAGE.write_text(page())
