"""Turning a droplet on and off, snapshots, sizes: everything that is an action of the API.

An action has no idempotency token either. So the verbs look at the droplet, ask for what is still
missing, and look again: a lost answer, or a droplet that is busy with something else, only costs
another round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from drivers.api import DriverContext, Size
from drivers.digitalocean import plan
from drivers.digitalocean.account import Account
from drivers.digitalocean.creation import SETTLE_SECONDS, settled
from drivers.digitalocean.things import Droplet, Snapshot
from drivers.errors import (
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    TransientError,
    WaitTimeoutError,
)
from drivers.polling import Backoff, NotYet, wait_until

ON: Final = "active"
OFF: Final = "off"
_SHUTDOWN_SECONDS: Final = 120.0  # then the power is cut, as DigitalOcean recommends
_TURN_SECONDS: Final = 180.0
_ACTION_SECONDS: Final = 3600.0  # a snapshot of a large disk takes its time
_POLL: Final = Backoff(first=1.0, factor=1.5, most=5.0)


def droplet_of(ctx: DriverContext, account: Account) -> Droplet:
    """The machine's droplet, by state or by tag. Raises GoneError."""
    ident = ctx.state.get("droplet")
    if isinstance(ident, int):
        return account.droplet(ident)
    found = account.droplets(plan.tag_of(ctx.uuid))
    if not found:
        raise GoneError(f"there is no droplet of {ctx.name}")
    return min(found, key=lambda one: one.ident)


def started(ctx: DriverContext, account: Account) -> None:
    _turn(ctx, account, ON, "power_on", _TURN_SECONDS)


def stopped(ctx: DriverContext, account: Account) -> None:
    try:
        _turn(ctx, account, OFF, "shutdown", _SHUTDOWN_SECONDS)
    except WaitTimeoutError:
        killed(ctx, account)


def killed(ctx: DriverContext, account: Account) -> None:
    _turn(ctx, account, OFF, "power_off", _TURN_SECONDS)


def restarted(ctx: DriverContext, account: Account) -> None:
    found = droplet_of(ctx, account)
    if found.status != ON:
        started(ctx, account)
        return
    _done(
        ctx, account, _asked(ctx, account, found.ident, lambda: account.act(found.ident, "reboot"))
    )


def kept(ctx: DriverContext, account: Account, label: str) -> None:
    """A snapshot. Raises ConflictError when there is one with that label."""
    name = plan.snapshot_name(ctx.uuid, label)
    if _snapshot(ctx, account, label) is not None:
        raise ConflictError(f"{ctx.name} has a snapshot {label} already")
    found = droplet_of(ctx, account)
    action = _asked(
        ctx,
        account,
        found.ident,
        lambda: account.act(found.ident, "take_snapshot", name),
        lambda: _snapshot(ctx, account, label) is not None or None,
    )
    _done(ctx, account, action)
    if settled(ctx, lambda: _snapshot(ctx, account, label), SETTLE_SECONDS) is None:
        raise DriverError(f"DigitalOcean does not list the snapshot {name}")


def labels(ctx: DriverContext, account: Account) -> list[str]:
    before = plan.snapshot_name(ctx.uuid, "")
    names = [one.name for one in account.snapshots()]
    return [name.removeprefix(before) for name in names if name.startswith(before)]


def put_back(ctx: DriverContext, account: Account, label: str) -> None:
    kept_one = _snapshot(ctx, account, label)
    if kept_one is None:
        raise GoneError(f"{ctx.name} has no snapshot {label}")
    found = droplet_of(ctx, account)
    action = _asked(
        ctx,
        account,
        found.ident,
        lambda: account.act(found.ident, "restore", int(kept_one.ident)),
    )
    _done(ctx, account, action)
    # The droplet is turned on by the restore, whatever it was before.
    if found.status == ON:
        started(ctx, account)
    else:
        killed(ctx, account)


def forgotten(ctx: DriverContext, account: Account, label: str) -> None:
    found = _snapshot(ctx, account, label)
    if found is not None:
        account.drop_snapshot(found.ident)


