"""Making a machine and unmaking it: each step looks first, so all of it can be done again."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from drivers.api import DriverContext, HostState, Made, Seed, SeedRequest
from drivers.errors import (
    AuthError,
    CannotError,
    ConflictError,
    DriverError,
    GoneError,
    TransientError,
)
from drivers.images import Images
from drivers.libvirt import documents, kvm, plan, shared
from drivers.libvirt.documents import Disk, Guest, Tag
from drivers.libvirt.hypervisor import Hypervisor
from drivers.nocloud import seed_image
from drivers.polling import Backoff, NotYet, wait_until

ADDRESS_SECONDS: Final = 300.0  # of a boot, under emulation on a busy computer
_ARP: Final = Path("/proc/thread-self/net/arp")  # of the network namespace that we are in
_SEED_LIMIT: Final = 1 << 20  # NoCloud has none
_DEBIAN_ARCH: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_ON: Final = {HostState.RUNNING, HostState.PAUSED, HostState.STOPPING, HostState.ERROR}


def create(ctx: DriverContext, hv: Hypervisor, images: Images) -> Iterator[Made]:
    """See drivers.api.Driver.create."""
    state: dict[str, object] = dict(ctx.state)
    begin = ctx.clock.monotonic()
    for step in (_accelerator, _disk, _extras, _seed, _domain, _boot, _address):
        for made in step(ctx, hv, images, state):
            state[made.key] = made.value
            if made.key == "started":
                took = ctx.clock.monotonic() - begin
                note = f"Starting the virtual machine, made in {took:.1f} s..."
                yield dataclasses.replace(made, note=note)
            else:
                yield made


def _accelerator(
    ctx: DriverContext, hv: Hypervisor, _: Images, state: dict[str, object]
) -> Iterator[Made]:
    if "accelerator" in state:
        return
    host = documents.host_of(shared.again(ctx, hv.capabilities))
    use, note = choose(ctx, host)
    yield Made("accelerator", {"kvm": use, "arch": host[0]}, note)


def choose(ctx: DriverContext, host: tuple[str, bool]) -> tuple[bool, str]:
    """(whether to use KVM, what to tell). Raises CannotError when it was asked for and fails."""
    wanted = ctx.text("accelerator")
    if wanted == "tcg":
        return False, ""
    why = why_no_kvm(ctx, host)
    if wanted == "kvm" and why:
        raise CannotError(f"KVM does not work: {why}", hint="Without it: --libvirt-accelerator tcg")
    return not why, f"KVM does not work here ({why}): emulating, which is slow." if why else ""


def why_no_kvm(ctx: DriverContext, host: tuple[str, bool]) -> str:
    """ "" when KVM is to be used; else the reason why not."""
    arch, offered = host
    if not offered:
        return "libvirt does not offer it"
    return kvm.why_not(ctx.runner, arch) if plan.is_local(ctx.text("uri")) else ""


def _disk(
    ctx: DriverContext, hv: Hypervisor, images: Images, state: dict[str, object]
) -> Iterator[Made]:
    if "disk" in state:
        return
    arch = _DEBIAN_ARCH.get(_host(state)[1], "amd64")
    given, checksum = plan.image_given(ctx)
    image = images.fetch(ctx, given, arch=arch)
    digest = image.digest or plan.verify(image.path, checksum)
    picture = plan.look(image.path)
    name = plan.volume(ctx.uuid, "disk.qcow2")
    size = max(ctx.number("disk-size") * plan.GIB, picture.size)
    with shared.lock(ctx):
        shared.ensure_pool(ctx, hv)
        base = shared.ensure_base(ctx, hv, image.path, digest)
        backing = (shared.volume(ctx, hv, base).path, picture.format)
        _ensure_volume(ctx, hv, name, documents.storage(name, size, "qcow2", backing))
    yield Made("base", base, f"Using the image {image.name}.")
    yield Made("disk", name)


def _extras(
    ctx: DriverContext, hv: Hypervisor, _: Images, state: dict[str, object]
) -> Iterator[Made]:
    for number, size in enumerate(plan.extra_sizes(ctx), 1):
        key = f"extra-{number}"
        if key not in state:
            name = plan.volume(ctx.uuid, f"{key}.qcow2")
            document = documents.storage(name, size * plan.GIB, "qcow2")
            _ensure_volume(ctx, hv, name, document)
            yield Made(key, name)


def _seed(
    ctx: DriverContext, hv: Hypervisor, _: Images, state: dict[str, object]
) -> Iterator[Made]:
    if "seed" in state:
        return
    seed = seed_of(ctx)
    # No network-config: one card, and DHCP on it is what cloud-init does without one. Its renderers
    # other than netplan (networkd in 22.4) take the "e*" of a match for a name.
    data = seed_image(seed.user_data, seed.meta_data)
    name = plan.volume(ctx.uuid, "seed.iso")
    shared.replace_volume(ctx, hv, name, lambda: io.BytesIO(data), len(data))
    yield Made("seed", name)


def seed_of(ctx: DriverContext) -> Seed:
    """The machine's seed: keys, user, shares."""
    kind = ctx.text("share-type")
    return ctx.seeds.seed(
        SeedRequest(
            user=ctx.text("ssh-user"),
            user_data=plan.userdata(ctx),
            limit=_SEED_LIMIT,
            mounts=tuple((one.tag, one.where, kind) for one in plan.shares(ctx)),
        )
    )


