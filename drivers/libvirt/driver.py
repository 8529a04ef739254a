"""The verbs: each opens a connection to the hypervisor for itself."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from drivers.api import (
    Address,
    DriverContext,
    HostState,
    Made,
    SeedRequest,
    Size,
    SshLogin,
    Via,
)
from drivers.errors import CannotError, ConflictError, DriverError, GoneError, InvalidError
from drivers.images import Images
from drivers.libvirt import documents, making, plan, shared
from drivers.libvirt.hypervisor import Hypervisor, connected
from drivers.libvirt.options import OPTIONS
from drivers.polling import Backoff, NotYet, wait_until

STOP_SECONDS: Final = 180.0  # systemd gives a service 90; emulation is slow
_RUNNING_ADDRESS_SECONDS: Final = 120.0
_CONSOLE_LIMIT: Final = 64 * 1024
_MODULE: Final = "libvirt"
_GET_LIBRARY: Final = (
    "the Python library libvirt-python: apt install libvirt-dev pkg-config gcc; "
    "pip install 'machine[libvirt]'"
)


class LibvirtDriver:
    """Virtual machines of QEMU, by libvirt. `images` are cloud images (drivers.images)."""

    name = "libvirt"
    summary = "virtual machines of libvirt (KVM, QEMU), here or on another host"
    options = OPTIONS
    adopts = False

    def __init__(self, images: Images | None = None) -> None:
        self._images = images or Images()

    # -- compulsory

    def check(self, ctx: DriverContext) -> list[str]:
        found = plan.problems(ctx)
        given, checksum = plan.image_given(ctx)
        wrong = self._images.problems(given)
        found += wrong
        if given and "://" not in given and not wrong:
            found += _image_problems(ctx, checksum)
        if missing := self.missing(ctx):
            return [*found, *(f"missing: {one}" for one in missing)]
        try:
            with self._hypervisor(ctx) as hv:
                found += _conflicts(ctx, hv)
        except DriverError as err:
            found.append(f"{err.message}\n{err.hint}" if err.hint else err.message)
        return found

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        with self._hypervisor(ctx) as hv:
            yield from making.create(ctx, hv, self._images)

    def remove(self, ctx: DriverContext) -> None:
        with self._hypervisor(ctx) as hv:
            making.remove(ctx, hv)

    def state(self, ctx: DriverContext) -> HostState:
        with self._hypervisor(ctx) as hv:
            try:
                return shared.again(ctx, lambda: hv.state(ctx.uuid))
            except GoneError:
                return HostState.NOT_FOUND

    def address(self, ctx: DriverContext) -> Address:
        """Asks libvirt: a lease may have moved. A machine that has just been started is waited for."""
        with self._hypervisor(ctx) as hv:
            host = making.await_address(ctx, hv, _RUNNING_ADDRESS_SECONDS)
        seed = ctx.seeds.seed(SeedRequest(user=ctx.text("ssh-user")))  # its keys: made already
        login = SshLogin(host, 22, seed.user, seed.key_path, seed.host_keys)
        return Address(host, via=Via.SSH, ssh=login)

    # -- power

    def start(self, ctx: DriverContext) -> None:
        with self._hypervisor(ctx) as hv:
            shared.ensure_pool(ctx, hv)
            with shared.lock(ctx):
                shared.ensure_network(ctx, hv)
            making.turn_on(ctx, hv)

    def stop(self, ctx: DriverContext) -> None:
        with self._hypervisor(ctx) as hv:
            self._stop(ctx, hv)

    def kill(self, ctx: DriverContext) -> None:
        with self._hypervisor(ctx) as hv:
            shared.again(ctx, lambda: _cut(ctx, hv))

    def suspend(self, ctx: DriverContext) -> None:
        """libvirt's managed save: the memory goes into a file of the hypervisor."""
        with self._hypervisor(ctx) as hv:
            state = shared.again(ctx, lambda: hv.state(ctx.uuid))
            if state in {HostState.SAVED, HostState.PAUSED}:
                return
            if state is not HostState.RUNNING:
                raise ConflictError(f"the machine is {state.value}: there is nothing to suspend")
            shared.ensured(
                ctx,
                lambda: hv.state(ctx.uuid) is HostState.SAVED,
                lambda: hv.save(ctx.uuid),
            )

    def resume(self, ctx: DriverContext) -> None:
        with self._hypervisor(ctx) as hv:
            if shared.again(ctx, lambda: hv.state(ctx.uuid)) is HostState.STOPPED:
                raise ConflictError("the machine is off: there is nothing to resume")
            making.turn_on(ctx, hv)

    # -- snapshots

    def snapshot(self, ctx: DriverContext, label: str) -> None:
        with self._hypervisor(ctx) as hv:
            if label in shared.again(ctx, lambda: hv.snapshots(ctx.uuid)):
                raise ConflictError(f"there is a snapshot {label} already")
            if shared.again(ctx, lambda: hv.state(ctx.uuid)) is HostState.SAVED:
                raise ConflictError("the machine is suspended: resume it, or stop it, before")
            document = documents.snapshot(label)
            shared.ensured(
                ctx,
                lambda: label in hv.snapshots(ctx.uuid),
                lambda: hv.take_snapshot(ctx.uuid, document),
            )

    def snapshots(self, ctx: DriverContext) -> list[str]:
        with self._hypervisor(ctx) as hv:
            return shared.again(ctx, lambda: hv.snapshots(ctx.uuid))

    def restore(self, ctx: DriverContext, label: str) -> None:
        """A snapshot of a running machine brings its memory back; one that ran runs afterwards."""
        with self._hypervisor(ctx) as hv:
            if label not in shared.again(ctx, lambda: hv.snapshots(ctx.uuid)):
                raise GoneError(f"there is no snapshot {label}")
            ran = shared.again(ctx, lambda: hv.state(ctx.uuid)) is not HostState.STOPPED

            def turn() -> None:
                _cut(ctx, hv)  # its present goes in any case, and so no device has to be changed
                hv.revert(ctx.uuid, label)

            shared.again(ctx, turn)
            if ran:
                making.turn_on(ctx, hv)

    def drop_snapshot(self, ctx: DriverContext, label: str) -> None:
        with self._hypervisor(ctx) as hv:
            shared.again(ctx, lambda: shared.gone(lambda: hv.drop_snapshot(ctx.uuid, label)))

    # -- the rest

    def resize(self, ctx: DriverContext, size: Size) -> None:
        """Off for a moment; cloud-init grows the file system into a larger disk at the next boot."""
        if size.plan:
            raise CannotError("libvirt has no named sizes: give cpus, memory or disk")
        with self._hypervisor(ctx) as hv:
            name = plan.volume(ctx.uuid, "disk.qcow2")
            disk = shared.volume(ctx, hv, name).capacity
            wanted = size.disk * plan.GIB
            if 0 < wanted < disk:
                raise InvalidError(f"the disk has {disk // plan.GIB} GiB: it can't be made smaller")
            state = shared.again(ctx, lambda: hv.state(ctx.uuid))
            if state in {HostState.SAVED, HostState.PAUSED}:
                raise ConflictError("the machine is suspended: resume it before")
            self._stop(ctx, hv)
            if wanted > disk:
                pool = shared.pool_name(ctx)
                shared.again(ctx, lambda: hv.resize_volume(pool, name, wanted))
            document = shared.again(ctx, lambda: hv.domain(ctx.uuid))
            changed = documents.resized(document, size.cpus, size.memory)
            shared.again(ctx, lambda: hv.define(changed))
            if state is HostState.RUNNING:
                making.turn_on(ctx, hv)

    def console(self, ctx: DriverContext) -> str:
        with self._hypervisor(ctx) as hv:
            pool, name = shared.pool_name(ctx), plan.volume(ctx.uuid, "console.log")
            try:
                data = shared.again(ctx, lambda: hv.tail(pool, name, _CONSOLE_LIMIT))
            except GoneError:
                return ""
        return data.decode("utf-8", "replace")

    def owned(self, ctx: DriverContext) -> list[tuple[str, str]]:
        with self._hypervisor(ctx) as hv:
            where = ctx.text("uri")
            found = []
            for document in shared.again(ctx, hv.domains):
                tag = documents.tag_of(document)
                if tag:
                    found.append(
                        (tag.uuid, f"domain {documents.text_of(document, 'name')} at {where}")
                    )
            for name in shared.volumes(ctx, hv):
                uuid = name.removeprefix("machine-")[:36]
                if name.startswith(plan.volume_prefix(uuid)) and len(uuid) == 36:
                    found.append((uuid, f"volume {name} at {where}"))
            return found

    def missing(self, ctx: DriverContext) -> list[str]:
        del ctx
        return [] if importlib.util.find_spec(_MODULE) else [_GET_LIBRARY]

    # -- inside

    def _hypervisor(self, ctx: DriverContext) -> AbstractContextManager[Hypervisor]:
        return _opened(ctx)

    def _stop(self, ctx: DriverContext, hv: Hypervisor) -> None:
        if shared.again(ctx, lambda: hv.state(ctx.uuid)) in {HostState.SAVED, HostState.PAUSED}:
            making.turn_on(ctx, hv)
        wait_until(
            _pressing(ctx, hv),
            what="the shutdown",
            seconds=STOP_SECONDS,
            clock=ctx.clock,
            backoff=Backoff(first=0.1, factor=1.3, most=0.5),
        )


