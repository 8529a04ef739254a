"""OpenSSH's view of machines: one Host block each, so that `ssh` and `scp` check the pinned key.  Pure.

A block a machine keeps two machines' ports, users and keys apart in one `scp` (docker-machine
flattened them into one list of options).  ssh_config(5).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from machine.errors import MachineError
from machine.model import MachineRecord

_FIXED = (
    ("BatchMode", "no"),
    ("ConnectTimeout", "10"),
    ("ConnectionAttempts", "3"),
    ("ControlMaster", "no"),
    ("ControlPath", "none"),
    ("ForwardAgent", "no"),
    ("GlobalKnownHostsFile", "/dev/null"),
    ("LogLevel", "ERROR"),
    ("PasswordAuthentication", "no"),
    ("ProxyCommand", "none"),
    ("ServerAliveInterval", "60"),
    ("StrictHostKeyChecking", "yes"),
    ("UpdateHostKeys", "no"),
)


def config(machines: Iterable[tuple[MachineRecord, Path]]) -> str:
    """ssh_config text for (record, folder of the machine) pairs.  Raises MachineError for a machine
    that has no SSH, and for a path that ssh_config can't hold."""
    return "\n".join(_block(record, folder) for record, folder in machines)


def _block(record: MachineRecord, folder: Path) -> str:
    ssh = record.ssh
    if ssh is None:
        raise MachineError(f'Machine "{record.name}" is not reached by SSH')
    rows = [
        ("HostName", ssh.host),
        ("Port", str(ssh.port)),
        ("User", ssh.user),
        ("HostKeyAlias", record.name),
        ("UserKnownHostsFile", str(folder / "known_hosts")),
        *_FIXED,
    ]
    if ssh.key_path:
        rows += [("IdentityFile", ssh.key_path), ("IdentitiesOnly", "yes")]
    lines = [f"  {name} {_quoted(value)}" for name, value in rows]
    return "\n".join([f"Host {record.name}", *lines, ""])


def _quoted(value: str) -> str:
    if any(c in value for c in '"\n\r'):
        raise MachineError(f"{value!r} cannot be written to an SSH configuration")
    text = value.replace("%", "%%")
    # Only where it is needed: a quoted "none" is no longer the keyword.
    return f'"{text}"' if " " in text or "\t" in text or not text else text
