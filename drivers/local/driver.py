"""This computer as a machine: nothing is made; the engine listens on loopback with mutual TLS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from drivers.api import Address, DriverContext, HostState, Made, Via
from drivers.options import Kind, OptionSpec

OPTIONS: Final = (
    OptionSpec(
        "engine-port",
        ("--local-engine-port",),
        "Port of the engine on 127.0.0.1",
        kind=Kind.PORT,
        default=2376,
        env=("MACHINE_LOCAL_ENGINE_PORT",),
    ),
)


class LocalDriver:
    """The computer that the command runs on; it is there for as long as the command is."""

    name = "local"
    summary = "this computer, without SSH"
    options = OPTIONS
    adopts = True

    def check(self, ctx: DriverContext) -> list[str]:
        del ctx
        if sys.platform != "linux":
            return ["containers need Linux; use --driver ssh with a Linux host"]
        return []

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        del ctx
        return iter(())

    def remove(self, ctx: DriverContext) -> None:
        """Nothing was made."""

    def state(self, ctx: DriverContext) -> HostState:
        del ctx
        return HostState.RUNNING

    def address(self, ctx: DriverContext) -> Address:
        return Address(host="127.0.0.1", engine_port=ctx.number("engine-port"), via=Via.LOCAL)


DRIVER: Final = LocalDriver()
