"""What VBoxManage prints, as values; its errors as the contract's kinds. Pure.

Debian's wrapper puts a WARNING of four lines before every answer, on standard output, while the
kernel module is missing: every parser here takes the lines of its own shape and passes over others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Final

from drivers.api import HostState
from drivers.errors import (
    CannotError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)

INACCESSIBLE: Final = "<inaccessible>"  # the name of a machine whose files are gone
NO_MODULE: Final = "/dev/vboxdrv does not exist"

_VERSION: Final = re.compile(r"^(\d+)\.(\d+)\.(\d+)\S*$", re.MULTILINE)
_VM: Final = re.compile(r'^"(.*)" \{([0-9a-f-]{36})\}$', re.MULTILINE)
_PAIR: Final = re.compile(r'^(?:"([^"]+)"|([^"=]+))=(?:"(.*)"|(.*))$')
_FORWARD: Final = re.compile(r"^([^,]*),(tcp|udp),([^,]*),(\d+),([^,]*),(\d+)$")
_CAPACITY: Final = re.compile(r"^Capacity:\s+(\d+) MBytes", re.MULTILINE)
_MARK: Final = re.compile(r"machine (\d+\.\d+)")

_STATES: Final = {
    "running": HostState.RUNNING,
    "paused": HostState.PAUSED,
    "saved": HostState.SAVED,
    "aborted-saved": HostState.SAVED,
    "poweroff": HostState.STOPPED,
    "aborted": HostState.STOPPED,
    "teleported": HostState.STOPPED,
    "starting": HostState.STARTING,
    "restoring": HostState.STARTING,
    "settingup": HostState.STARTING,
    "stopping": HostState.STOPPING,
    "saving": HostState.STOPPING,
    "onlinesnapshotting": HostState.RUNNING,
    "livesnapshotting": HostState.RUNNING,
    "deletingsnapshotlive": HostState.RUNNING,
    "deletingsnapshotlivepaused": HostState.PAUSED,
    "snapshotting": HostState.STOPPED,
    "restoringsnapshot": HostState.STOPPED,
    "deletingsnapshot": HostState.STOPPED,
    "gurumeditation": HostState.ERROR,
}

_NO_HARDWARE: Final = (
    "Turn on VT-x/AMD-V in the firmware's settings, and end other hypervisors (Hyper-V, KVM "
    "machines) that hold it."
)
_LOCKED: Final = "Close VirtualBox's window of this machine, if one is open."
_NO_MODULE_HINT: Final = (
    "VirtualBox's kernel module is not loaded: install virtualbox-dkms and the kernel's headers (or "
    "run /sbin/vboxconfig), and load it with: modprobe vboxdrv"
)
_NETWORKS: Final = (
    "Host-only networks are allowed in 192.168.56.0/21 only, unless /etc/vbox/networks.conf names "
    "others."
)
_ROOM: Final = "Free some disk space or memory on this computer."
# The first row that matches counts: the specific ones come first.
_ERRORS: Final[tuple[tuple[tuple[str, ...], type[DriverError], str], ...]] = (
    (
        ("VERR_VMX_NO_VMX", "VERR_SVM_NO_SVM", "VERR_VMX_MSR", "VERR_SVM_DISABLED",
         "VERR_SVM_IN_USE", "VERR_VMX_IN_VMX_ROOT_MODE", "VERR_NEM_NOT_AVAILABLE"),
        CannotError, _NO_HARDWARE,
    ),
    (
        ("VERR_VM_DRIVER_NOT_INSTALLED", "VERR_VM_DRIVER_VERSION_MISMATCH", "VERR_SUPDRV_",
         "Kernel driver not", "terminated unexpectedly during startup"),
        CannotError, _NO_MODULE_HINT,
    ),
    (  # a session that begins or ends just now, or VirtualBox's window of the machine
        ("already locked by a session", "already locked for a session", "while it is locked",
         "The object is not ready", "The session is not locked", "session state: Unlocking",
         "Failed to get a console object from the direct session"),
        TransientError, _LOCKED,
    ),
    (
        ("NS_ERROR_CALL_FAILED", "NS_ERROR_SOCKET_FAIL", "NS_ERROR_ABORT", "RPC_S_", "VBoxSVC",
         "ailed to create the VirtualBox object", "NS_ERROR_NOT_INITIALIZED"),
        TransientError, "",
    ),
    (
        ("Could not find a registered machine", "Could not find a snapshot", "VERR_FILE_NOT_FOUND",
         "VBOX_E_OBJECT_NOT_FOUND", "VERR_PATH_NOT_FOUND", "DHCP server does not exist",
         "The object functionality is limited",  # the machine is listed, and its files are gone
         "is not fully qualified"),  # a medium's uuid that is unknown by now is taken for a path
        GoneError, "",
    ),
    (("E_ACCESSDENIED", "Access denied"), InvalidError, _NETWORKS),
    (
        ("VERR_DISK_FULL", "VERR_NO_MEMORY", "VERR_NO_LOW_MEMORY", "OUT_OF_MEMORY", "E_OUTOFMEMORY"),
        QuotaError, _ROOM,
    ),
    (
        ("already exists", "VERR_ALREADY_EXISTS", "VBOX_E_OBJECT_IN_USE", "VBOX_E_INVALID_VM_STATE",
         "VBOX_E_INVALID_OBJECT_STATE", "is not currently running", "Already paused",
         "cannot be deleted, because"),
        ConflictError, "",
    ),
    (
        ("NS_ERROR_INVALID_ARG", "E_INVALIDARG", "VBOX_E_NOT_SUPPORTED", "E_NOTIMPL",
         "NS_ERROR_NOT_IMPLEMENTED", "Unknown option", "Syntax error", "Invalid ",
         "Use --resizebyte if this is intended"),
        InvalidError, "",
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """A port of this computer's that NAT passes on."""

    name: str
    host: str
    port: int
    inner: int


