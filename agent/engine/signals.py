"""Signal names as users write them: "SIGTERM", "term", "15", "RTMIN+3"."""

from __future__ import annotations

import re
import signal
from typing import Final

from agent.errors import invalid

DEFAULT_STOP: Final = "SIGTERM"
# Signals that by custom tell a program something, and don't mean "be gone": sending one does not
# count as a manual stop.  (Docker Engine counts every signal when no StopSignal is set, so that
# `kill -s HUP` switches the restart policy off: moby#25135.)
NOTICES: Final = frozenset(
    {
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGCONT,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCHLD,
        signal.SIGURG,
        signal.SIGPIPE,
        signal.SIGALRM,
        signal.SIGIO,
        signal.SIGPWR,
        signal.SIGVTALRM,
        signal.SIGPROF,
    }
)
_REALTIME: Final = re.compile(r"RTM(IN|AX)(?:([+-])([0-9]{1,2}))?")
_NUMBER: Final = re.compile(r"[0-9]{1,3}")
_ALIASES: Final = {"CLD": signal.SIGCHLD, "POLL": signal.SIGIO, "IOT": signal.SIGABRT}


def number(word: str) -> int:
    """1..64.  Raises INVALID "invalid signal: x"."""
    named = _NUMBER.fullmatch(word) is None
    found = _by_name(word.upper().removeprefix("SIG")) if named else int(word)
    if not 1 <= found <= signal.SIGRTMAX:
        raise invalid(f"invalid signal: {word}")
    return found


def _by_name(name: str) -> int:
    if name in _ALIASES:
        return int(_ALIASES[name])
    matched = _REALTIME.fullmatch(name)
    if matched is None:
        member = signal.Signals.__members__.get(f"SIG{name}")
        return 0 if member is None else int(member)
    bound, sign, offset = matched.groups()
    base = int(signal.SIGRTMIN if bound == "IN" else signal.SIGRTMAX)
    shifted = base + int(f"{sign or '+'}{offset or 0}")
    return shifted if signal.SIGRTMIN <= shifted <= signal.SIGRTMAX else 0


def stop_signal(word: str) -> int:
    """A container's stop signal; "" = SIGTERM."""
    return number(word or DEFAULT_STOP)
