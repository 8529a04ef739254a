"""The use cases: what `machine` does to machines. Plans are pure; this runs them, in order."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from drivers import options as driver_options
from drivers.api import DriverContext, HostState, Kill, Restart, StartStop, Suspend
from drivers.errors import CannotError
from drivers.options import Value
from machine import firstboot, journal, parallel
from machine.abilities import Abilities
from machine.config import BOOT_TIMEOUT, BOOTED_ENGINE_TIMEOUT
from machine.errors import (
    EXIT_NOT_FOUND,
    EXIT_PRECHECK,
    MachineError,
    NotFoundError,
)
from machine.hosts import Hosts, Ports, driver_errors, via_of
from machine.installer import AskVersion, Installer
from machine.journal import Step
from machine.lifecycle import ALREADY, Action, Event, decide
from machine.model import AuthFiles, EngineOptions, MachineRecord, Phase
from machine.progress import SUBJECT, Progress, StepTimes
from machine.store import Store
from machine.store.names import check_new_name
from machine.transport.api import Transport

PARALLEL: Final = 16  # machines that one command works on at once

_WORDS: Final = {
    Event.START: ("Starting", "was started"),
    Event.STOP: ("Stopping", "was stopped"),
    Event.KILL: ("Killing", "was killed"),
    Event.RESTART: ("Restarting", "was restarted"),
    Event.SUSPEND: ("Suspending", "was suspended"),
    Event.RESUME: ("Resuming", "was resumed"),
}


@dataclasses.dataclass(frozen=True)
class CreateRequest:
    """What `create` was asked for. `values` are the driver's options, all of them, with secrets."""

    name: str
    driver: str
    values: dict[str, Value]
    engine: EngineOptions
    auth: AuthFiles
    take_over: bool = False


