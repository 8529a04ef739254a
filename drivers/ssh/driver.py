"""Adopt a host: nothing is made, so nothing is unmade; there is no power control (reference 2.2)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from drivers.api import Address, DriverContext, HostState, Made, SshLogin, Via
from drivers.errors import DriverError
from drivers.options import Kind, OptionSpec
from drivers.polling import NotYet, wait_until

DIAL_TIMEOUT: Final = 15.0  # seconds, as docker-machine's generic driver
REBOOT_TIMEOUT: Final = 60.0  # seconds until the old boot is seen to have gone

OPTIONS: Final = (
    OptionSpec(
        "ip-address",
        ("--ssh-ip-address", "--ssh-host", "--generic-ip-address"),
        "IP address or name of the host",
        env=("MACHINE_SSH_IP_ADDRESS", "GENERIC_IP_ADDRESS"),
        required=True,
    ),
    OptionSpec(
        "ssh-user",
        ("--ssh-user", "--generic-ssh-user"),
        "SSH user: root, or one with passwordless sudo",
        default="root",
        env=("MACHINE_SSH_USER", "GENERIC_SSH_USER"),
    ),
    OptionSpec(
        "ssh-key",
        ("--ssh-key", "--generic-ssh-key"),
        "SSH private key; without one the SSH agent and the default keys are tried",
        kind=Kind.PATH,
        env=("MACHINE_SSH_KEY", "GENERIC_SSH_KEY"),
    ),
    OptionSpec(
        "ssh-port",
        ("--ssh-port", "--generic-ssh-port"),
        "SSH port",
        kind=Kind.PORT,
        default=22,
        env=("MACHINE_SSH_PORT", "GENERIC_SSH_PORT"),
    ),
    OptionSpec(
        "engine-port",
        ("--ssh-engine-port", "--generic-engine-port"),
        "Port of the engine",
        kind=Kind.PORT,
        default=2376,
        env=("MACHINE_SSH_ENGINE_PORT", "GENERIC_ENGINE_PORT"),
    ),
)

# What goes to ssh's and scp's command lines as well: no leading dash, nothing a shell reads.
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:%-]{0,251}[A-Za-z0-9_])?")
_IPV6_ANY: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


class SshDriver:
    """Reaches a host that someone else made."""

    name = "ssh"
    summary = "adopts a Linux host that answers SSH (docker-machine's generic)"
    options = OPTIONS
    adopts = True

    def check(self, ctx: DriverContext) -> list[str]:
        host, user = ctx.text("ip-address"), ctx.text("ssh-user")
        problems = []
        if not (_HOST.fullmatch(host) or _IPV6_ANY.fullmatch(host)):
            problems.append(f"{host!r} is no host name or IP address")
        if not _USER.fullmatch(user):
            problems.append(f"{user!r} is no user name")
        problems += _key_problems(ctx.text("ssh-key"))
        if not problems:
            why = ctx.host.dial(host, ctx.number("ssh-port"), timeout=DIAL_TIMEOUT)
            if why:
                problems.append(
                    f"SSH at {host} port {ctx.number('ssh-port')} can't be reached: {why}"
                )
        return problems

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        """Copies the key into the machine's folder, as docker-machine does (a store can move)."""
        key = ctx.text("ssh-key")
        if key and not _stored_key(ctx):
            source = Path(key).expanduser()
            _copy_key(source, ctx.folder / _copy_name(source))
            yield Made("key_file", _copy_name(source), "Importing SSH key...")
        elif not key and not ctx.state.get("agent"):
            yield Made(
                "agent",
                value=True,
                note="No SSH key specified. Assuming an existing key at the default location.",
            )

    def remove(self, ctx: DriverContext) -> None:
        """Nothing was made; the machine's folder goes with the record."""

    def state(self, ctx: DriverContext) -> HostState:
        why = ctx.host.dial(ctx.text("ip-address"), ctx.number("ssh-port"), timeout=DIAL_TIMEOUT)
        return HostState.STOPPED if why else HostState.RUNNING

    def address(self, ctx: DriverContext) -> Address:
        host = ctx.text("ip-address")
        key = _stored_key(ctx) or ctx.text("ssh-key")
        login = SshLogin(
            host=host,
            port=ctx.number("ssh-port"),
            user=ctx.text("ssh-user"),
            key_path=str(Path(key).expanduser()) if key else None,
        )
        return Address(host=host, engine_port=ctx.number("engine-port"), via=Via.SSH, ssh=login)

    def restart(self, ctx: DriverContext) -> None:
        """docker-machine's `sudo shutdown -r now`; waits until the kernel's boot id has changed.

        In a container that shares its host's boot id, a new start of PID 1 counts as well.
        """
        before = _boot(ctx)
        done = ctx.host.run(_REBOOT, timeout=30.0)
        if done.status not in {0, -1}:
            raise DriverError(f"the host refused to reboot: {done.stderr.strip()[:300]}")

        def rebooted() -> bool | NotYet:
            try:
                return _boot(ctx) != before or NotYet("the old boot still answers")
            except DriverError as err:
                return NotYet(err.message)

        wait_until(rebooted, what="the reboot", seconds=REBOOT_TIMEOUT, clock=ctx.clock)


_REBOOT: Final = (
    'if [ "$(id -u)" = 0 ]; then s=; else s="sudo -n"; fi; $s shutdown -r now || $s reboot'
)
_BOOT_ID: Final = (
    "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1; cut -d' ' -f22 /proc/1/stat"
)


def _boot(ctx: DriverContext) -> str:
    done = ctx.host.run(_BOOT_ID, timeout=15.0)
    if done.status != 0:
        raise DriverError(f"the host does not answer: {done.stderr.strip()[:300]}")
    return done.stdout


def _key_problems(given: str) -> list[str]:
    if not given:
        return []
    path = Path(given).expanduser()
    try:
        found = path.stat()
    except OSError as err:
        return [f"SSH key {path}: {err.strerror}"]
    if not stat.S_ISREG(found.st_mode):
        return [f"SSH key {path} is not a file"]
    problem = _content_problem(path)
    if problem:
        return [problem]
    if found.st_mode & 0o077:
        return [
            f"SSH key {path} is readable by others (mode {found.st_mode & 0o777:04o}): chmod 600 it"
        ]
    return []


def _content_problem(path: Path) -> str:
    """A file that is no private key is told before anything is made; a frequent slip is NAME.pub."""
    try:
        with path.open("rb") as file:
            first = file.readline(200)
    except OSError as err:
        return f"SSH key {path} can't be read: {err.strerror}"
    if first.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        return f"{path} is a public key; give the private one, beside it and without .pub"
    if not first.startswith(b"-----BEGIN ") or b"PRIVATE KEY" not in first:
        return f"{path} is no SSH private key"
    return ""


def _copy_name(source: Path) -> str:
    """The key's own name, as docker-machine has it, unless it is a name of the store's."""
    taken = {"config.json", "ca.pem", "cert.pem", "key.pem", "server.pem", "known_hosts"}
    return (
        f"ssh-{source.name}" if source.name in taken or source.name.startswith(".") else source.name
    )


def _stored_key(ctx: DriverContext) -> str:
    name = ctx.state.get("key_file")
    return str(ctx.folder / name) if isinstance(name, str) else ""


def _copy_key(source: Path, target: Path) -> None:
    try:
        data = source.read_bytes()
        target.unlink(missing_ok=True)  # a copy that a killed create left half-written
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as err:
        raise DriverError(f"cannot copy the SSH key {source}: {err.strerror}") from err


DRIVER: Final = SshDriver()