@dataclasses.dataclass(frozen=True, slots=True)
class HostOnly:
    """A host-only adapter of this computer."""

    name: str
    address: str
    netmask: str
    network: str  # VirtualBox's name of the network, which its DHCP server has as well
    dhcp: bool  # this computer's side takes its own address by DHCP


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot: its name, VirtualBox's id of it and when we took it (0: not by us)."""

    label: str
    ident: str
    at: float


@dataclasses.dataclass(frozen=True)
class Vm:
    """What showvminfo says of one virtual machine."""

    values: dict[str, str]

    @property
    def state(self) -> HostState:
        return _STATES.get(self.values.get("VMState", ""), HostState.ERROR)

    @property
    def locked(self) -> bool:
        """A session has it: it runs, or is shown, or has not quite ended."""
        return bool(self.values.get("SessionName"))

    @property
    def forwards(self) -> dict[str, Forward]:
        rows = (value for key, value in self.values.items() if key.startswith("Forwarding("))
        found = (_FORWARD.match(row) for row in rows)
        return {m[1]: Forward(m[1], m[3], int(m[4]), int(m[6])) for m in found if m}

    @property
    def shares(self) -> set[str]:
        return {v for k, v in self.values.items() if k.startswith("SharedFolderNameMachineMapping")}

    @property
    def snapshots(self) -> list[Taken]:
        """Oldest first; those that are not ours, or of one time, in VirtualBox's order."""
        found = []
        for key, label in self.values.items():
            if re.fullmatch(r"SnapshotName(-\d+)*", key):
                tail = key.removeprefix("SnapshotName")
                mark = _MARK.match(self.values.get(f"SnapshotDescription{tail}", ""))
                ident = self.values.get(f"SnapshotUUID{tail}", "")
                found.append(Taken(label, ident, float(mark[1]) if mark else 0.0))
        return sorted(found, key=lambda one: one.at)


def version(text: str) -> tuple[int, int, int] | None:
    """Of `--version`, such as 7.2.22_Debianr175245."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def machines(text: str) -> dict[str, str]:
    """uuid -> name, of `list vms`; the name may be INACCESSIBLE."""
    return {ident: name for name, ident in _VM.findall(_plain_names(text))}


def vm(text: str) -> Vm:
    """Of `showvminfo --machinereadable`."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        found = _PAIR.match(line)
        if found:
            values[found[1] or found[2]] = found[3] if found[3] is not None else found[4]
    return Vm(values)


def records(text: str, first: str) -> list[dict[str, str]]:
    """Blocks of `Key:   value` lines (list hdds, dvds, hostonlyifs, dhcpservers).

    A block begins at a line of the key `first`.
    """
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == first and not line.startswith(" "):
            found.append({})
        if colon and found:
            found[-1].setdefault(key.strip(), value.strip())
    return found


def host_only(text: str) -> list[HostOnly]:
    """Of `list hostonlyifs`."""
    return [
        HostOnly(
            row["Name"], row.get("IPAddress", ""), row.get("NetworkMask", ""),
            row.get("VBoxNetworkName", ""), row.get("DHCP") == "Enabled",
        )
        for row in records(text, "Name")
    ]  # fmt: skip


def fixed_addresses(text: str) -> dict[str, tuple[str, str]]:
    """Machine's uuid -> (network, address that its DHCP server keeps for it), of `list dhcpservers`."""
    found: dict[str, tuple[str, str]] = {}
    network = ident = ""
    for line in text.splitlines():
        key, _, value = line.strip().partition(":")
        if key == "NetworkName":
            network, ident = value.strip(), ""
        elif key == "Individual Config":
            owner = re.search(r"VM NIC:\s+([0-9a-f-]{36}) slot", value)
            ident = owner[1] if owner else ""
        elif key == "Fixed Address" and ident:
            found[ident] = (network, value.strip())
    return found


def extra_data(text: str) -> str:
    """Of `getextradata`; "" when there is none."""
    found = re.search(r"^Value: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def capacity(text: str) -> int:
    """MiB, of `showmediuminfo`; 0 when it does not say."""
    found = _CAPACITY.search(text)
    return int(found[1]) if found else 0


def created_interface(text: str) -> str:
    """The adapter's name, of `hostonlyif create`."""
    found = re.search(r"Interface '([^']+)' was successfully created", text)
    return found[1] if found else ""


def hardware_virtualisation(text: str) -> bool:
    """Of `list hostinfo`; True when it does not say (Apple's processors)."""
    return "Processor supports HW virtualization: no" not in text


def error(call: str, text: str) -> DriverError:
    """A failed call as the contract's kind, with VirtualBox's own words."""
    words = "\n".join(_told(text)) or text.strip()[-400:] or "no reason given"
    told = f"VBoxManage {call}: {words}"
    for parts, kind, hint in _ERRORS:
        if any(part in words for part in parts):
            return kind(told, hint=hint)
    return DriverError(told)


def _told(text: str) -> Iterator[str]:
    """VBoxManage's error lines without their mark; where in its source they arose is not told."""
    for line in text.splitlines():
        mark, _, rest = line.partition("VBoxManage: error: ")
        if rest and not mark and not rest.startswith("Context: "):
            yield rest.strip()


def _plain_names(text: str) -> str:
    """`<inaccessible> {uuid}` has no quotes; the parser wants them."""
    return re.sub(r"^<inaccessible> \{", '"<inaccessible>" {', text, flags=re.MULTILINE)
