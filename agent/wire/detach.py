"""Detach keys: the key sequence that ends an attach or exec without ending the process.

Syntax and behaviour are moby/term's (`term.ToBytes`, `term.NewEscapeProxy`).
"""

from __future__ import annotations

from typing import Final

from agent.errors import EngineError, Kind

DEFAULT_DETACH_KEYS: Final = b"\x10\x11"  # ctrl-p,ctrl-q

_CONTROL_NAMES: Final = {
    f"ctrl-{name}": bytes([code]) for code, name in enumerate("@abcdefghijklmnopqrstuvwxyz[\\]^_")
}


class DetachKeysError(EngineError):
    """The specification of the detach keys is not understood."""

    def __init__(self, spec: str) -> None:
        super().__init__(Kind.INVALID, f"Invalid detach keys ({spec}) provided")


def parse_detach_keys(spec: str) -> bytes:
    """The bytes to look for; an empty `spec` is the default, ctrl-p ctrl-q.

    `spec`: keys joined by commas, each a single ASCII character, `ctrl-` and one of
    `@ a-z [ \\ ] ^ _`, or `DEL`. Raises DetachKeysError (an EngineError, INVALID).
    """
    if not spec:
        return DEFAULT_DETACH_KEYS
    codes = b""
    for key in spec.split(","):
        if key in _CONTROL_NAMES:
            codes += _CONTROL_NAMES[key]
        elif key == "DEL":
            codes += b"\x7f"
        elif len(key) == 1 and key.isascii():
            codes += key.encode()
        else:
            raise DetachKeysError(spec)
    return codes


class DetachFilter:
    """Input in, input without the detach keys out.

    Bytes that may begin the sequence are held back until the next byte decides (a single ctrl-p is
    seen by the process only with the key after it; Docker does the same).
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes for the process, True when the sequence is complete: what follows is dropped)."""
        if not self._keys:
            return data, False
        window = self._held + data
        at = window.find(self._keys)
        if at >= 0:
            self._held = b""
            return window[:at], True
        keep = self._overlap(window)
        self._held = window[len(window) - keep :]
        return window[: len(window) - keep], False

    def _overlap(self, window: bytes) -> int:
        """Length of the longest end of `window` that is a beginning of the keys."""
        longest = min(len(self._keys) - 1, len(window))
        return next((n for n in range(longest, 0, -1) if window.endswith(self._keys[:n])), 0)

    def finish(self) -> bytes:
        """The end of input: what was held back belongs to the process."""
        held, self._held = self._held, b""
        return held
