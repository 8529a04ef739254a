"""Everything that is known to make a create fail, before anything is made."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from drivers.api import DriverContext
from drivers.aws import finding, images, plan
from drivers.aws.documents import Image, text
from drivers.aws.provider import Cloud, endpoint_problem, missing_library
from drivers.caller import caller_cidr
from drivers.errors import AuthError, DriverError, TransientError

T = TypeVar("T")
USER_DATA_LIMIT: Final = 16 * 1024  # bytes, Amazon's, before base64
_CHOICES: Final = {
    "http-endpoint": ("enabled", "disabled"),
    "http-tokens": ("required", "optional"),
    "http-protocol-ipv6": ("enabled", "disabled"),
    "spot-interruption": ("terminate", "stop", "hibernate"),
    "volume-type": ("gp3", "gp2", "standard", "st1", "sc1", "io1", "io2"),
}
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_PRICE: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,5})?")


def offline(ctx: DriverContext) -> list[str]:
    """What the options say by themselves (asks nobody, reads the user's files)."""
    found = [
        f"--amazonec2-{name} {ctx.text(name)}: it takes {', '.join(words)}"
        for name, words in _CHOICES.items()
        if ctx.text(name) not in words
    ]
    tests = (
        _dead_problem, _credential_problem, endpoint_problem, _size_problem, _spot_problem,
        _network_problem, _key_problem, _userdata_problem, _user_problem,
    )  # fmt: skip
    found += [test(ctx) for test in tests]
    parsers: tuple[Callable[[], object], ...] = (
        lambda: plan.user_tags(ctx.text("tags")),
        lambda: plan.networks(ctx.listed("open-to")),
        lambda: plan.public_ports(ctx),
        lambda: images.search(ctx.text("image"), "x86_64", "", 2024),
    )
    return [one for one in [*found, *(_said(parser) for parser in parsers)] if one]


def online(cloud: Cloud, ctx: DriverContext) -> list[str]:
    """What Amazon says; refused credentials, or no answer at all, are told once."""
    problems: list[str] = []
    try:
        kind = _try(problems, lambda: _image_problems(cloud, ctx, problems)) or ""
        place = _try(problems, lambda: finding.place_of(cloud, ctx, kind or "t3.micro"))
        if place is not None:
            _try(problems, lambda: _group_problems(cloud, ctx, place.vpc, problems))
        if needs_caller(ctx):
            _try(problems, lambda: caller_cidr(ctx))
        if ctx.text("keypair-name"):
            _try(
                problems, lambda: cloud.ask("DescribeKeyPairs", KeyNames=[ctx.text("keypair-name")])
            )
    except (AuthError, TransientError) as err:
        problems.append(_words(err))
    return problems


def private(ctx: DriverContext) -> bool:
    """Whether the machine is reached by its private address."""
    return ctx.flag("private-address-only") or ctx.flag("use-private-address")


def needs_caller(ctx: DriverContext) -> bool:
    """Whether it depends on this computer's public address who may connect."""
    return not (ctx.listed("open-to") or ctx.listed("security-group") or private(ctx))


def login(ctx: DriverContext) -> str:
    """The SSH user."""
    return ctx.text("ssh-user") or (
        "ubuntu" if ctx.text("ami") else images.default_user(ctx.text("image"))
    )


def own_user_data(ctx: DriverContext) -> bytes:
    """The user's file; b"" without one. Raises DriverError."""
    given = ctx.text("userdata")
    if not given:
        return b""
    try:
        with Path(given).expanduser().open("rb") as file:
            data = file.read(USER_DATA_LIMIT + 1)
    except OSError as err:
        raise DriverError(f"--amazonec2-userdata {given}: {err.strerror}") from err
    if len(data) > USER_DATA_LIMIT:
        raise DriverError(f"--amazonec2-userdata {given} is over Amazon's {USER_DATA_LIMIT} bytes")
    return data


def own_public_key(ctx: DriverContext) -> str:
    """The public half of --amazonec2-ssh-keypath; "" without one. Raises DriverError."""
    given = ctx.text("ssh-keypath")
    if not given:
        return ""
    path = Path(f"{Path(given).expanduser()}.pub")
    try:
        with path.open() as file:
            line = file.read(8192).strip()
    except (OSError, UnicodeDecodeError) as err:
        raise DriverError(f"--amazonec2-ssh-keypath: {path} can't be read: {err}") from err
    if not line.startswith(("ssh-rsa ", "ssh-ed25519 ")) or "\n" in line:
        raise DriverError(f"{path} is no RSA or Ed25519 public key: Amazon takes no others")
    return line


def _try(problems: list[str], action: Callable[[], T]) -> T | None:
    """What `action` answers; None, and its error among the problems.

    What all calls would say goes through.
    """
    try:
        return action()
    except (AuthError, TransientError):
        raise
    except DriverError as err:
        problems.append(_words(err))
        return None


def _said(action: Callable[[], object]) -> str:
    try:
        action()
    except DriverError as err:
        return _words(err)
    return ""


def _words(err: DriverError) -> str:
    return f"{err.message} ({err.hint})" if err.hint else err.message


def _dead_problem(ctx: DriverContext) -> str:
    if ctx.number("block-duration-minutes"):
        return (
            "--amazonec2-block-duration-minutes: Amazon withdrew spot blocks; leave it out, and "
            "see --amazonec2-spot-interruption"
        )
    return ""


def _credential_problem(ctx: DriverContext) -> str:
    if bool(ctx.text("access-key")) != bool(ctx.text("secret-key")):
        return "--amazonec2-access-key and --amazonec2-secret-key are of use together only"
    return ""


def _size_problem(ctx: DriverContext) -> str:
    if not 1 <= ctx.number("root-size") <= 65536:
        return f"--amazonec2-root-size {ctx.number('root-size')}: it takes 1 to 65536 GB"
    return ""


def _spot_problem(ctx: DriverContext) -> str:
    price = ctx.text("spot-price")
    if price and not _PRICE.fullmatch(price):
        return f"--amazonec2-spot-price {price}: it takes dollars an hour, as 0.02"
    if not ctx.flag("request-spot-instance") and ctx.text("spot-interruption") != "terminate":
        return "--amazonec2-spot-interruption is for --amazonec2-request-spot-instance"
    return ""


def _network_problem(ctx: DriverContext) -> str:
    six = ctx.number("ipv6-address-count")
    if ctx.flag("ipv6-address-only") or ctx.flag("enable-primary-ipv6"):
        if six < 1:
            return "an IPv6 address needs --amazonec2-ipv6-address-count 1 or more"
        if ctx.flag("ipv6-address-only") and not (
            ctx.listed("open-to") or ctx.listed("security-group")
        ):
            return "--amazonec2-ipv6-address-only: say with --amazonec2-open-to who may connect"
    if six < 0:
        return f"--amazonec2-ipv6-address-count {six}: it takes a count"
    if ctx.listed("security-group") and (ctx.listed("open-port") or ctx.listed("open-to")):
        return (
            "the rules of given security groups are never changed: open the ports there yourself, "
            "or leave --amazonec2-security-group out"
        )
    return ""


def _key_problem(ctx: DriverContext) -> str:
    return _said(lambda: own_public_key(ctx))


def _userdata_problem(ctx: DriverContext) -> str:
    return _said(lambda: own_user_data(ctx))


def _user_problem(ctx: DriverContext) -> str:
    if not _USER.fullmatch(login(ctx)):
        return f"--amazonec2-ssh-user {login(ctx)} is no user name"
    return ""


def _image_problems(cloud: Cloud, ctx: DriverContext, problems: list[str]) -> str:
    found: Image
    found, kind = finding.image_and_type(cloud, ctx)
    if found.root_size > ctx.number("root-size"):
        problems.append(
            f"--amazonec2-root-size {ctx.number('root-size')}: image {found.id} has "
            f"{found.root_size} GB"
        )
    return kind


def _group_problems(cloud: Cloud, ctx: DriverContext, vpc: str, problems: list[str]) -> None:
    found = finding.groups(cloud, ctx.listed("security-group"), vpc)
    for port in (ctx.number("ssh-port"), plan.ENGINE_PORT):
        if found and not plan.lets_in(found, port):
            names = ", ".join(text(one, "GroupName") for one in found)
            problems.append(
                f"no rule of {names} opens port {port} (given groups are never changed)"
            )


__all__ = ["USER_DATA_LIMIT", "login", "missing_library", "offline", "online"]
