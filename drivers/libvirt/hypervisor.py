"""The thin layer over libvirt-python: every method is one call of libvirt's, through the door.

Things are named by uuid or name, never held: an object of libvirt's outlives neither a call nor a
connection that broke. Calls run in a thread of their own with a deadline, since libvirt's C code
waits as long as it likes and lets no Ctrl-C through.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, TypeVar

from drivers.api import Door, HostState
from drivers.errors import DriverError, TransientError
from drivers.libvirt.documents import oldest_first, text_of
from drivers.libvirt.failures import failure

T = TypeVar("T")
SECONDS: Final = 60.0  # for one call
LONG_SECONDS: Final = 600.0  # for one that moves memory or a disk
_CLOSE_SECONDS: Final = 5.0
_CHUNK: Final = 256 * 1024

# virDomainState of libvirt-domain.h
_STATES: Final = {
    0: HostState.NONE,
    1: HostState.RUNNING,
    2: HostState.RUNNING,  # blocked: waits for a resource
    3: HostState.PAUSED,
    4: HostState.STOPPING,
    5: HostState.STOPPED,
    6: HostState.ERROR,
    7: HostState.PAUSED,  # suspended by its own power management
}
# flags that older bindings may lack have their numbers in libvirt's ABI, which never change
_UNDEFINE: Final = 1 | 2 | 4 | 16  # MANAGED_SAVE, SNAPSHOTS_METADATA, NVRAM, CHECKPOINTS_METADATA
_SOURCES: Final = (("lease", 0), ("agent", 1), ("arp", 2))


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a pool. `backing` is the path of the volume that it is a difference to."""

    name: str
    path: str
    capacity: int
    backing: str


