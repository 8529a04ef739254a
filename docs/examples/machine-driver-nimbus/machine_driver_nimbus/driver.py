"""The verbs of the driver. `drivers.api` says what each must do; nothing here installs anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from drivers.api import Address, DriverContext, HostState, Made, Seed, SeedRequest, SshLogin
from drivers.errors import DriverError, GoneError
from drivers.polling import NotYet, wait_until
from machine_driver_nimbus.options import OPTIONS
from machine_driver_nimbus.provider import Nimbus, Server

USER_DATA_LIMIT: Final = 64 * 1024  # Nimbus' own
READY_SECONDS: Final = 300.0
_STATES: Final = {
    "building": HostState.STARTING,
    "on": HostState.RUNNING,
    "off": HostState.STOPPED,
}


class NimbusDriver:
    """Makes an SSH key and a server, both tagged with the machine's uuid."""

    name = "nimbus"
    summary = "servers of Nimbus"
    options = OPTIONS
    adopts = False

    def check(self, ctx: DriverContext) -> list[str]:
        """Everything at once, and nothing is changed."""
        problems = _userdata_problems(ctx.text("userdata"))
        try:
            sizes = Nimbus(ctx).sizes()
        except DriverError as err:
            return [*problems, err.message]
        if ctx.text("size") not in sizes:
            problems.append(f"--nimbus-size {ctx.text('size')}: there is {', '.join(sizes)}")
        return problems

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        """Each thing is looked for by its tag before it is made, and stored when it is."""
        nimbus, seed = Nimbus(ctx), _seed(ctx)
        key = str(ctx.state.get("key", ""))
        if not key:
            key = next(iter(nimbus.find_keys()), "") or nimbus.make_key(seed.public_key)
            yield Made("key", key, "Uploading the SSH key...")
        server = str(ctx.state.get("server", ""))
        if not server:
            found = nimbus.find_servers()
            server = found[0].ident if found else nimbus.make_server(key, seed)
            yield Made("server", server, "Creating the server...")
        _wait(ctx, nimbus, server, "on")

    def remove(self, ctx: DriverContext) -> None:
        """By tag, so that what was made and never stored goes too; then looks that all is gone."""
        nimbus = Nimbus(ctx)
        for server in nimbus.find_servers():
            nimbus.drop_server(server.ident)

        def empty() -> bool | NotYet:
            left = nimbus.find_servers()
            return not left or NotYet(f"there is still {left[0].ident}")

        wait_until(empty, what="the server's removal", seconds=READY_SECONDS, clock=ctx.clock)
        for key in nimbus.find_keys():
            nimbus.drop_key(key)
        if nimbus.find_keys():
            raise DriverError("Nimbus still lists the SSH key that was deleted")

    def state(self, ctx: DriverContext) -> HostState:
        server = _found(ctx)
        return _STATES.get(server.status, HostState.ERROR) if server else HostState.NOT_FOUND

    def address(self, ctx: DriverContext) -> Address:
        server = _found(ctx)
        if server is None or not server.address:
            raise DriverError("the server has no address yet")
        seed = _seed(ctx)
        login = SshLogin(
            server.address, user=seed.user, key_path=seed.key_path, host_keys=seed.host_keys
        )
        return Address(server.address, ssh=login)

    # what Nimbus can do besides: each protocol of drivers.api that the class satisfies is used

    def start(self, ctx: DriverContext) -> None:
        self._turn(ctx, "on")

    def stop(self, ctx: DriverContext) -> None:
        self._turn(ctx, "off")

    def missing(self, ctx: DriverContext) -> list[str]:
        """This driver needs no library beyond Python's."""
        del ctx
        return []

    def _turn(self, ctx: DriverContext, power: str) -> None:
        nimbus, server = Nimbus(ctx), _found(ctx)
        if server is None:
            raise GoneError("the server does not exist any more")
        if server.status != power:
            nimbus.turn(server.ident, power)
            _wait(ctx, nimbus, server.ident, power)


def _found(ctx: DriverContext) -> Server | None:
    return next(iter(Nimbus(ctx).find_servers()), None)


def _wait(ctx: DriverContext, nimbus: Nimbus, ident: str, status: str) -> None:
    def there() -> bool | NotYet:
        try:
            server = nimbus.server(ident)
        except GoneError:
            return NotYet("Nimbus does not know it yet")
        return (server.status == status and bool(server.address)) or NotYet(server.status)

    wait_until(there, what=f"the server's being {status}", seconds=READY_SECONDS, clock=ctx.clock)


def _seed(ctx: DriverContext) -> Seed:
    own = ctx.text("userdata")
    data = b""
    if own:
        try:
            data = Path(own).expanduser().read_bytes()
        except OSError as err:
            raise DriverError(f"--nimbus-userdata {own}: {err.strerror}") from err
    return ctx.seeds.seed(SeedRequest(ctx.text("ssh-user"), data, USER_DATA_LIMIT))


def _userdata_problems(given: str) -> list[str]:
    path = Path(given).expanduser()
    if given and not path.is_file():
        return [f"--nimbus-userdata {given}: there is no such file"]
    if given and path.stat().st_size > USER_DATA_LIMIT:
        return [f"--nimbus-userdata {given}: larger than {USER_DATA_LIMIT >> 10} KiB"]
    return []


DRIVER: Final = NimbusDriver()
