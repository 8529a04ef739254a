"""What the API's errors mean, as the contract's kinds. Pure; its texts are the provider's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)

SIGN_IN: Final = (
    "Make a token at https://cloud.digitalocean.com/account/api/tokens and put it into the "
    "environment variable DIGITALOCEAN_ACCESS_TOKEN."
)
_LIMIT_HINT: Final = "Remove what is not needed, or ask DigitalOcean for a higher limit."
_MOST_PATIENCE: Final = 3600.0  # seconds: the window of the hourly limit

# The API says most things with 422; which kind it is stands in the message only.
_QUOTA: Final = re.compile(
    r"exceed your .*limit|limit exceeded|reached the .*limit|volume limit|insufficient capacity"
    r"|currently unavailable in (this|the) region",
    re.IGNORECASE,
)
_CONFLICT: Final = re.compile(
    r"pending event|already in use|already exists|duplicate name|attached volume"
    r"|attached to a droplet|is locked|currently o(n|ff)|already (powered )?o(n|ff)|must be (powered )?off|already attached",
    re.IGNORECASE,
)
_BY_STATUS: Final = {
    400: InvalidError,
    401: AuthError,
    402: QuotaError,
    403: AuthError,
    404: GoneError,
    409: ConflictError,
    412: ConflictError,
    413: InvalidError,
    422: InvalidError,
    423: ConflictError,
}
_BY_TEXT: Final = ((_QUOTA, QuotaError), (_CONFLICT, ConflictError))
_HINTS: Final = {AuthError: SIGN_IN, QuotaError: _LIMIT_HINT}


class ThrottledError(TransientError):
    """429: nothing was done, for certain."""


def refusal(status: int, document: object, headers: Mapping[str, str], now: float) -> DriverError:
    """The error for an answer that is no success. `now` is in seconds since the epoch."""
    text = f"DigitalOcean: {_message(status, document)}"
    if status == 429:
        wait = patience(headers, now)
        return ThrottledError(text, hint=f"Try again in {wait:.0f} s.", retry_after=wait)
    if status >= 500 or status == 408:
        return TransientError(text, retry_after=patience(headers, now))
    kind = _BY_STATUS.get(status, DriverError)
    if kind in {InvalidError, ConflictError}:
        kind = next((one for pattern, one in _BY_TEXT if pattern.search(text)), kind)
    return kind(text, hint=_HINTS.get(kind, ""))


def patience(headers: Mapping[str, str], now: float) -> float:
    """Seconds that the provider asks us to wait: Retry-After, else until the window's reset."""
    after = _number(headers.get("retry-after", ""))
    if after:
        return min(after, _MOST_PATIENCE)
    if _number(headers.get("ratelimit-remaining", "1")) > 0:
        return 0.0
    reset = _number(headers.get("ratelimit-reset", ""))
    return min(max(reset - now, 0.0), _MOST_PATIENCE)


def _message(status: int, document: object) -> str:
    if isinstance(document, Mapping):
        message, ident = document.get("message"), document.get("id")
        if message:
            return f"{message} ({status} {ident})" if ident else f"{message} ({status})"
    return f"answered with status {status}"


def _number(text: str) -> float:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return 0.0
