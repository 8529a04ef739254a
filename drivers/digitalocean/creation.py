"""Making a droplet and what belongs to it, one thing after the other, each found again first.

The API has no idempotency tokens, and its lists show a new thing only after a while. So each thing
is looked for by its tag or its unique name before it is made, and after an answer that was lost;
and before the droplet, which alone has no unique name, the time is stored: a create that is run again
soon after waits until the list must have shown the droplet that the first one may have made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from drivers.api import DriverContext, Made, Seed, SeedRequest
from drivers.caller import caller_cidr
from drivers.digitalocean import plan
from drivers.digitalocean.account import Account, Order
from drivers.digitalocean.refusals import ThrottledError
from drivers.digitalocean.things import Droplet
from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)
from drivers.polling import Backoff, NotYet, retried, wait_until

T = TypeVar("T")

USER_DATA_LIMIT: Final = 64 * 1024  # bytes (API reference, droplets_create: user_data)
# What is left of it for the user's own beside ours, in the base64 of a MIME archive.
OWN_USER_DATA_LIMIT: Final = 40 * 1024
SETTLE_SECONDS: Final = 45.0  # what was made must be listed by then
_ENSURE_SECONDS: Final = 240.0
_ACTIVE_SECONDS: Final = 300.0
_POLL: Final = Backoff(first=1.0, factor=1.4, most=5.0)


def created(ctx: DriverContext) -> Iterator[Made]:
    """drivers.api.Driver.create."""
    account = Account(ctx)
    state = dict(ctx.state)
    for step in (_tag, _key, _firewall, _volume, _droplet, _address):
        for made in step(ctx, account, state):
            state[made.key] = made.value
            yield made


State = dict[str, object]


def seed_of(ctx: DriverContext, user_data: bytes = b"") -> Seed:
    """What the droplet is told at its first boot; its keys are the same with any user data."""
    return ctx.seeds.seed(SeedRequest(ctx.text("ssh-user"), user_data, USER_DATA_LIMIT))


def _tag(ctx: DriverContext, account: Account, state: State) -> Iterator[Made]:
    """First, because a firewall takes only tags that exist."""
    if "tag" not in state:
        tag = plan.tag_of(ctx.uuid)

        def find() -> str | None:
            return tag if tag in account.tags() else None

        def make() -> str:
            account.make_tag(tag)
            return tag

        yield Made("tag", ensured(ctx, find, make))


def _key(ctx: DriverContext, account: Account, state: State) -> Iterator[Made]:
    if "key" in state:
        return
    mine = plan.name_of(ctx.uuid)
    given = ctx.text("ssh-key-fingerprint")
    public = "" if given else _public_key(ctx)
    fingerprint = given or plan.fingerprint(public)

    def find() -> int | None:
        known = [one for one in account.ssh_keys() if one.fingerprint == fingerprint]
        return known[0].ident if known else None

    def make() -> int:
        if given:
            raise GoneError(f"the account has no SSH key with the fingerprint {given}")
        return account.make_key(mine, public)

    yield Made("key", ensured(ctx, find, make), "" if given else "Creating SSH key...")


def _firewall(ctx: DriverContext, account: Account, state: State) -> Iterator[Made]:
    """Before the droplet, so that it is never without: it takes effect by the tag."""
    if "firewall" in state or ctx.flag("no-firewall"):
        return
    if "open_to" not in state:
        trusted = [plan.network(one) for one in plan.split(ctx.listed("open-to"))]
        trusted = trusted or [caller_cidr(ctx)]
        yield Made("open_to", trusted, f"SSH and the engine are open to {', '.join(trusted)}.")
    else:
        found = state["open_to"]
        trusted = [str(one) for one in found] if isinstance(found, list) else []
    name = plan.name_of(ctx.uuid)
    rules = plan.inbound(ctx.number("ssh-port"), trusted, plan.split(ctx.listed("open-port")))

    def find() -> str | None:
        return next((one.ident for one in account.firewalls() if one.name == name), None)

    def make() -> str:
        return account.make_firewall(name, plan.tag_of(ctx.uuid), rules)

    yield Made("firewall", ensured(ctx, find, make), "Creating firewall...")


def _volume(ctx: DriverContext, account: Account, state: State) -> Iterator[Made]:
    size = ctx.number("volume-size")
    if "volume" in state or not size:
        return
    name, region = plan.name_of(ctx.uuid), ctx.text("region")

    def find() -> str | None:
        return next((one.ident for one in account.volumes() if one.name == name), None)

    def make() -> str:
        return account.make_volume(name, region, size, plan.tag_of(ctx.uuid))

    yield Made("volume", ensured(ctx, find, make), f"Creating volume of {size} GiB...")


def _droplet(ctx: DriverContext, account: Account, state: State) -> Iterator[Made]:
    if "droplet" in state:
        return
    found = settled(ctx, lambda: _by_tag(ctx, account), unsettled(ctx, state))
    if found is None:
        order = _order(ctx, account, state)
        yield Made("intent", ctx.clock.now(), f"Creating droplet with {order.image}...")
        try:
            found = ensured(ctx, lambda: _by_tag(ctx, account), lambda: account.make_droplet(order))
        except (AuthError, InvalidError, QuotaError):
            yield Made("intent", 0.0)  # refused: nothing to wait for later
            raise
    yield Made("droplet", found)


def _address(ctx: DriverContext, account: Account, state: State) -> Iterator[Made]:
    if "address" in state:
        return
    ident = state["droplet"]
    if not isinstance(ident, int):
        raise DriverError("the machine's record has no number of a droplet")
    gone_by = ctx.clock.monotonic() + SETTLE_SECONDS

    def up() -> Droplet | NotYet:
        try:
            found = account.droplet(ident)
        except GoneError as err:
            if ctx.clock.monotonic() > gone_by:
                raise
            return NotYet(err.message)
        if found.status == "new" or not found.address:
            return NotYet(f"the droplet {ident} is {found.status}")
        return found

    found = wait_until(
        up,
        what=f"the start of droplet {ident}",
        seconds=_ACTIVE_SECONDS,
        clock=ctx.clock,
        backoff=_POLL,
    )
    yield Made("address", found.address)


def _order(ctx: DriverContext, account: Account, state: State) -> Order:
    made = state.get("volume")
    key = state["key"]
    return Order(
        name=ctx.name,
        region=ctx.text("region"),
        size=ctx.text("size"),
        image=_image(ctx, account),
        keys=(key,) if isinstance(key, int) else (),
        user_data=_as_text(seed_of(ctx, _own_user_data(ctx.text("userdata"))).user_data),
        tags=(plan.tag_of(ctx.uuid), *plan.split(ctx.listed("tags"))),
        volumes=(*([made] if isinstance(made, str) else []), *_volumes(ctx, account)),
        vpc=ctx.text("vpc-uuid"),
        backups=ctx.flag("backups"),
        ipv6=ctx.flag("ipv6"),
        monitoring=ctx.flag("monitoring"),
        private_networking=ctx.flag("private-networking"),
    )


def _image(ctx: DriverContext, account: Account) -> int | str:
    given = ctx.text("image")
    if given:
        return plan.image_key(given)
    region = ctx.text("region")
    found = plan.newest(account.distributions(), region, 0)
    if found is None:
        raise InvalidError(
            f"{region} offers no image of Debian or of an Ubuntu LTS",
            hint="Name one with --digitalocean-image.",
        )
    return found.slug


def _volumes(ctx: DriverContext, account: Account) -> Iterator[str]:
    """The ids of the volumes that the user gave by name or id."""
    wanted = plan.split(ctx.listed("volume"))
    if not wanted:
        return
    region = ctx.text("region")
    known = [one for one in account.volumes() if one.region == region]
    for given in wanted:
        found = next((one.ident for one in known if given in {one.ident, one.name}), "")
        if not found:
            raise InvalidError(f"there is no volume {given} in {region}")
        yield found


def _by_tag(ctx: DriverContext, account: Account) -> int | None:
    """The machine's droplet; the first one, should there ever be two."""
    return min((one.ident for one in account.droplets(plan.tag_of(ctx.uuid))), default=None)


