"""Taking everything of a machine away, and seeing that it is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Final

from drivers.api import DriverContext
from drivers.digitalocean import plan
from drivers.digitalocean.account import Account
from drivers.digitalocean.creation import SETTLE_SECONDS, unsettled
from drivers.errors import ConflictError, DriverError, GoneError, WaitTimeoutError
from drivers.polling import Backoff, NotYet, wait_until

DROPLET: Final = "droplet"
TAG: Final = "tag"
_GONE_SECONDS: Final = 240.0
_POLL: Final = Backoff(first=0.5, factor=1.6, most=5.0)


@dataclasses.dataclass(frozen=True)
class Left:
    """Something that the account still has; `drop` deletes it and may be called twice."""

    owner: str  # uuid of the machine
    kind: str
    name: str
    drop: Callable[[], None]

    @property
    def what(self) -> str:
        return f"{self.kind} {self.name}"


def removed(ctx: DriverContext) -> None:
    """drivers.api.Driver.remove: rounds of looking and deleting until a look finds nothing.

    A volume can go only some time after its droplet, and lists show for a while what is gone.
    """
    account = Account(ctx)
    by = ctx.clock.monotonic() + _hidden(ctx)
    seen = "droplet" in ctx.state

    def round_() -> NotYet | None:
        nonlocal seen
        left = _of_machine(ctx, account)
        seen = seen or any(one.kind == DROPLET for one in left)
        for one in left:
            # Without its tag, a droplet that is not listed yet would never be found again.
            if one.kind != TAG or seen or ctx.clock.monotonic() >= by:
                with contextlib.suppress(ConflictError):  # what is attached goes in the next round
                    one.drop()
        if left:
            return NotYet(f"the account still has {', '.join(one.what for one in left)}")
        if not seen and ctx.state and ctx.clock.monotonic() < by:
            return NotYet("a droplet that was asked for a moment ago may still appear")
        return None

    try:
        wait_until(
            round_,
            what="the removal",
            seconds=_GONE_SECONDS,
            clock=ctx.clock,
            backoff=_POLL,
        )
    except WaitTimeoutError as err:
        raise DriverError(
            err.message,
            hint="Run the same command again, or remove these in DigitalOcean's control panel.",
        ) from err


def _hidden(ctx: DriverContext) -> float:
    """Seconds for which a droplet may be missing from lists; an empty state may be a lost one."""
    return unsettled(ctx, dict(ctx.state)) if ctx.state else SETTLE_SECONDS


def owned(account: Account) -> list[Left]:
    """Everything in the account that any machine of ours left, droplets first."""
    return [one for one in _all(account, account_wide=True) if one.owner]


def _of_machine(ctx: DriverContext, account: Account) -> list[Left]:
    found = [one for one in _all(account, tag=plan.tag_of(ctx.uuid)) if one.owner == ctx.uuid]
    ident = ctx.state.get("droplet")
    if isinstance(ident, int) and not any(
        (one.kind, one.name) == (DROPLET, str(ident)) for one in found
    ):
        # Its tag may have been taken off by hand, or the list is late.
        try:
            account.droplet(ident)
        except GoneError:
            return found
        found.insert(0, _droplet(account, ctx.uuid, ident))
    return found


def _droplet(account: Account, uuid: str, ident: int) -> Left:
    return Left(uuid, DROPLET, str(ident), functools.partial(account.drop_droplet, ident))


def _all(account: Account, tag: str = "", *, account_wide: bool = False) -> list[Left]:
    """In the order of removal: what is attached goes after what it is attached to."""
    owner, drop = plan.owner, functools.partial
    droplets = account.droplets("" if account_wide else tag)
    return [
        *(_droplet(account, owner(tags=one.tags), one.ident) for one in droplets),
        *(
            Left(
                owner(one.name, one.tags), "volume", one.name, drop(account.drop_volume, one.ident)
            )
            for one in account.volumes()
        ),
        *(
            Left(owner(one.name), "snapshot", one.name, drop(account.drop_snapshot, one.ident))
            for one in account.snapshots()
        ),
        *(
            Left(owner(one.name), "firewall", one.name, drop(account.drop_firewall, one.ident))
            for one in account.firewalls()
        ),
        *(
            Left(owner(one.name), "SSH key", one.name, drop(account.drop_key, one.ident))
            for one in account.ssh_keys()
        ),
        *(
            Left(owner(tags=[name]), TAG, name, drop(account.drop_tag, name))
            for name in account.tags()
        ),
    ]
