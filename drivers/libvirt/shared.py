"""What machines share on a hypervisor: the pool, base images, the NAT network.

Made when missing, and taken away with the last machine that uses it, if it is ours: ours are the
pool and the network with our uuids, and volumes whose names begin with `machine-base-`. On one
computer a lock keeps what one command has just made from being swept by another.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Final, TypeVar

from drivers.api import DriverContext
from drivers.errors import ConflictError, GoneError, InvalidError, QuotaError
from drivers.libvirt import documents, plan
from drivers.libvirt.hypervisor import Hypervisor, Volume
from drivers.locks import locked
from drivers.polling import retried

T = TypeVar("T")
_LOCK_SECONDS: Final = 900.0
# A base image is whole when this volume stands beside it: an upload may be cut off anywhere.
_WHOLE: Final = ".whole"


def again(ctx: DriverContext, action: Callable[[], T]) -> T:
    """`action`, repeated while the hypervisor has a bad moment: it must be fit for that."""
    return retried(action, clock=ctx.clock)


def ensured(ctx: DriverContext, there: Callable[[], bool], make: Callable[[], None]) -> None:
    """Make what is not `there`. A conflict means that another was quicker, if it is there now."""

    def attempt() -> None:
        if there():
            return
        try:
            make()
        except ConflictError:
            if not there():
                raise

    again(ctx, attempt)


def lock(ctx: DriverContext) -> AbstractContextManager[None]:
    """Held while something shared is made and tied to a machine, or swept."""
    where = hashlib.sha256(ctx.text("uri").encode()).hexdigest()[:16]
    path = ctx.cache / "locks" / f"libvirt-{where}"
    return locked(
        path, what="work on the hypervisor's storage", seconds=_LOCK_SECONDS, clock=ctx.clock
    )


# -- storage


def pool_name(ctx: DriverContext) -> str:
    return ctx.text("pool") or plan.POOL


def ensure_pool(ctx: DriverContext, hv: Hypervisor) -> None:
    """The pool is active. Raises InvalidError when the user's own is missing or no directory."""
    name = pool_name(ctx)

    def there() -> bool:
        with contextlib.suppress(GoneError):
            document, active = hv.pool(name)
            if documents.attribute_of(document, ".", "type") not in {"dir", "fs", "netfs"}:
                raise InvalidError(
                    f"storage pool {name} is no directory: it can't hold qcow2 files"
                )
            return active
        if ctx.text("pool"):
            raise InvalidError(
                f"there is no storage pool {name}",
                hint="virsh pool-list --all shows what there is.",
            )
        folder = plan.pool_folder(ctx.text("uri"), Path.home())
        hv.define_pool(documents.pool(name, plan.POOL_UUID, folder))
        return False

    ensured(ctx, there, lambda: hv.start_pool(name))


def volumes(ctx: DriverContext, hv: Hypervisor) -> dict[str, Volume]:
    """What is in the pool, by name; nothing when there is no pool."""
    try:
        found = again(ctx, lambda: hv.volumes(pool_name(ctx)))
    except GoneError:
        return {}
    except ConflictError:  # it is there and not active
        ensure_pool(ctx, hv)
        found = again(ctx, lambda: hv.volumes(pool_name(ctx)))
    return {one.name: one for one in found}


def volume(ctx: DriverContext, hv: Hypervisor, name: str) -> Volume:
    """Raises GoneError."""
    try:
        return volumes(ctx, hv)[name]
    except KeyError:
        raise GoneError(f"the storage pool {pool_name(ctx)} has lost {name}") from None


def replace_volume(
    ctx: DriverContext,
    hv: Hypervisor,
    name: str,
    content: Callable[[], IO[bytes]],
    size: int,
) -> None:
    """A volume with this content; one of the name that is there, perhaps half-written, goes."""
    pool = pool_name(ctx)

    def attempt() -> None:
        with contextlib.suppress(GoneError):
            hv.delete_volume(pool, name)
        hv.make_volume(pool, documents.storage(name, size, "raw"))
        with content() as source:
            hv.upload(pool, name, source, size)

    again(ctx, attempt)