def _pressing(ctx: DriverContext, hv: Hypervisor) -> Callable[[], bool | NotYet]:
    """Presses the power button and looks. Again now and then: a guest that has just begun to boot
    does not hear it."""
    clock = ctx.clock
    due, pause = clock.monotonic(), 1.0

    def attempt() -> bool | NotYet:
        nonlocal due, pause
        if shared.again(ctx, lambda: hv.state(ctx.uuid)) is HostState.STOPPED:
            return True
        if clock.monotonic() >= due:
            with contextlib.suppress(ConflictError):  # it has ended meanwhile
                shared.again(ctx, lambda: hv.shutdown(ctx.uuid))
            due, pause = clock.monotonic() + pause, min(pause * 2, 15.0)
        return NotYet("it is still on; machine kill cuts the power")

    return attempt


def _cut(ctx: DriverContext, hv: Hypervisor) -> None:
    """Off, whatever it was; saved memory is lost."""
    state = hv.state(ctx.uuid)
    if state is HostState.SAVED:
        hv.drop_save(ctx.uuid)
    elif state is not HostState.STOPPED:
        with contextlib.suppress(ConflictError):
            hv.destroy(ctx.uuid)


@contextlib.contextmanager
def _opened(ctx: DriverContext) -> Iterator[Hypervisor]:
    """Opening is tried again; what is done with the connection is not."""
    with contextlib.ExitStack() as stack:
        uri = plan.tidy_uri(ctx.text("uri"))
        yield shared.again(ctx, lambda: stack.enter_context(connected(uri, ctx.door)))


