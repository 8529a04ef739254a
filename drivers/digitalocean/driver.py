"""The driver's verbs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from drivers.api import Address, DriverContext, HostState, Made, Size, SshLogin, Via
from drivers.digitalocean import checks, creation, plan, power, removal
from drivers.digitalocean.account import Account
from drivers.digitalocean.options import OPTIONS
from drivers.errors import DriverError, GoneError

_STATES: Final = {
    "new": HostState.STARTING,
    "active": HostState.RUNNING,
    "off": HostState.STOPPED,
    "archive": HostState.SAVED,
}


class DigitalOceanDriver:
    """Makes a droplet, its key, its firewall and, if wanted, a volume of its own."""

    name = "digitalocean"
    summary = "droplets of DigitalOcean"
    options = OPTIONS
    adopts = False

    def check(self, ctx: DriverContext) -> list[str]:
        return checks.problems(ctx)

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        return creation.created(ctx)

    def remove(self, ctx: DriverContext) -> None:
        removal.removed(ctx)

    def state(self, ctx: DriverContext) -> HostState:
        account = Account(ctx)
        try:
            found = power.droplet_of(ctx, account)
        except GoneError:
            account.limits()  # a token that is not known finds nothing either
            return HostState.NOT_FOUND
        return _STATES.get(found.status, HostState.ERROR)

    def address(self, ctx: DriverContext) -> Address:
        """A droplet keeps its address as long as it lives, so nobody is asked."""
        host = ctx.state.get("address")
        if not isinstance(host, str) or not host:
            raise DriverError(f"the droplet of {ctx.name} has no address yet")
        seed = creation.seed_of(ctx)
        given = ctx.text("ssh-key-path")
        login = SshLogin(
            host=host,
            port=ctx.number("ssh-port"),
            user=seed.user,
            key_path=str(Path(given).expanduser()) if given else seed.key_path,
            host_keys=seed.host_keys,
        )
        return Address(host=host, engine_port=plan.ENGINE_PORT, via=Via.SSH, ssh=login)

    def start(self, ctx: DriverContext) -> None:
        power.started(ctx, Account(ctx))

    def stop(self, ctx: DriverContext) -> None:
        power.stopped(ctx, Account(ctx))

    def kill(self, ctx: DriverContext) -> None:
        power.killed(ctx, Account(ctx))

    def restart(self, ctx: DriverContext) -> None:
        power.restarted(ctx, Account(ctx))

    def snapshot(self, ctx: DriverContext, label: str) -> None:
        power.kept(ctx, Account(ctx), label)

    def snapshots(self, ctx: DriverContext) -> list[str]:
        return power.labels(ctx, Account(ctx))

    def restore(self, ctx: DriverContext, label: str) -> None:
        power.put_back(ctx, Account(ctx), label)

    def drop_snapshot(self, ctx: DriverContext, label: str) -> None:
        power.forgotten(ctx, Account(ctx), label)

    def resize(self, ctx: DriverContext, size: Size) -> None:
        power.resized(ctx, Account(ctx), size)

    def owned(self, ctx: DriverContext) -> list[tuple[str, str]]:
        return [(one.owner, one.what) for one in removal.owned(Account(ctx))]

    def missing(self, ctx: DriverContext) -> list[str]:
        del ctx
        if importlib.util.find_spec("digitalocean") is None:
            return ["python-digitalocean: pip install 'machine[digitalocean]'"]
        return []


DRIVER: Final = DigitalOceanDriver()
