"""Host keys, pinned per machine (security.md C12): shown once, then the same or nothing.

The file is OpenSSH's known_hosts with the machine's name as the host (HostKeyAlias), so a machine
that comes back with another address is still known, and the system's ssh can use the same file.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from machine.errors import HostKeyError
from machine.store.files import ensure_dir, read_limited, write_atomic

FILE: Final = "known_hosts"
_LIMIT: Final = 65536


@dataclasses.dataclass(frozen=True, slots=True)
class HostKey:
    """A public host key: its type ("ssh-ed25519") and its wire form."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """SHA256:..., as ssh-keygen -l shows it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"

    def line(self, alias: str) -> str:
        return f"{alias} {self.kind} {base64.b64encode(self.blob).decode()}"


def parse_key(text: str) -> HostKey:
    """ "TYPE BASE64 [comment]" as in a .pub file. Raises HostKeyError."""
    parts = text.split()
    if len(parts) < 2:
        raise HostKeyError("A host key can't be read", details="not TYPE BASE64")
    try:
        return HostKey(parts[0], base64.b64decode(parts[1], validate=True))
    except binascii.Error as err:
        raise HostKeyError("A host key can't be read", details=str(err)) from err


class KnownHost:
    """The pinned keys of one machine."""

    def __init__(self, folder: Path, alias: str) -> None:
        self.path = folder / FILE
        self.alias = alias

    def pinned(self) -> list[HostKey]:
        """The pinned keys, [] before the first contact. Raises HostKeyError for a broken file."""
        try:
            text = read_limited(self.path, _LIMIT).decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        found = []
        for line in text.splitlines():
            words = line.split(maxsplit=1)
            if len(words) == 2 and not line.startswith("#"):
                found.append(parse_key(words[1]))
        if not found:
            # An emptied file must not turn "changed key" into "first contact".
            raise HostKeyError(
                f"The pinned host keys in {self.path} are gone",
                hint="Restore the file, or remove it to trust the host's key anew.",
            )
        return found

    def pin(self, keys: Iterable[HostKey]) -> None:
        """Replace the pinned keys."""
        ensure_dir(self.path.parent)
        text = "".join(key.line(self.alias) + "\n" for key in keys)
        write_atomic(self.path, text.encode())

    def verify(self, offered: HostKey) -> bool:
        """True when this key is pinned; False at the first contact (nothing is pinned yet).

        Raises HostKeyError when other keys are pinned: the connection must not be used.
        """
        pinned = self.pinned()
        if not pinned:
            return False
        if offered in pinned:
            return True
        known = "\n".join(f"  pinned:  {k.kind} {k.fingerprint}" for k in pinned)
        raise HostKeyError(
            f'The host key of "{self.alias}" has changed: refusing to connect',
            details=f"{known}\n  offered: {offered.kind} {offered.fingerprint}",
            hint="Someone may be in between. If the host was really made anew, compare the offered "
            f"fingerprint with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub), then "
            f"remove {self.path} and try again.",
        )
