"""Is a TCP port open? Without paramiko, so that `status` and `ls` start fast."""

from __future__ import annotations

import contextlib
import socket


def dial(host: str, port: int, timeout: float) -> str:
    """The reason why no TCP connection opened within `timeout` seconds; "" when one did."""
    try:
        with contextlib.closing(socket.create_connection((host, port), timeout)):
            return ""
    except TimeoutError:
        return f"no answer within {timeout:.0f} s"
    except OSError as err:
        return err.strerror or str(err)