class Hypervisor:
    """One connection. `lib` is the module libvirt; errors are the contract's kinds."""

    def __init__(self, lib: Any, connection: Any, door: Door) -> None:
        self._lib = lib
        self._conn = connection
        self._door = door

    def _call(self, name: str, action: Callable[[], T], seconds: float = SECONDS) -> T:
        return self._door.call(name, lambda: bounded(self._lib, name, action, seconds))

    # -- the host

    def capabilities(self) -> str:
        return self._call("virConnectGetCapabilities", lambda: str(self._conn.getCapabilities()))

    # -- domains

    def domain(self, uuid: str) -> str:
        """The document that the next boot gets. Raises GoneError."""
        flag = self._lib.VIR_DOMAIN_XML_INACTIVE
        return self._call("virDomainGetXMLDesc", lambda: str(self._dom(uuid).XMLDesc(flag)))

    def domains(self) -> list[str]:
        """The documents of all domains, anyone's."""

        def read() -> list[str]:
            documents = []
            for one in self._conn.listAllDomains(0):
                with contextlib.suppress(self._lib.libvirtError):  # gone meanwhile
                    documents.append(str(one.XMLDesc(self._lib.VIR_DOMAIN_XML_INACTIVE)))
            return documents

        return self._call("virConnectListAllDomains", read)

    def uuid_of(self, name: str) -> str:
        """The uuid of the domain of that name. Raises GoneError."""
        return self._call(
            "virDomainLookupByName", lambda: str(self._conn.lookupByName(name).UUIDString())
        )

    def state(self, uuid: str) -> HostState:
        """Raises GoneError."""

        def read() -> HostState:
            domain = self._dom(uuid)
            found = _STATES.get(domain.state(0)[0], HostState.NONE)
            saved = found is HostState.STOPPED and domain.hasManagedSaveImage(0)
            return HostState.SAVED if saved else found

        return self._call("virDomainGetState", read)

    def define(self, document: str) -> None:
        self._call("virDomainDefineXML", lambda: self._conn.defineXML(document))

    def undefine(self, uuid: str) -> None:
        """With its saved memory, its NVRAM and what is known of its snapshots."""
        self._call("virDomainUndefineFlags", lambda: self._dom(uuid).undefineFlags(_UNDEFINE))

    def start(self, uuid: str) -> None:
        """Boots, or goes on from the saved memory."""
        self._call("virDomainCreate", lambda: self._dom(uuid).create(), LONG_SECONDS)

    def shutdown(self, uuid: str) -> None:
        """Presses the power button."""
        self._call("virDomainShutdown", lambda: self._dom(uuid).shutdown())

    def destroy(self, uuid: str) -> None:
        """Cuts the power."""
        self._call("virDomainDestroy", lambda: self._dom(uuid).destroy())

    def resume(self, uuid: str) -> None:
        self._call("virDomainResume", lambda: self._dom(uuid).resume())

    def save(self, uuid: str) -> None:
        self._call("virDomainManagedSave", lambda: self._dom(uuid).managedSave(0), LONG_SECONDS)

    def drop_save(self, uuid: str) -> None:
        self._call("virDomainManagedSaveRemove", lambda: self._dom(uuid).managedSaveRemove(0))

    def autostart(self, uuid: str, *, wanted: bool) -> None:
        self._call("virDomainSetAutostart", lambda: self._dom(uuid).setAutostart(int(wanted)))

    def addresses(self, uuid: str, mac: str, source: str) -> list[str]:
        """IPv4 addresses of the card `mac`; `source` is lease, agent or arp. [] when unknown."""
        number = dict(_SOURCES)[source]

        def read() -> list[str]:
            found = self._dom(uuid).interfaceAddresses(number, 0)
            return [
                str(row["addr"])
                for card in (found or {}).values()
                if str(card.get("hwaddr", "")).lower() == mac
                for row in card["addrs"] or ()
                if row["type"] == 0
            ]

        return self._call("virDomainInterfaceAddresses", read)

    # -- snapshots

    def snapshots(self, uuid: str) -> list[str]:
        """Their names, oldest first."""

        def read() -> list[str]:
            found = self._dom(uuid).listAllSnapshots(0)
            return oldest_first(str(one.getXMLDesc(0)) for one in found)

        return self._call("virDomainListAllSnapshots", read)

    def take_snapshot(self, uuid: str, document: str) -> None:
        def make() -> None:
            self._dom(uuid).snapshotCreateXML(document, 0)

        self._call("virDomainSnapshotCreateXML", make, LONG_SECONDS)

    def revert(self, uuid: str, label: str) -> None:
        def turn() -> None:
            domain = self._dom(uuid)
            domain.revertToSnapshot(domain.snapshotLookupByName(label, 0), 0)

        self._call("virDomainRevertToSnapshot", turn, LONG_SECONDS)

    def drop_snapshot(self, uuid: str, label: str) -> None:
        self._call(
            "virDomainSnapshotDelete",
            lambda: self._dom(uuid).snapshotLookupByName(label, 0).delete(0),
            LONG_SECONDS,
        )

    # -- networks

    def network(self, name: str) -> tuple[str, bool]:
        """(document, whether it is active). Raises GoneError."""

        def read() -> tuple[str, bool]:
            found = self._net(name)
            return str(found.XMLDesc(0)), bool(found.isActive())

        return self._call("virNetworkGetXMLDesc", read)

    def networks(self) -> list[str]:
        return self._call(
            "virConnectListAllNetworks",
            lambda: [str(one.XMLDesc(0)) for one in self._conn.listAllNetworks(0)],
        )

    def define_network(self, document: str) -> None:
        self._call("virNetworkDefineXML", lambda: self._conn.networkDefineXML(document))

    def start_network(self, name: str) -> None:
        """And with the hypervisor from now on."""
        self._call("virNetworkSetAutostart", lambda: self._net(name).setAutostart(1))
        self._call("virNetworkCreate", lambda: self._net(name).create())

    def stop_network(self, name: str) -> None:
        self._call("virNetworkDestroy", lambda: self._net(name).destroy())

    def undefine_network(self, name: str) -> None:
        self._call("virNetworkUndefine", lambda: self._net(name).undefine())

    # -- storage

    def pool(self, name: str) -> tuple[str, bool]:
        """(document, whether it is active). Raises GoneError."""

        def read() -> tuple[str, bool]:
            found = self._pool(name)
            return str(found.XMLDesc(0)), bool(found.isActive())

        return self._call("virStoragePoolGetXMLDesc", read)

    def pools(self) -> list[str]:
        """Names of the active ones, anyone's."""

        def read() -> list[str]:
            return [str(one.name()) for one in self._conn.listAllStoragePools(0) if one.isActive()]

        return self._call("virConnectListAllStoragePools", read)

    def define_pool(self, document: str) -> None:
        self._call("virStoragePoolDefineXML", lambda: self._conn.storagePoolDefineXML(document, 0))

    def start_pool(self, name: str) -> None:
        """With its folder made when there is none; and with the hypervisor from now on."""
        self._call("virStoragePoolSetAutostart", lambda: self._pool(name).setAutostart(1))
        flag = self._lib.VIR_STORAGE_POOL_CREATE_WITH_BUILD
        self._call("virStoragePoolCreate", lambda: self._pool(name).create(flag))

    def stop_pool(self, name: str) -> None:
        self._call("virStoragePoolDestroy", lambda: self._pool(name).destroy())

    def delete_pool(self, name: str) -> None:
        """Its empty folder."""
        self._call("virStoragePoolDelete", lambda: self._pool(name).delete(0))

    def undefine_pool(self, name: str) -> None:
        self._call("virStoragePoolUndefine", lambda: self._pool(name).undefine())

    def volumes(self, pool: str) -> list[Volume]:
        """All that is in the pool now, whoever put it there. Raises GoneError without the pool."""

        def read() -> list[Volume]:
            found = self._pool(pool)
            found.refresh(0)  # what was not made through libvirt (logs) is seen by this only
            rows = []
            for one in found.listAllVolumes(0):
                with contextlib.suppress(self._lib.libvirtError):  # gone meanwhile
                    rows.append(_volume(str(one.XMLDesc(0))))
            return rows

        return self._call("virStoragePoolListAllVolumes", read)

    def make_volume(self, pool: str, document: str) -> None:
        self._call("virStorageVolCreateXML", lambda: self._pool(pool).createXML(document, 0))

    def delete_volume(self, pool: str, name: str) -> None:
        self._call("virStorageVolDelete", lambda: self._vol(pool, name).delete(0), LONG_SECONDS)

    def resize_volume(self, pool: str, name: str, size: int) -> None:
        self._call("virStorageVolResize", lambda: self._vol(pool, name).resize(size, 0))

    def upload(self, pool: str, name: str, source: IO[bytes], size: int) -> None:
        """All of `source` becomes the volume's beginning."""

        def send() -> None:
            source.seek(0)
            stream = self._conn.newStream(0)
            self._vol(pool, name).upload(stream, 0, size, 0)
            whole = False
            try:
                while data := source.read(_CHUNK):
                    _send_all(stream, data)
                whole = True
            finally:
                if not whole:
                    stream.abort()
            stream.finish()

        self._call("virStorageVolUpload", send, LONG_SECONDS)

    def tail(self, pool: str, name: str, most: int) -> bytes:
        """The last bytes of a volume, `most` at the most."""

        def receive() -> bytes:
            self._pool(pool).refresh(0)
            volume = self._vol(pool, name)
            size = int(volume.info()[1])
            length = min(most, size)
            stream = self._conn.newStream(0)
            volume.download(stream, size - length, length, 0)
            out = bytearray()
            while data := stream.recv(_CHUNK):
                out += data
            stream.finish()
            return bytes(out)

        return self._call("virStorageVolDownload", receive)

    # -- handles

    def _dom(self, uuid: str) -> Any:
        return self._conn.lookupByUUIDString(uuid)

    def _net(self, name: str) -> Any:
        return self._conn.networkLookupByName(name)

    def _pool(self, name: str) -> Any:
        return self._conn.storagePoolLookupByName(name)

    def _vol(self, pool: str, name: str) -> Any:
        return self._pool(pool).storageVolLookupByName(name)


