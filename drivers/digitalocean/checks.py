"""Everything that is known to make a create fail, all at once, before anything is made."""

from __future__ import annotations

import functools
import ipaddress
import re
import stat
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from drivers.api import DriverContext
from drivers.caller import caller_cidr
from drivers.digitalocean import plan
from drivers.digitalocean.account import Account
from drivers.digitalocean.creation import OWN_USER_DATA_LIMIT
from drivers.digitalocean.refusals import SIGN_IN
from drivers.digitalocean.things import Image, Plan, Region
from drivers.errors import AuthError, CannotError, DriverError, GoneError

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_TAG: Final = re.compile(r"[A-Za-z0-9_:-]{1,255}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){15}")
_VOLUME_SIZES: Final = range(1, 16385)  # GiB
_SHOWN: Final = 15  # of what there is to choose from

Problems = Iterator[str]


def problems(ctx: DriverContext) -> list[str]:
    """drivers.api.Driver.check."""
    found = [
        *_names(ctx),
        *_files(ctx),
        *_networks(ctx),
        *_endpoint(ctx),
    ]
    if not ctx.text("access-token"):
        found.append(f"--digitalocean-access-token is missing. {SIGN_IN}")
    elif not any(_endpoint(ctx)):
        found += _asked(ctx)
    return found


# -- without asking anybody


def _names(ctx: DriverContext) -> Problems:
    user, size = ctx.text("ssh-user"), ctx.number("volume-size")
    if not _NAME.fullmatch(ctx.name):
        yield f"{ctx.name!r} can't be a droplet's name: letters, digits, dots and dashes"
    if not _USER.fullmatch(user):
        yield f"{user!r} is no user name"
    for tag in plan.split(ctx.listed("tags")):
        if not _TAG.fullmatch(tag) or plan.owner(tags=[tag]):
            yield f'"{tag}" can\'t be a tag: letters, digits, colons, dashes and underscores'
    fingerprint = ctx.text("ssh-key-fingerprint")
    if fingerprint and not _FINGERPRINT.fullmatch(fingerprint):
        yield f'"{fingerprint}" is no fingerprint: sixteen pairs of hex digits with colons between'
    if size and size not in _VOLUME_SIZES:
        yield f"a volume has 1 to {_VOLUME_SIZES[-1]} GiB, not {size}"


def _files(ctx: DriverContext) -> Problems:
    data, key = ctx.text("userdata"), ctx.text("ssh-key-path")
    if data:
        yield from _user_data_problem(Path(data).expanduser())
    if key:
        yield from _key_problem(Path(key).expanduser())
        public = Path(f"{Path(key).expanduser()}.pub")
        if not ctx.text("ssh-key-fingerprint") and not public.is_file():
            yield f"the SSH public key {public} is not there, and no fingerprint is given"


def _user_data_problem(path: Path) -> Problems:
    try:
        data = path.read_bytes()
        data.decode()
    except OSError as err:
        yield f"the user data {path} can't be read: {err.strerror}"
    except UnicodeDecodeError:
        yield f"the user data {path} is no text in UTF-8"
    else:
        if len(data) > OWN_USER_DATA_LIMIT:
            yield f"the user data {path} is larger than {OWN_USER_DATA_LIMIT // 1024} KiB"


def _key_problem(path: Path) -> Problems:
    try:
        found = path.stat()
    except OSError as err:
        yield f"the SSH key {path} can't be read: {err.strerror}"
        return
    if not stat.S_ISREG(found.st_mode):
        yield f"the SSH key {path} is not a file"
    elif found.st_mode & 0o077:
        yield f"the SSH key {path} is readable by others: chmod 600 it"


def _networks(ctx: DriverContext) -> Problems:
    for given in plan.split(ctx.listed("open-to")):
        yield from _said(functools.partial(plan.network, given))
    for port in plan.split(ctx.listed("open-port")):
        if port != "none":
            yield from _said(functools.partial(plan.opened, port))


def _endpoint(ctx: DriverContext) -> Problems:
    """The token goes there: encrypted, or not off this computer."""
    given = ctx.text("endpoint")
    parts = urllib.parse.urlsplit(given)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not _loopback(parts.hostname or ""):
        yield f"--digitalocean-endpoint {given} is no https address"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- by asking DigitalOcean


def _asked(ctx: DriverContext) -> list[str]:
    try:
        account = Account(ctx)
        found = [*_account(ctx, account)]
    except (AuthError, CannotError) as err:
        return [f"{err.message}. {err.hint}"]
    except DriverError as err:
        return [err.message]
    for look in (_place, _belongings, _caller):
        try:
            found += look(ctx, account)
        except DriverError as err:
            found.append(f"{err.message}. {err.hint}" if err.hint else err.message)
    return found