def _image_problems(ctx: DriverContext, checksum: str) -> list[str]:
    from pathlib import Path

    path = Path(ctx.text("image")).expanduser()
    try:
        plan.look(path)
        if checksum and not plan.problems(ctx):
            plan.verify(path, checksum)
    except DriverError as err:
        return [err.message]
    return []


def _conflicts(ctx: DriverContext, hv: Hypervisor) -> list[str]:
    """What the hypervisor already knows to be wrong."""
    found = []
    with contextlib.suppress(GoneError):
        if shared.again(ctx, lambda: hv.uuid_of(ctx.name)) != ctx.uuid:
            found.append(
                f'{ctx.text("uri")} has a domain "{ctx.name}" already, which is another\'s'
            )
    rows: list[tuple[str, str, Callable[[], object]]] = []
    if name := ctx.text("network"):
        rows.append(("--libvirt-network", name, lambda: hv.network(ctx.text("network"))))
    if name := ctx.text("pool"):
        rows.append(("--libvirt-pool", name, lambda: hv.pool(ctx.text("pool"))))
    for flag, name, look in rows:
        try:
            shared.again(ctx, look)
        except GoneError:
            found.append(f"{flag} {name}: {ctx.text('uri')} has none of that name")
    if ctx.text("accelerator") == "kvm":
        why = making.why_no_kvm(ctx, documents.host_of(shared.again(ctx, hv.capabilities)))
        if why:
            found.append(f"KVM does not work: {why}; without it: --libvirt-accelerator tcg")
    if plan.is_session(ctx.text("uri")) and not ctx.text("bridge"):
        found.append(
            "an unprivileged libvirtd has no networks: give a bridge that qemu-bridge-helper allows, "
            "such as --libvirt-bridge virbr0"
        )
    return found


DRIVER: Final = LibvirtDriver()
