"""A record, its driver, and the way to its host: what every use case starts from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from drivers import options as driver_options
from drivers import registry
from drivers.api import (
    Address,
    Completed,
    Driver,
    DriverContext,
    Host,
    HostState,
    Http,
    Runner,
    Via,
)
from drivers.errors import DriverError, WaitTimeoutError
from drivers.options import Value
from drivers.polling import Clock, NotYet, wait_until
from machine.cloudinit import CloudSeeds
from machine.config import BOOT_TIMEOUT
from machine.door import ProviderDoor
from machine.errors import EXIT_ERROR, MachineError, UnreachableError
from machine.hostkeys import HostKey, KnownHost, parse_key
from machine.model import MachineRecord, SshEndpoint
from machine.store import Store
from machine.transport import api as transports
from machine.transport.api import Transport

# (where, pinned keys, called with a key that is seen for the first time) -> a logged-in connection
SshConnect = Callable[[SshEndpoint, KnownHost, Callable[[HostKey], None]], Transport]


@dataclasses.dataclass(frozen=True)
class Ports:
    """The outside world, as the composition root (machine.cli.wiring) made it."""

    env: Mapping[str, str]
    clock: Clock
    runner: Runner
    http: Http
    cache: Path
    ssh: SshConnect
    say: Callable[[str], None]  # a line that stays on the screen
    debug: Callable[[str], None] = lambda _: None  # under --debug
    plugins: registry.Plugins | None = None


@contextlib.contextmanager
def driver_errors(brief: str = "", exit_code: int = EXIT_ERROR) -> Iterator[None]:
    """A DriverError inside becomes a MachineError, with `brief` before it when given."""
    try:
        yield
    except DriverError as err:
        if brief:
            raise MachineError(
                brief, details=err.message, hint=err.hint, exit_code=exit_code
            ) from err
        raise MachineError(err.message, hint=err.hint, exit_code=exit_code) from err


class Hosts:
    """Opens what a record describes. Stateless; may be used from several threads."""

    def __init__(self, store: Store, ports: Ports) -> None:
        self._store = store
        self.ports = ports

    def driver(self, record: MachineRecord) -> Driver:
        """Raises MachineError when it isn't installed, or the record is not ours to manage."""
        if record.imported and record.driver != "generic":
            raise MachineError(
                f'Machine "{record.name}" was made by docker-machine with the driver '
                f"{record.driver}, and can't be managed here yet",
                details="It can be listed and inspected; env and ssh work with its certificates "
                "and key.",
                hint=f"To manage it, adopt its host: machine create --driver ssh --ssh-ip-address "
                f"{record.address or 'ADDRESS'} NEWNAME",
            )
        with driver_errors():
            return registry.load(record.driver, self.ports.plugins)

    def context(
        self, record: MachineRecord, values: Mapping[str, Value] | None = None
    ) -> DriverContext:
        """What a driver's verb gets; `values` are given by create, else read from the record."""
        if values is None:
            with driver_errors(f'Machine "{record.name}": its options can\'t be read'):
                values = driver_options.from_stored(
                    self.driver(record).options, record.driver_options, self.ports.env
                )
        return DriverContext(
            name=record.name,
            uuid=record.uuid,
            options=values,
            state=dict(record.driver_state),
            folder=self._store.machine_dir(record.name),
            clock=self.ports.clock,
            runner=self.ports.runner,
            http=self.ports.http,
            host=self._access(record),
            door=ProviderDoor(record.name, self.ports.clock, self.ports.debug),
            seeds=CloudSeeds(record.name, record.uuid, self._store.machine_dir(record.name)),
            cache=self.ports.cache,
        )

    def state(self, record: MachineRecord) -> HostState:
        """The host's state by its driver. Raises MachineError."""
        driver = self.driver(record)
        with driver_errors():
            return driver.state(self.context(record))

    def address(self, record: MachineRecord) -> Address:
        driver = self.driver(record)
        with driver_errors():
            return driver.address(self.context(record))

    def known(self, record: MachineRecord) -> KnownHost:
        return KnownHost(self._store.machine_dir(record.name), record.name)

    def connect(self, record: MachineRecord, *, boot_seconds: float = 0.0) -> Transport:
        """A way in, now; a booting host is given `boot_seconds` to answer.

        The caller closes it. Raises HostKeyError for a changed key, UnreachableError, MachineError.
        """
        if record.local:
            from machine.transport.local import LocalTransport

            return LocalTransport(self.ports.env)
        if record.ssh is None:
            raise MachineError(f'Machine "{record.name}" has no SSH address yet')
        endpoint = record.ssh
        if not boot_seconds:
            return self._connect(record, endpoint)

        def attempt() -> Transport | NotYet:
            try:
                return self._connect(record, endpoint)
            except UnreachableError as err:
                return NotYet(f"{err.brief}: {err.details}")

        try:
            return wait_until(attempt, what="SSH", seconds=boot_seconds, clock=self.ports.clock)
        except WaitTimeoutError as err:
            raise UnreachableError("The host did not come up", details=err.message) from err

    @contextlib.contextmanager
    def connected(self, record: MachineRecord, *, boot_seconds: float = 0.0) -> Iterator[Transport]:
        transport = self.connect(record, boot_seconds=boot_seconds)
        try:
            yield transport
        finally:
            transport.close()

    def seed_keys(self, record: MachineRecord, address: Address) -> None:
        """Pin the keys that the driver knew before the first contact (C12)."""
        known = self.known(record)
        if address.ssh and address.ssh.host_keys and not known.path.exists():
            known.pin([parse_key(line) for line in address.ssh.host_keys])

    def _connect(self, record: MachineRecord, endpoint: SshEndpoint) -> Transport:
        def first(key: HostKey) -> None:
            self.ports.say(
                f"({record.name}) First contact: the host key is {key.kind} {key.fingerprint}; "
                "it is pinned from now on."
            )

        return self.ports.ssh(endpoint, self.known(record), first)

    def _access(self, record: MachineRecord) -> Host:
        return _Access(self, record)


class _Access:
    """drivers.api.Host: a new connection a command; drivers use it seldom."""

    def __init__(self, hosts: Hosts, record: MachineRecord) -> None:
        self._hosts = hosts
        self._record = record

    def run(self, command: str, *, timeout: float = 60.0) -> Completed:
        try:
            with self._hosts.connected(self._record) as transport:
                return transports.run(transport, command, timeout=timeout)
        except MachineError as err:
            why = "\n".join(part for part in (err.details, err.hint) if part)
            raise DriverError(err.brief, hint=why) from err

    def dial(self, host: str, port: int, *, timeout: float = 15.0) -> str:
        from machine.transport.dial import dial

        return dial(host, port, timeout)


def via_of(record: MachineRecord, address: Address) -> MachineRecord:
    """The record with what the driver said about where the host is."""
    login = address.ssh
    ssh = SshEndpoint(login.host, login.port, login.user, login.key_path) if login else None
    return record.with_changes(
        address=address.host,
        engine_port=address.engine_port,
        local=address.via is Via.LOCAL,
        ssh=ssh,
    )


__all__ = ["BOOT_TIMEOUT", "Hosts", "Ports", "driver_errors", "via_of"]