def _domain(
    ctx: DriverContext, hv: Hypervisor, _: Images, state: dict[str, object]
) -> Iterator[Made]:
    if "domain" in state:
        return
    use_kvm, _arch = _host(state)
    with shared.lock(ctx):
        shared.ensure_network(ctx, hv)
        _define(ctx, hv, state, use_kvm=use_kvm)
    if ctx.flag("autostart"):
        shared.again(ctx, lambda: hv.autostart(ctx.uuid, wanted=True))
    yield Made("domain", ctx.uuid)


def _define(ctx: DriverContext, hv: Hypervisor, state: dict[str, object], *, use_kvm: bool) -> None:
    """Defining the same domain again changes nothing. Raises ConflictError for another's name."""
    known = shared.volumes(ctx, hv)
    parts = [plan.volume(ctx.uuid, "disk.qcow2"), plan.volume(ctx.uuid, "seed.iso")]
    extras = [f"extra-{n}.qcow2" for n, _ in enumerate(plan.extra_sizes(ctx), 1)]
    parts += [plan.volume(ctx.uuid, part) for part in extras]
    missing = [part for part in parts if part not in known]
    if missing:
        raise GoneError(f"the storage pool has lost {', '.join(missing)}")
    # disk, seed and the rest are vda, vdb, vdc ...
    disks = [
        Disk(known[part].path, "raw" if index == 1 else "qcow2", index, read_only=index == 1)
        for index, part in enumerate(parts)
    ]
    folder = posixpath.dirname(disks[0].path)
    guest = Guest(
        uuid=ctx.uuid,
        name=ctx.name,
        kvm=use_kvm,
        arch=_host(state)[1],
        cpus=ctx.number("cpus"),
        memory=ctx.number("memory"),
        uefi=ctx.text("firmware") == "uefi",
        disks=tuple(disks),
        mac=plan.mac(ctx.uuid),
        network=shared.network_name(ctx),
        bridge=ctx.text("bridge"),
        console=posixpath.join(folder, plan.volume(ctx.uuid, "console.log")),
        shares=tuple(plan.shares(ctx)),
        share_type=ctx.text("share-type"),
    )
    tag = Tag(ctx.uuid, shared.pool_name(ctx), str(state.get("base", "")), guest.network)
    shared.again(ctx, functools.partial(hv.define, documents.domain(guest, tag)))


def _boot(
    ctx: DriverContext, hv: Hypervisor, _: Images, state: dict[str, object]
) -> Iterator[Made]:
    if "started" in state:
        return
    try:
        turn_on(ctx, hv)
    except DriverError as err:
        refused = _host(state)[0] and "kvm" in err.message.lower()
        if not refused or ctx.text("accelerator") == "kvm":
            raise
        _define(ctx, hv, state, use_kvm=False)
        told = f"KVM does not work there ({err.message}): emulating, which is slow."
        yield Made("accelerator", {"kvm": False, "arch": _host(state)[1]}, told)
        turn_on(ctx, hv)
    yield Made("started", value=True)


def _address(
    ctx: DriverContext, hv: Hypervisor, _: Images, state: dict[str, object]
) -> Iterator[Made]:
    if "address" not in state:
        found = await_address(ctx, hv, ADDRESS_SECONDS)
        yield Made("address", found, f"The machine has the address {found}.")


def turn_on(ctx: DriverContext, hv: Hypervisor) -> None:
    """Off, saved or paused becomes running."""

    def there() -> bool:
        return hv.state(ctx.uuid) is HostState.RUNNING

    def make() -> None:
        if hv.state(ctx.uuid) is HostState.PAUSED:
            hv.resume(ctx.uuid)
        else:
            hv.start(ctx.uuid)

    shared.ensured(ctx, there, make)


