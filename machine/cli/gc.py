"""`gc`: what carries our tag at a provider, and no machine of this store accounts for (case 160)."""

from __future__ import annotations

from typing import Any

import click

from drivers.api import ListOwned
from machine.abilities import cannot_list
from machine.cli.create import CreateCommand, option_values
from machine.cli.session import Session
from machine.errors import MachineError


class GcCommand(CreateCommand):
    """Takes the options of the driver: they say which account and region are looked at."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if not isinstance(ctx.meta["machine.loaded"], ListOwned):  # before its options are missed
            raise cannot_list(ctx.meta["machine.driver"])
        return rest

    def shared(self) -> list[click.Parameter]:
        return [
            click.Option(["--driver", "-d"], help="Driver whose account is looked at", default=""),
            click.Option(["--yes", "-y"], is_flag=True, help="Remove without asking"),
            click.Option(
                ["--adopt"],
                is_flag=True,
                help="Also what another store (a colleague, a lost laptop) may have made",
            ),
        ]


@click.command(
    cls=GcCommand,
    short_help="Remove what is left over at a provider",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def gc(ctx: click.Context, /, **given: Any) -> None:
    """Find what machines left behind at a provider, and remove it after asking.

    Only what carries this program's tag is looked at, and only what this store has made is removed,
    unless --adopt is given.
    """
    session = ctx.ensure_object(Session)
    driver = ctx.meta["machine.driver"]
    values = option_values(ctx, given, session.env)
    abilities = session.service.abilities
    found = abilities.orphans(driver, values)
    for orphan in found:
        whose = "" if orphan.ours else "   (not made by this store)"
        session.say(f"{orphan.uuid}{whose}")
        for thing in orphan.things:
            session.say(f"  {thing}")
    wanted = [orphan for orphan in found if orphan.ours or given["adopt"]]
    if not found:
        session.say("Nothing is left over.")
    elif not wanted:
        session.say("None of it was made by this store: --adopt removes it all the same.")
    if not wanted or not (
        given["yes"] or session.confirm(f"Remove what belongs to {len(wanted)} of them? (y/n): ")
    ):
        return
    failed = []
    for orphan in wanted:
        try:
            abilities.collect(driver, values, orphan)
        except MachineError as err:
            failed.append(str(err))
            continue
        session.say(f"Removed {orphan.uuid}")
    if failed:
        raise MachineError("\n".join(failed))
