"""The one error that a user of `machine` sees: three parts and an exit code.

Everything below the command line raises `MachineError` (or a driver's `DriverError`, which
`machine.service` turns into one); `machine.__main__` prints it and exits. Texts hold no secret.
"""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2  # a name or value that can never be right (security.md case 148)
EXIT_PRECHECK: Final = 3  # docker-machine: the pre-create check failed
EXIT_NOT_FOUND: Final = 4  # rancher/machine: `status` of a machine that does not exist
EXIT_DOCKER_USAGE: Final = 125  # docker: wrong flags, or the engine refused
EXIT_INTERRUPTED: Final = 130

_BIDI: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class MachineError(Exception):
    """What failed (`brief`), why (`details`), what to do next (`hint`), and the exit code.

    `brief` is one line without a trailing period; `details` may be several lines.
    """

    def __init__(
        self, brief: str, *, details: str = "", hint: str = "", exit_code: int = EXIT_ERROR
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        parts = [self.brief, self.details, self.hint]
        return "\n".join(part for part in parts if part)


class NotFoundError(MachineError):
    """No machine of that name is in the store."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'Docker machine "{name}" does not exist. Use "docker-machine ls" to list machines. '
            'Use "docker-machine create" to add a new one.',
            exit_code=EXIT_ERROR,
        )
        self.name = name


class CorruptRecordError(MachineError):
    """A record that can't be read; other machines are not affected (security.md case 164)."""


class HostKeyError(MachineError):
    """A host showed another key than the pinned one; never connected to (security.md C12)."""


class UnreachableError(MachineError):
    """The host could not be reached (yet): the only kind that a booting host is retried for."""


def printable(text: str, limit: int = 4000) -> str:
    """Text of foreign origin with control and bidi characters escaped (security.md C43)."""
    shown = text[:limit]
    out = "".join(
        c
        if c in "\n\t" or (c.isprintable() and c not in _BIDI)
        else c.encode("unicode_escape").decode()
        for c in shown
    )
    return out + ("..." if len(text) > limit else "")