def ensure_base(ctx: DriverContext, hv: Hypervisor, image: Path, digest: str) -> str:
    """The name of the volume that holds the image, uploaded when it isn't there whole."""
    name = f"{plan.BASE_PREFIX}{digest[:16]}.img"
    marker = name + _WHOLE
    known = volumes(ctx, hv)
    if name in known and marker in known:
        return name
    size = image.stat().st_size
    replace_volume(ctx, hv, name, lambda: image.open("rb"), size)
    ensured(
        ctx,
        lambda: marker in volumes(ctx, hv),
        lambda: hv.make_volume(pool_name(ctx), documents.storage(marker, 512, "raw")),
    )
    return name


def sweep_storage(ctx: DriverContext, hv: Hypervisor) -> None:
    """Base images that no disk is a difference to; our pool when nothing is left in it."""
    pool = pool_name(ctx)
    known = volumes(ctx, hv)
    used = {one.backing for one in known.values()}
    for name in sorted(known, reverse=True):  # the marker before its image
        image = known.get(name.removesuffix(_WHOLE))
        if name.startswith(plan.BASE_PREFIX) and (image is None or image.path not in used):
            again(ctx, functools.partial(delete, hv, pool, name))
            del known[name]
    if not known:
        _drop_pool(ctx, hv, pool)


def _drop_pool(ctx: DriverContext, hv: Hypervisor, name: str) -> None:
    def attempt() -> None:
        with contextlib.suppress(GoneError):
            document, active = hv.pool(name)
            if documents.text_of(document, "uuid") != plan.POOL_UUID:
                return
            if active:
                hv.stop_pool(name)
            with contextlib.suppress(GoneError, ConflictError):  # its folder is not empty: not ours
                hv.delete_pool(name)
            hv.undefine_pool(name)

    again(ctx, attempt)


# -- network


def network_name(ctx: DriverContext) -> str:
    """ "" when the machine is on a bridge."""
    return "" if ctx.text("bridge") else ctx.text("network") or plan.NETWORK


def ensure_network(ctx: DriverContext, hv: Hypervisor) -> None:
    """The network is active; ours is made with a subnet that is free there."""
    name = network_name(ctx)
    if not name:
        return

    def there() -> bool:
        try:
            return hv.network(name)[1]
        except GoneError:
            return False

    def make() -> None:
        with contextlib.suppress(GoneError):
            document = hv.network(name)[0]
            ours = documents.text_of(document, "uuid") == plan.NETWORK_UUID
            try:
                hv.start_network(name)
            except ConflictError:
                if not ours or there():
                    raise
                hv.undefine_network(name)  # its subnet has been taken by something else
            else:
                return
        if name != plan.NETWORK:
            raise InvalidError(
                f"there is no network {name}", hint="virsh net-list --all shows what there is."
            )
        _make_network(hv, name)

    ensured(ctx, there, make)


def _make_network(hv: Hypervisor, name: str) -> None:
    """On the first subnet that libvirt can start it on: other programs' networks it alone sees."""
    refused = ""
    for subnet in plan.subnets(documents.subnets_of(hv.networks()))[:8]:
        hv.define_network(documents.network(name, plan.NETWORK_UUID, plan.BRIDGE, subnet))
        try:
            hv.start_network(name)
        except ConflictError as err:
            refused = err.message
            hv.undefine_network(name)
        else:
            return
    raise QuotaError(
        f"no free subnet for the network {name}: {refused or 'all of 192.168.0.0/16 is taken'}",
        hint="Give a network that is there: --libvirt-network NAME",
    )


def sweep_network(ctx: DriverContext, hv: Hypervisor) -> None:
    """Our network, when no domain has a card on it."""
    name = plan.NETWORK

    def attempt() -> None:
        with contextlib.suppress(GoneError):
            document, active = hv.network(name)
            if documents.text_of(document, "uuid") != plan.NETWORK_UUID:
                return
            if any(documents.uses_network(one, name) for one in hv.domains()):
                return
            if active:
                hv.stop_network(name)
            hv.undefine_network(name)

    again(ctx, attempt)


def delete(hv: Hypervisor, pool: str, name: str) -> None:
    """A volume, which may have gone already."""
    gone(lambda: hv.delete_volume(pool, name))


def gone(action: Callable[[], None]) -> None:
    """`action`, for which it is no error that its thing has gone."""
    with contextlib.suppress(GoneError):
        action()