def _account(ctx: DriverContext, account: Account) -> Problems:
    limits = account.limits()
    if limits.status == "locked":
        yield f"the account is locked: {limits.message or 'DigitalOcean says no more'}"
    if "droplet" in ctx.state or not limits.droplets:
        return
    count = account.droplet_count()
    if count >= limits.droplets and not account.droplets(plan.tag_of(ctx.uuid)):
        yield (
            f"the account has {count} droplets and may have {limits.droplets}: remove one, or ask "
            "for more at https://cloud.digitalocean.com/account/team/droplet_limit_increase"
        )


def _place(ctx: DriverContext, account: Account) -> Problems:
    """Region, size and image, which depend on each other."""
    regions = account.regions()
    here = next((one for one in regions if one.slug == ctx.text("region")), None)
    if here is None or not here.available:
        names = _some(one.slug for one in regions if one.available)
        why = "is not to be had now" if here else "does not exist"
        yield f"the region {ctx.text('region')} {why}; there are {names}"
        here = None
    else:
        for feature in ("backups", "ipv6"):
            if ctx.flag(feature) and feature not in here.features:
                yield f"the region {here.slug} has no {feature}"
    plans = account.plans()
    chosen = next((one for one in plans if one.slug == ctx.text("size")), None)
    yield from _size(ctx, here, plans, chosen)
    yield from _image(ctx, account, here, chosen)


def _size(
    ctx: DriverContext, here: Region | None, plans: list[Plan], chosen: Plan | None
) -> Problems:
    wanted = ctx.text("size")
    region = here.slug if here else ""
    names = _some(
        one.slug for one in plans if one.available and (not region or region in one.regions)
    )
    if chosen is None:
        yield f"the size {wanted} does not exist; there are {names}"
    elif not chosen.available or (region and region not in chosen.regions):
        yield f"the size {wanted} is not to be had in {region or 'any region'}; there are {names}"


def _image(
    ctx: DriverContext, account: Account, here: Region | None, chosen: Plan | None
) -> Problems:
    given = ctx.text("image")
    offered = account.distributions()
    if not given:
        disk = chosen.disk if chosen else 0
        if here and plan.newest(offered, here.slug, disk) is None:
            yield f"the region {here.slug} offers no image of Debian or Ubuntu LTS that fits"
        return
    try:
        image = account.image(plan.image_key(given))
    except GoneError:
        yield f"the image {given} does not exist; there are {_some(one.slug for one in offered)}"
        return
    yield from _image_fits(given, image, here, chosen)


def _image_fits(given: str, image: Image, here: Region | None, chosen: Plan | None) -> Problems:
    if here and here.slug not in image.regions:
        yield f"the image {given} is not in {here.slug}, but in {_some(image.regions)}"
    if chosen and image.smallest_disk > chosen.disk:
        yield (
            f"the image {given} needs a disk of {image.smallest_disk} GiB, {chosen.slug} has "
            f"{chosen.disk}"
        )


def _belongings(ctx: DriverContext, account: Account) -> Problems:
    """What the user says that the account has already."""
    region, vpc, key = ctx.text("region"), ctx.text("vpc-uuid"), ctx.text("ssh-key-fingerprint")
    if vpc:
        try:
            where = account.vpc_region(vpc)
        except GoneError:
            yield f"the VPC {vpc} does not exist"
        else:
            if where != region:
                yield f"the VPC {vpc} is in {where}, not in {region}"
    if key and key not in {one.fingerprint for one in account.ssh_keys()}:
        yield f"the account has no SSH key with the fingerprint {key}"
    yield from _volumes(ctx, account, region)


def _volumes(ctx: DriverContext, account: Account, region: str) -> Problems:
    wanted = plan.split(ctx.listed("volume"))
    known = account.volumes() if wanted else []
    for given in wanted:
        found = [one for one in known if given in {one.ident, one.name} and one.region == region]
        if not found:
            yield f"there is no volume {given} in {region}"
        elif found[0].droplets and ctx.state.get("droplet") not in found[0].droplets:
            yield f"the volume {given} is attached to the droplet {found[0].droplets[0]}"


def _caller(ctx: DriverContext, account: Account) -> Problems:
    """Whom to open the firewall to must be known before anything is made."""
    del account
    needed = not ctx.flag("no-firewall") and "open_to" not in ctx.state
    if needed and not plan.split(ctx.listed("open-to")):
        try:
            caller_cidr(ctx)
        except DriverError as err:
            yield f"{err.message}. Say who may connect: --digitalocean-open-to ADDRESS/32"


def _said(attempt: Callable[[], object]) -> Problems:
    try:
        attempt()
    except DriverError as err:
        yield err.message


def _some(names: Iterator[str] | tuple[str, ...]) -> str:
    known = sorted({name for name in names if name})
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more if known else "none"
