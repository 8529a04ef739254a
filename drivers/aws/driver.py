"""The driver's verbs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from drivers.api import Address, DriverContext, HostState, Made, SeedRequest, Size, SshLogin, Via
from drivers.aws import checks, finding, inventory, power, snapshots
from drivers.aws.making import Making
from drivers.aws.options import OPTIONS
from drivers.aws.provider import Cloud, missing_library
from drivers.caller import caller_cidr
from drivers.errors import DriverError, InvalidError

_CONSOLE_LIMIT: Final = 64 * 1024
_CHECK_SECONDS: Final = 10.0


class AwsDriver:
    """Instances of Amazon EC2."""

    name = "aws"
    summary = "instances of Amazon EC2 (docker-machine's amazonec2)"
    options = OPTIONS
    adopts = False

    def missing(self, ctx: DriverContext) -> list[str]:
        del ctx
        return missing_library()

    def check(self, ctx: DriverContext) -> list[str]:
        problems = [*missing_library(), *checks.offline(ctx)]
        if missing_library():
            return problems
        cloud = Cloud(ctx, patience=_CHECK_SECONDS)
        try:
            cloud.connect()
        except DriverError as err:
            return [*problems, err.message]
        return [*problems, *checks.online(cloud, ctx)]

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        yield from Making(Cloud(ctx), ctx).steps()

    def remove(self, ctx: DriverContext) -> None:
        inventory.remove(_connected(ctx), ctx)

    def state(self, ctx: DriverContext) -> HostState:
        found = finding.own_instance(_connected(ctx), ctx)
        return power.STATES.get(found.state, HostState.ERROR) if found else HostState.NOT_FOUND

    def address(self, ctx: DriverContext) -> Address:
        found = power.must(_connected(ctx), ctx)
        user = checks.login(ctx)
        if ctx.flag("ipv6-address-only"):
            host, kind = found.ipv6, "IPv6"
        elif checks.private(ctx):
            host, kind = found.private, "private"
        else:
            host, kind = found.public, "public"
        if not host:
            raise DriverError(
                f"instance {found.id} is {found.state}, and has no {kind} address",
                hint="A stopped instance gets one when it is started; else the subnet may give "
                "none: see --amazonec2-use-private-address.",
            )
        seed = ctx.seeds.seed(SeedRequest(user=user))
        login = SshLogin(
            host=host,
            port=ctx.number("ssh-port"),
            user=user,
            key_path=seed.key_path,
            host_keys=seed.host_keys,
        )
        return Address(host=host, via=Via.SSH, ssh=login)

    def start(self, ctx: DriverContext) -> None:
        cloud = _connected(ctx)
        _let_caller_in(cloud, ctx)
        power.start(cloud, ctx)

    def stop(self, ctx: DriverContext) -> None:
        power.stop(_connected(ctx), ctx, force=False)

    def kill(self, ctx: DriverContext) -> None:
        power.stop(_connected(ctx), ctx, force=True)

    def restart(self, ctx: DriverContext) -> None:
        power.restart(_connected(ctx), ctx)

    def resize(self, ctx: DriverContext, size: Size) -> None:
        power.resize(_connected(ctx), ctx, size)

    def snapshot(self, ctx: DriverContext, label: str) -> None:
        snapshots.take(_connected(ctx), ctx, label)

    def snapshots(self, ctx: DriverContext) -> list[str]:
        return snapshots.labels(_connected(ctx), ctx)

    def restore(self, ctx: DriverContext, label: str) -> None:
        snapshots.restore(_connected(ctx), ctx, label)

    def drop_snapshot(self, ctx: DriverContext, label: str) -> None:
        snapshots.drop(_connected(ctx), ctx, label)

    def console(self, ctx: DriverContext) -> str:
        cloud = _connected(ctx)
        ident = power.must(cloud, ctx).id
        try:
            said = cloud.ask("GetConsoleOutput", InstanceId=ident, Latest=True)
        except InvalidError:  # instance types without Nitro keep only what was said at the boot
            said = cloud.ask("GetConsoleOutput", InstanceId=ident)
        return str(said.get("Output") or "")[-_CONSOLE_LIMIT:]

    def owned(self, ctx: DriverContext) -> list[tuple[str, str]]:
        return [(one.uuid, one.words) for one in inventory.everything(_connected(ctx))]


def _connected(ctx: DriverContext) -> Cloud:
    cloud = Cloud(ctx)
    cloud.connect()
    return cloud


def _let_caller_in(cloud: Cloud, ctx: DriverContext) -> None:
    """A laptop moves: its address of today is let into the machine's own group, if it is known."""
    group, opened = ctx.state.get("group"), ctx.state.get("open_to")
    if not group or not isinstance(opened, list) or not checks.needs_caller(ctx):
        return
    with contextlib.suppress(DriverError):
        here = caller_cidr(ctx)
        if here not in opened:
            Making(cloud, ctx).open(str(group), [here])