def await_address(ctx: DriverContext, hv: Hypervisor, seconds: float) -> str:
    """The machine's IPv4 address, as soon as anything knows it. Raises WaitTimeoutError."""

    def attempt() -> str | NotYet:
        found = _ask_address(ctx, hv)
        if not isinstance(found, NotYet):
            return found
        with contextlib.suppress(TransientError):
            state = hv.state(ctx.uuid)
            if state not in {HostState.RUNNING, HostState.PAUSED}:
                raise ConflictError(
                    f"the machine is {state.value}", hint="machine console shows what it said last."
                )
        return found

    backoff = Backoff(first=0.1, factor=1.5, most=1.0)
    return wait_until(
        attempt, what="an address of the machine", seconds=seconds, clock=ctx.clock, backoff=backoff
    )


def _ask_address(ctx: DriverContext, hv: Hypervisor) -> str | NotYet:
    """Leases of libvirt's own DHCP; what the guest's agent says; the neighbours of the host."""
    why = "no DHCP lease, no guest agent, not seen on the network"
    for source in ("lease", "agent", "arp"):
        try:
            found = hv.addresses(ctx.uuid, plan.mac(ctx.uuid), source)
        except (AuthError, GoneError):
            raise
        except DriverError as err:
            why = f"{why}; {err.message}" if source != "agent" else why
            continue
        usable = [one for one in found if not one.startswith(("127.", "169.254."))]
        if usable:
            return usable[0]
    own = _own_neighbours(ctx)
    return own[0] if own else NotYet(why)


def _own_neighbours(ctx: DriverContext) -> list[str]:
    """This computer's ARP table, when it is the hypervisor: libvirt 9.0 can't read it on newer
    kernels ("wrong nlmsg len")."""
    if not plan.is_local(ctx.text("uri")):
        return []
    try:
        table = _ARP.read_text()
    except OSError:
        return []
    return plan.neighbours(table, plan.mac(ctx.uuid))


def remove(ctx: DriverContext, hv: Hypervisor) -> None:
    """See drivers.api.Driver.remove."""
    shared.again(ctx, lambda: _unmake(ctx, hv))
    with shared.lock(ctx):  # another's remove must not take the pool away in between
        left = _delete_volumes(ctx, hv)
        if shared.again(ctx, lambda: exists(ctx, hv)):
            left.append(f"domain {ctx.name}")
        if left:
            told = f"libvirt still has {', '.join(left)}"
            raise DriverError(told, hint="Run the same command again.")
        shared.sweep_storage(ctx, hv)
        shared.sweep_network(ctx, hv)


def _delete_volumes(ctx: DriverContext, hv: Hypervisor) -> list[str]:
    """The machine's own go; the names of those that are listed nevertheless."""
    pool, prefix = shared.pool_name(ctx), plan.volume_prefix(ctx.uuid)
    for name in shared.volumes(ctx, hv):
        if name.startswith(prefix):
            shared.again(ctx, functools.partial(shared.delete, hv, pool, name))
    return [name for name in shared.volumes(ctx, hv) if name.startswith(prefix)]


def _unmake(ctx: DriverContext, hv: Hypervisor) -> None:
    with contextlib.suppress(GoneError):
        if documents.tag_of(hv.domain(ctx.uuid)) is None:
            raise DriverError(
                f"the domain {ctx.uuid} does not carry the tag of a machine: it was left alone",
                hint="If it is yours all the same: virsh undefine --nvram --managed-save",
            )
        if hv.state(ctx.uuid) in _ON:
            with contextlib.suppress(ConflictError):  # it ended by itself meanwhile
                hv.destroy(ctx.uuid)
        hv.undefine(ctx.uuid)


def exists(ctx: DriverContext, hv: Hypervisor) -> bool:
    try:
        hv.domain(ctx.uuid)
    except GoneError:
        return False
    return True


def _ensure_volume(ctx: DriverContext, hv: Hypervisor, name: str, document: str) -> None:
    pool = shared.pool_name(ctx)
    shared.ensured(
        ctx, lambda: name in shared.volumes(ctx, hv), lambda: hv.make_volume(pool, document)
    )


def _host(state: dict[str, object]) -> tuple[bool, str]:
    """(KVM?, architecture), from what `create` learnt first."""
    raw: Any = state.get("accelerator")
    known = raw if isinstance(raw, dict) else {}
    return bool(known.get("kvm")), str(known.get("arch", "x86_64"))