def _send_all(stream: Any, data: bytes) -> None:
    while data:
        sent = stream.send(data)
        data = data[sent:]


def _volume(document: str) -> Volume:
    return Volume(
        name=text_of(document, "name"),
        path=text_of(document, "target/path"),
        capacity=int(text_of(document, "capacity") or 0),
        backing=text_of(document, "backingStore/path"),
    )


def bounded(lib: Any, name: str, action: Callable[[], T], seconds: float) -> T:
    """`action` in a thread; TransientError when it does not come back in time.

    The thread is left behind then, as a daemon: there is no way to take libvirt out of a call.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(action())
        except (lib.libvirtError, OSError, DriverError) as err:
            future.set_exception(err)
        finally:
            if not future.done():
                future.set_exception(DriverError(f"{name} broke off"))

    threading.Thread(target=work, name=name, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as err:
        raise TransientError(f"{name}: no answer within {seconds:.0f} s") from err
    except lib.libvirtError as err:
        raise failure(err.get_error_code() or 0, err.get_error_message() or str(err)) from err
    except OSError as err:
        raise DriverError(f"{name}: {err}") from err


def library() -> Any:
    """The module, told not to print errors. Raises DriverError when it is not installed."""
    try:
        import libvirt
    except ImportError as err:
        raise DriverError(
            f"libvirt-python is not installed ({err})",
            hint="apt install libvirt-dev pkg-config gcc; pip install 'machine[libvirt]'",
        ) from err
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


@contextlib.contextmanager
def connected(uri: str, door: Door) -> Iterator[Hypervisor]:
    """A connection for the time of the block. Raises AuthError, TransientError ..."""
    lib = library()
    conn = door.call(
        "virConnectOpen", lambda: bounded(lib, "virConnectOpen", lambda: lib.open(uri), SECONDS)
    )
    try:
        yield Hypervisor(lib, conn, door)
    finally:
        with contextlib.suppress(DriverError):  # it is of no use any more in any case
            bounded(lib, "virConnectClose", conn.close, _CLOSE_SECONDS)