class Service:
    """Use cases over one store. Each raises MachineError."""

    def __init__(
        self,
        store: Store,
        ports: Ports,
        progress: Progress,
        *,
        hosts: Hosts | None = None,
        ask_version: AskVersion | None = None,
    ) -> None:
        self._store = store
        self._ports = ports
        self._progress = progress
        self.hosts = hosts or Hosts(store, ports)
        self._installer = Installer(store, self.hosts, progress, ask_version)
        self.abilities = Abilities(store, self.hosts, progress, self._up_again)

    # -- create

    def create(self, request: CreateRequest) -> MachineRecord:
        """Make a machine, or finish one whose create failed or was killed."""
        check_new_name(request.name, self._store.names())
        with self._store.operating(request.name):
            record, resumed = self._begin(request)
            if resumed:
                where = journal.cut_off(record)
                self._progress.note(
                    f"({record.name}) Resuming the create that stopped"
                    + (f" at: {where}" if where else "")
                )
            self._installer.ensure_identity(record.auth)
            ctx = self.hosts.context(record, request.values)
            self._progress.phase("Running pre-create checks...")
            self._check(record, ctx)
            return self._make(record, request, resumed=resumed)

    def _begin(self, request: CreateRequest) -> tuple[MachineRecord, bool]:
        driver = self.hosts.driver(_bare(request))
        stored = driver_options.stored(driver.options, request.values)
        fresh = dataclasses.replace(
            _bare(request),
            uuid=str(uuid.uuid4()),
            created=journal.timestamp(self._ports.clock.now()),
            driver_options=stored,
            engine=request.engine,
            auth=request.auth,
        )
        if not self._store.exists(request.name):
            return fresh, False
        found = self._store.load(request.name)
        if found.phase is not Phase.CREATING:
            raise MachineError(f'Docker machine "{request.name}" already exists')
        if found.driver != request.driver:
            raise MachineError(
                f'A create of "{request.name}" with the driver {found.driver} has not finished',
                hint=f"Finish it with that driver, or remove it: machine rm {request.name}",
            )
        # The ids stay, what the user says now counts: perhaps that is what was wrong before.
        return found.with_changes(
            driver_options=stored, engine=request.engine, auth=request.auth
        ), True

    def _check(self, record: MachineRecord, ctx: DriverContext) -> None:
        driver = self.hosts.driver(record)
        with driver_errors("Error with pre-create check", EXIT_PRECHECK):
            problems = driver.check(ctx)
        if problems:
            raise MachineError(
                f'Error with pre-create check: "{problems[0]}"'
                if len(problems) == 1
                else "Error with pre-create check",
                details="\n".join(problems) if len(problems) > 1 else "",
                exit_code=EXIT_PRECHECK,
            )

    def _make(
        self, record: MachineRecord, request: CreateRequest, *, resumed: bool
    ) -> MachineRecord:
        driver = self.hosts.driver(record)
        times = StepTimes(self._ports.clock.monotonic)
        self._progress.phase("Creating machine...")
        record = self._doing(record, Step.HOST)
        with driver_errors("Error creating machine"):
            for made in driver.create(self.hosts.context(record, request.values)):
                state = {**record.driver_state, made.key: made.value}
                record = record.with_changes(driver_state=state)
                self._store.save(record)
                if made.note:
                    self._progress.note(f"({record.name}) {made.note}")
            ctx = self.hosts.context(record, request.values)
            address = driver.address(ctx)
        record = self._done(via_of(record, address), Step.HOST)
        self.hosts.seed_keys(record, address)
        times.ended("making the host")
        record = self._doing(record, Step.CONNECT)
        boot = 0.0 if driver.adopts and not resumed else BOOT_TIMEOUT
        if boot:
            self._progress.phase(
                "Waiting for machine to be running, this may take a few minutes..."
            )
        with self._dropped_unless_touched(record, adopted=driver.adopts and not resumed):
            if not record.local:
                self._progress.phase("Waiting for SSH to be available...")
            with self.hosts.connected(record, boot_seconds=boot) as transport:
                times.ended("until SSH answered")
                if not driver.adopts:
                    self._await_first_boot(record, transport)
                    times.ended("rest of the first boot")
                self._progress.phase("Detecting operating system of created instance...")
                facts = self._installer.look(transport)
                plan = self._installer.plan(record, facts, take_over=request.take_over)
                record = self._doing(self._done(record, Step.CONNECT), Step.PROVISION)
                record = self._installer.install(record, transport, facts, plan)
                record = self._done(record, Step.PROVISION)
                times.ended("installing the agent")
        record = self._finish(self._installer.verify(self._doing(record, Step.VERIFY)))
        times.ended("until the engine answered")
        if not driver.adopts:
            self._progress.note(f"({record.name}) Created in {times.line()}")
        return record

    def _await_first_boot(self, record: MachineRecord, transport: Transport) -> None:
        """What cloud-init could not do is told; provisioning finds out whether it matters."""
        self._progress.phase("Waiting for cloud-init to end...")
        complaint = firstboot.wait(transport)
        if complaint:
            self._progress.note(
                f"({record.name}) cloud-init did not end well; it says:\n{complaint}"
            )

    @contextlib.contextmanager
    def _dropped_unless_touched(self, record: MachineRecord, *, adopted: bool) -> Iterator[None]:
        """An adopted host that turns out unsuitable was not changed: nothing keeps the name."""
        try:
            yield
        except MachineError as err:
            untouched = not journal.started(self._store.load(record.name), Step.PROVISION)
            if adopted and untouched:
                self._store.forget(record.name)
                raise
            raise MachineError(
                f"Error creating machine: {err.brief}",
                details=err.details,
                hint=err.hint
                or f"Run the same command again to go on, or: machine rm {record.name}",
                exit_code=err.exit_code if not adopted else 1,
            ) from err

    def _finish(self, record: MachineRecord) -> MachineRecord:
        record = self._done(record, Step.VERIFY).with_changes(phase=Phase.READY)
        self._store.save(record)
        return record

    def _doing(self, record: MachineRecord, step: Step) -> MachineRecord:
        record = journal.doing(record, step, self._ports.clock.now())
        self._store.save(record)
        return record

    def _done(self, record: MachineRecord, step: Step) -> MachineRecord:
        record = journal.done(record, step, self._ports.clock.now())
        self._store.save(record)
        return record

    # -- change

    def provision(self, names: Sequence[str], *, take_over: bool = False) -> None:
        """Bring the hosts to what this program would install now; containers live on."""
        self._each(
            names, lambda record: self._reprovision(record, force=False, take_over=take_over)
        )

    def upgrade(self, names: Sequence[str]) -> None:
        """Provision, after starting what is stopped."""
        self._each(names, self._upgrade_one)

    def regenerate_certs(self, names: Sequence[str], *, client: bool) -> None:
        """New server certificates; with `client`, a new client identity for all machines first."""
        if client:
            self._installer.renew_client()
        self._each(names, lambda record: self._reprovision(record, force=True))

    def _upgrade_one(self, record: MachineRecord) -> None:
        if self.hosts.state(record) is HostState.STOPPED and isinstance(
            self.hosts.driver(record), StartStop
        ):
            self._power_one(record, Event.START)
        self._reprovision(record, force=False)

    def _reprovision(self, record: MachineRecord, *, force: bool, take_over: bool = False) -> None:
        record = via_of(record, self.hosts.address(record))
        self._installer.ensure_identity(record.auth)
        with self.hosts.connected(record) as transport:
            facts = self._installer.look(transport)
            plan = self._installer.plan(record, facts, new_certificate=force, take_over=take_over)
            record = self._installer.install(record, transport, facts, plan)
        record = self._installer.verify(record)
        self._store.save(record.with_changes(phase=Phase.READY))

    # -- power

    def power(self, names: Sequence[str], event: Event) -> None:
        """start, stop, kill or restart."""
        self._each(names, lambda record: self._power_one(record, event))

    def _power_one(self, record: MachineRecord, event: Event) -> None:
        action = decide(self.hosts.state(record), event)
        if action is Action.ALREADY:
            raise MachineError(f'Machine "{record.name}" is already {ALREADY[event]}.')
        if action is Action.UNFIT:
            wanted = "running" if event is Event.SUSPEND else "suspended"
            raise MachineError(f'Machine "{record.name}" is not {wanted}.')
        if action is Action.MISSING:
            raise MachineError(
                f'The host of machine "{record.name}" no longer exists',
                hint=f"Forget it with: machine rm {record.name}",
                exit_code=EXIT_NOT_FOUND,
            )
        begins, ended = _WORDS[event]
        with driver_errors():
            verb = self._verb(record, action)
            self._progress.note(f'{begins} "{record.name}"...')
            verb(self.hosts.context(record))
        if action in {Action.START, Action.RESTART, Action.RESUME}:
            self._up_again(record)
        self._progress.note(f'Machine "{record.name}" {ended}.')

    def _verb(self, record: MachineRecord, action: Action) -> Callable[[DriverContext], None]:
        """The driver's verb by what it can do, never by its name. Raises CannotError."""
        driver = self.hosts.driver(record)
        if isinstance(driver, StartStop) and action in {Action.START, Action.STOP}:
            return driver.start if action is Action.START else driver.stop
        if isinstance(driver, Kill) and action is Action.KILL:
            return driver.kill
        if isinstance(driver, Suspend) and action in {Action.SUSPEND, Action.RESUME}:
            return driver.suspend if action is Action.SUSPEND else driver.resume
        if action is Action.RESTART:
            if isinstance(driver, Restart):
                return driver.restart
            if isinstance(driver, StartStop):
                return _both(driver)
        raise CannotError(
            f"{record.driver} driver does not support {action.value}",
            hint=f'The host of "{record.name}" is not ours to turn on or off.',
        )

    def _up_again(self, record: MachineRecord) -> None:
        """Wait for SSH and the engine; a new address gets a certificate that names it.

        A new port of the engine (of a forward that had to change) is told to the host in the same
        way: the engine listens where its clients ask.
        """
        address = self.hosts.address(record)
        after = via_of(record, address)
        self._progress.note(f'Waiting for SSH to be available on "{record.name}"...')
        if after != record:
            self._store.save(after)
        with self.hosts.connected(after, boot_seconds=BOOT_TIMEOUT):
            pass
        if (after.address, after.engine_port) != (record.address, record.engine_port):
            self._reprovision(after, force=True)
        else:
            self._installer.verify(after, seconds=BOOTED_ENGINE_TIMEOUT)

    # -- remove

    def remove(self, name: str, *, force: bool, uninstall: bool) -> None:
        """Unmake a machine and forget it; with `uninstall` the host is as it was before.

        A create that did not finish is undone on the host in any case. With `force` the record goes
        even when the host could not be undone.
        """
        with self._store.operating(name):
            try:
                record = self._store.load(name)
            except NotFoundError:
                raise
            except MachineError:
                if not force:
                    raise
                self._store.forget(name)
                return
            if not record.imported:
                self._store.save(record.with_changes(phase=Phase.REMOVING))
            for undo in self._undoing(record, uninstall=uninstall):
                try:
                    undo()
                except MachineError as err:
                    if not force:
                        raise MachineError(
                            f"Error removing host {name!r}: {err.brief}",
                            details=err.details,
                            hint=err.hint or f"Forget it anyway with: machine rm -f {name}",
                        ) from err
                    self._progress.note(f"({name}) {err}")
            self._store.forget(name)

    def _undoing(self, record: MachineRecord, *, uninstall: bool) -> list[Callable[[], None]]:
        steps: list[Callable[[], None]] = []
        half_made = record.phase is Phase.CREATING and journal.started(record, Step.PROVISION)
        adopted = record.imported or self.hosts.driver(record).adopts
        if uninstall or (half_made and adopted):
            steps.append(lambda: self._installer.uninstall(record))
        if not record.imported:
            steps.append(lambda: self._driver_remove(record))
        return steps

    def _driver_remove(self, record: MachineRecord) -> None:
        with driver_errors():
            self.hosts.driver(record).remove(self.hosts.context(record))

    # -- ask

    def load_all(self, names: Sequence[str]) -> list[MachineRecord]:
        """All records first: one that can't be loaded stops the command before it does anything."""
        return [self._store.load(name) for name in names]

    def keeps_host(self, name: str) -> bool:
        """True when `rm` forgets the machine and leaves its host as it is."""
        try:
            record = self._store.load(name)
            mine = not record.imported and not self.hosts.driver(record).adopts
            return not mine and record.phase is Phase.READY
        except MachineError:
            return False

    def loses_host(self, name: str) -> bool:
        """True when `rm` forgets what docker-machine made at a provider, where it stays."""
        try:
            record = self._store.load(name)
        except MachineError:
            return False
        return record.imported and record.driver != "generic"

    def state(self, name: str) -> HostState:
        return self.hosts.state(self._store.load(name))

    def ip(self, name: str) -> str:
        """The address now, by the driver; of a stopped machine there is none."""
        record = self._store.load(name)
        self._must_run(record)
        return self.hosts.address(record).host if not record.imported else record.address

    def url(self, name: str) -> str:
        record = self._store.load(name)
        self._must_run(record)
        return via_of(record, self.hosts.address(record)).url if not record.imported else record.url

    def engine_version(self, name: str) -> str:
        return self._installer.engine_version(self._store.load(name))

    def _must_run(self, record: MachineRecord) -> None:
        if record.imported or record.local:
            return
        if self.hosts.state(record) is not HostState.RUNNING:
            raise MachineError("Host is not running")

    def _each(self, names: Sequence[str], work: Callable[[MachineRecord], None]) -> None:
        """Run for all machines at once; errors are joined, as docker-machine does it."""
        records = self.load_all(names)

        def one(record: MachineRecord) -> MachineError | None:
            SUBJECT.set(record.name if len(records) > 1 else "")
            try:
                with self._store.operating(record.name):
                    work(record)
            except MachineError as err:
                return err
            return None

        if len(records) == 1:
            failed = [err for err in [one(records[0])] if err]
        else:
            failed = [err for err in parallel.each(one, records, PARALLEL) if err]
        if len(failed) == 1:
            raise failed[0]
        if failed:
            raise MachineError("\n".join(str(err) for err in failed))


def _both(driver: StartStop) -> Callable[[DriverContext], None]:
    def restart(ctx: DriverContext) -> None:
        driver.stop(ctx)
        driver.start(ctx)

    return restart


def _bare(request: CreateRequest) -> MachineRecord:
    return MachineRecord(name=request.name, uuid="", driver=request.driver, created="")
