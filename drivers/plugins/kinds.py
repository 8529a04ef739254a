"""A plugin's error is a text and nothing else: the contract's kind is guessed from its words."""

from __future__ import annotations

import re
from typing import Final

from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    QuotaError,
    TransientError,
)

_TEXT: Final = 2000  # characters of a plugin's error that are shown

# The first row that matches decides: "rate limit exceeded" is no used-up quota.
_KINDS: Final[tuple[tuple[type[DriverError], tuple[str, ...]], ...]] = (
    (
        TransientError,
        (
            r"\b429\b|too many requests|rate.?limit|throttl|\b50[0234]\b",
            r"time(d)?.?out|deadline exceeded|connection (refused|reset)|temporarily|try again",
            r"no such host|network is unreachable|no route to host|\bEOF\b|TLS handshake",
        ),
    ),
    (
        AuthError,
        (
            r"\b401\b|\b403\b|unauthori[sz]ed|forbidden|unable to authenticate|access denied",
            r"authenticat\w+ (failed|failure|error)|(token|credentials?).{0,40}expired",
            r"invalid (api )?(token|key|credentials?|password)",
        ),
    ),
    (
        QuotaError,
        (
            r"quota|limit.?exceeded|exceed\w* .{0,40}limit|insufficient.{0,20}(capacity|funds)",
            r"payment required|\b402\b|out of stock",
        ),
    ),
    (
        GoneError,
        (
            r"\b404\b|not.?found|does(n't| not) exist|no such|could not (find|be found)",
            r"unknown (vm|machine|domain|instance|server)|not registered",
        ),
    ),
    (ConflictError, (r"\b409\b|already (exists|in use)|conflict",)),
)
# What is not there, and is not the host: taken for its absence, a removal would leave it behind.
_OTHER_THINGS: Final = re.compile(
    r"no such file|file does not exist|executable|command|\$PATH|credential|\bkeys?\b|\bconfig"
    r"|image|flavou?r|region|\bsize|network|project|plugin",
    re.IGNORECASE,
)
_COMPILED: Final = tuple(
    (kind, re.compile("|".join(words), re.IGNORECASE)) for kind, words in _KINDS
)


def as_driver_error(doing: str, text: str) -> DriverError:
    """The error of the method `doing`, with the plugin's own text."""
    shown = printable(text)
    for kind, words in _COMPILED:
        if words.search(text) and not (kind is GoneError and _OTHER_THINGS.search(text)):
            return kind(f"{doing}: {shown}")
    return DriverError(f"{doing}: {shown}")


def printable(text: str) -> str:
    """Foreign text without what would steer a terminal, and not endless."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in text[:_TEXT])
    return clean.strip() or "(no reason given)"