def resized(ctx: DriverContext, account: Account, wanted: Size) -> None:
    """The disk is made larger only when that is asked for: a larger one never shrinks again."""
    found = droplet_of(ctx, account)
    plans = account.plans()
    now = next((one for one in plans if one.slug == found.size), None)
    chosen = plan.size_for(plans, ctx.text("region"), now, wanted)
    if chosen.slug == found.size:
        return
    if chosen.disk < found.disk:
        raise InvalidError(
            f"{chosen.slug} has {chosen.disk} GiB of disk, the droplet has {found.disk}: "
            "a disk can't become smaller"
        )
    if found.status == ON:
        stopped(ctx, account)
    disk = wanted.disk > found.disk

    def here() -> bool | None:
        return account.droplet(found.ident).size == chosen.slug or None

    action = _asked(
        ctx,
        account,
        found.ident,
        lambda: account.resize(found.ident, chosen.slug, disk=disk),
        here,
    )
    _done(ctx, account, action)
    if found.status == ON:
        started(ctx, account)


def _snapshot(ctx: DriverContext, account: Account, label: str) -> Snapshot | None:
    name = plan.snapshot_name(ctx.uuid, label)
    return next((one for one in account.snapshots() if one.name == name), None)


def _turn(ctx: DriverContext, account: Account, wanted: str, verb: str, seconds: float) -> None:
    """Raises WaitTimeoutError when the droplet is not `wanted` within `seconds`."""
    ident = droplet_of(ctx, account).ident

    def attempt() -> NotYet | None:
        found = account.droplet(ident)
        if found.status == wanted and not found.locked:
            return None
        if found.locked:
            return NotYet(f"the droplet {ident} is {found.status} and busy")
        try:
            account.act(ident, verb)
        except (ConflictError, TransientError) as err:
            return NotYet(err.message)
        return NotYet(f"the droplet {ident} is {found.status}")

    what = f"the droplet {ident} turning {'on' if wanted == ON else 'off'}"
    wait_until(attempt, what=what, seconds=seconds, clock=ctx.clock, backoff=_POLL)


def _asked(
    ctx: DriverContext,
    account: Account,
    ident: int,
    ask: Callable[[], int],
    is_done: Callable[[], bool | None] = lambda: None,
) -> int:
    """The number of the action that `ask` asks for, or 0 when an earlier, lost answer did it."""

    def attempt() -> int | NotYet:
        try:
            return ask()
        except ConflictError as err:
            _idle(ctx, account, ident)
            return NotYet(err.message)
        except TransientError as err:
            _idle(ctx, account, ident)
            return 0 if settled(ctx, is_done, SETTLE_SECONDS) else NotYet(err.message)

    return wait_until(
        attempt, what="the action", seconds=_TURN_SECONDS, clock=ctx.clock, backoff=_POLL
    )


def _idle(ctx: DriverContext, account: Account, ident: int) -> None:
    """Return when the droplet does nothing, perhaps after an action whose answer was lost."""

    def attempt() -> NotYet | None:
        return NotYet("it is busy") if account.droplet(ident).locked else None

    what = f"the end of what droplet {ident} does"
    wait_until(attempt, what=what, seconds=_ACTION_SECONDS, clock=ctx.clock, backoff=_POLL)


def _done(ctx: DriverContext, account: Account, action: int) -> None:
    """Wait for an action to be completed. Raises DriverError when it failed."""

    def attempt() -> NotYet | None:
        try:
            status = account.action(action)
        except GoneError as err:
            return NotYet(err.message)
        if status == "errored":
            raise DriverError(
                f"DigitalOcean: the action {action} on {ctx.name} failed",
                hint="Its control panel may say why; a droplet that hangs helps: machine kill.",
            )
        return None if status == "completed" else NotYet(f"action {action} is {status}")

    if action:
        what = f"the end of action {action}"
        wait_until(attempt, what=what, seconds=_ACTION_SECONDS, clock=ctx.clock, backoff=_POLL)
