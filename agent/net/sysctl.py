"""Network switches below /proc/sys/net, of the calling thread's network namespace."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


def get(name: str) -> str | None:
    """The value of "ipv4/ip_forward"; None where the kernel has no such switch."""
    try:
        with open(f"/proc/sys/net/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def put(name: str, value: str) -> bool:
    """Set a switch unless it is set so already.  False, with a line in the log, where it can't be
    (no IPv6 in the kernel is no trouble; a read-only /proc/sys is)."""
    before = get(name)
    if before == value:
        return True
    if before is None:
        return False
    try:
        with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        _log.warning("cannot set net/%s to %s: %s", name, value, error)
        return False
    return True