# -- looking before making


def ensured(ctx: DriverContext, find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """What `find` finds, else what `make` makes: exactly one, whatever answers are lost."""

    def attempt() -> T:
        found = find()
        if found is not None:
            return found
        try:
            return make()
        except ThrottledError:
            raise
        except (ConflictError, TransientError):
            # The name is taken by what an earlier call made, or the answer of this one was lost.
            made = settled(ctx, find, SETTLE_SECONDS)
            if made is None:
                raise
            return made

    return retried(attempt, clock=ctx.clock, seconds=_ENSURE_SECONDS)


def settled(ctx: DriverContext, find: Callable[[], T | None], seconds: float) -> T | None:
    """What `find` finds within `seconds`, or None: lists are late."""
    by = ctx.clock.monotonic() + seconds

    def look() -> tuple[T | None] | NotYet:
        found = find()
        return (found,) if found is not None or ctx.clock.monotonic() >= by else NotYet()

    (found,) = wait_until(
        look, what="a list to settle", seconds=seconds + 60, clock=ctx.clock, backoff=_POLL
    )
    return found


def unsettled(ctx: DriverContext, state: State) -> float:
    """Seconds for which a droplet that was asked for may still be missing from lists."""
    asked = state.get("intent")
    if not isinstance(asked, int | float) or "droplet" in state:
        return 0.0
    # A clock that was set back must not make it wait for hours.
    return min(max(asked + SETTLE_SECONDS - ctx.clock.now(), 0.0), SETTLE_SECONDS)


# -- the user's files


def _public_key(ctx: DriverContext) -> str:
    given = ctx.text("ssh-key-path")
    if not given:
        return seed_of(ctx).public_key
    path = Path(f"{Path(given).expanduser()}.pub")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise InvalidError(f"the SSH public key {path} can't be read: {err}") from err


def _own_user_data(given: str) -> bytes:
    if not given:
        return b""
    try:
        return Path(given).expanduser().read_bytes()
    except OSError as err:
        raise InvalidError(f"the user data {given} can't be read: {err.strerror}") from err


def _as_text(user_data: bytes) -> str:
    """The API takes text only, so a seed that had to be compressed does not fit."""
    try:
        return user_data.decode()
    except UnicodeDecodeError:
        raise InvalidError(
            f"the user data is too large: DigitalOcean takes {USER_DATA_LIMIT // 1024} KiB of "
            f"text, which is {OWN_USER_DATA_LIMIT // 1024} KiB of your own",
            hint="Make the file of --digitalocean-userdata smaller: have it fetch the rest.",
        ) from None
