"""The caller's public address, for firewall rules that let in nobody else (C41)."""

from __future__ import annotations

import ipaddress
from typing import Final

from drivers.api import DriverContext
from drivers.errors import DriverError
from drivers.polling import NotYet, wait_until

ASKED: Final = "https://checkip.amazonaws.com"
_SECONDS: Final = 30.0  # for all attempts together
_ATTEMPT_SECONDS: Final = 10.0
_HINT: Final = (
    "Say yourself who may connect, with the driver's option for it: your public address as "
    "ADDRESS/32, or 0.0.0.0/0 for everybody."
)


def caller_cidr(ctx: DriverContext) -> str:
    """This computer as the internet sees it: "203.0.113.7/32" or "2001:db8::7/128".

    Raises DriverError, with a hint, when it can't be found out within 30 s.
    """

    def attempt() -> str | NotYet:
        try:
            status, body = ctx.http.request("GET", ASKED, timeout=_ATTEMPT_SECONDS)
        except DriverError as err:
            return NotYet(err.message)
        if status != 200:
            return NotYet(f"{ASKED} answered {status}")
        try:
            return str(ipaddress.ip_address(body[:64].decode("ascii").strip()))
        except ValueError:
            return NotYet(f"{ASKED} answered something that is no address")

    try:
        said = wait_until(
            attempt, what="an answer with your address", seconds=_SECONDS, clock=ctx.clock
        )
    except DriverError as err:
        raise DriverError(
            f"Your public address, to which the host would be opened, is not known: {err.message}",
            hint=_HINT,
        ) from err
    found = ipaddress.ip_address(said)
    if not found.is_global:
        raise DriverError(f"{ASKED} answered {found}, which is no public address", hint=_HINT)
    return f"{found}/{found.max_prefixlen}"
