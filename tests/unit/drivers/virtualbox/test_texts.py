"""What VBoxManage 7.2 printed, as it printed it."""

import pytest

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
from drivers.virtualbox import texts

# Debian's wrapper puts this on standard output before everything
WARNING = """WARNING: The character device /dev/vboxdrv does not exist.
\t Please install the virtualbox-dkms package and the appropriate
\t headers, most likely linux-headers-amd64.

\t You will not be able to start VMs until this problem is fixed.
"""
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"

INFO = f"""name="a"
ostype="Debian (64-bit)"
UUID="{UUID}"
memory=256
VMState="running"
VMStateChangeTime="2026-11-23T22:00:04.000000000"
storagecontrollername0="disks"
"disks-0-0"="/f/disk.vdi"
"disks-ImageUUID-0-0"="452fe74c-55e4-44e8-a5aa-564951780f93"
natnet1="nat"
nic1="nat"
Forwarding(0)="engine,tcp,127.0.0.1,21001,,2376"
Forwarding(1)="ssh,tcp,127.0.0.1,21000,,22"
hostonlyadapter2="vboxnet0"
uart1="0x03f8,4"
 rec_screen0
SessionName="headless"
SharedFolderNameMachineMapping1="work"
SharedFolderPathMachineMapping1="/home/me/work"
SnapshotName="third"
SnapshotUUID="a93d4bed-bd8c-49f3-93d1-764b5aa3f5a9"
SnapshotDescription="machine 1800000003.000"
SnapshotName-1="second"
SnapshotUUID-1="1af9c76b-40b7-4ba8-b8a2-7c3f27074a1f"
SnapshotDescription-1="machine 1800000002.000"
SnapshotName-1-1="by hand"
SnapshotUUID-1-1="9365ba8f-90e2-4238-9ee2-c740841aa289"
CurrentSnapshotName="by hand"
CurrentSnapshotUUID="9365ba8f-90e2-4238-9ee2-c740841aa289"
CurrentSnapshotNode="SnapshotName-1-1"
"""

SERVERS = f"""NetworkName:    HostInterfaceNetworking-vboxnet0
Dhcpd IP:       192.168.56.100
LowerIPAddress: 192.168.56.101
UpperIPAddress: 192.168.56.254
NetworkMask:    255.255.255.0
Enabled:        Yes
Global Configuration:
    minLeaseTime:     default
        1/legacy: 255.255.255.0
Groups:               None
Individual Config:    VM NIC: {UUID} slot 1, MAC 08:00:27:f0:6e:50
    Fixed Address:    192.168.56.77
    minLeaseTime:     default
NetworkName:    other
"""


@pytest.mark.parametrize("before", ["", WARNING])
class TestWithAndWithoutTheWarning:
    def test_version(self, before: str) -> None:
        assert texts.version(f"{before}7.2.22_Debianr175245\n") == (7, 2, 22)
        assert texts.version(f"{before}7.0.8r156879\n") == (7, 0, 8)
        assert texts.version(before) is None

    def test_machines(self, before: str) -> None:
        listed = f'{before}"a "b"" {{{UUID}}}\n<inaccessible> {{{UUID[:-1]}f}}\n'
        assert texts.machines(listed) == {UUID: 'a "b"', f"{UUID[:-1]}f": "<inaccessible>"}
        assert texts.machines(before) == {}

    def test_info(self, before: str) -> None:
        vm = texts.vm(before + INFO)
        assert vm.state is HostState.RUNNING
        assert vm.locked
        assert vm.values["disks-0-0"] == "/f/disk.vdi"
        assert vm.values["memory"] == "256"
        assert vm.forwards == {
            "ssh": texts.Forward("ssh", "127.0.0.1", 21000, 22),
            "engine": texts.Forward("engine", "127.0.0.1", 21001, 2376),
        }
        assert vm.shares == {"work"}
        assert [one.label for one in vm.snapshots] == ["by hand", "second", "third"]
        assert vm.snapshots[1].ident == "1af9c76b-40b7-4ba8-b8a2-7c3f27074a1f"

    def test_dhcp_servers(self, before: str) -> None:
        assert texts.fixed_addresses(before + SERVERS) == {
            UUID: ("HostInterfaceNetworking-vboxnet0", "192.168.56.77")
        }
        names = [row["NetworkName"] for row in texts.records(before + SERVERS, "NetworkName")]
        assert names == ["HostInterfaceNetworking-vboxnet0", "other"]

    def test_media(self, before: str) -> None:
        listed = (
            f"{before}UUID:           {UUID}\nParent UUID:    base\nState:          created\n"
            "Location:       /f/C: disk.vdi\nCapacity:       8 MBytes\n\n"
            "UUID:           x\nParent UUID:    y\nLocation:       /f/2.vdi\n"
        )
        rows = texts.records(listed, "UUID")
        assert [row["Location"] for row in rows] == ["/f/C: disk.vdi", "/f/2.vdi"]
        assert texts.capacity(before + "Capacity:       20000 MBytes\n") == 20000
        assert texts.capacity(before) == 0

    def test_extra_data(self, before: str) -> None:
        assert texts.extra_data(f"{before}Value: {UUID}\n") == UUID
        assert texts.extra_data(f"{before}No value set!\n") == ""

    def test_host_only(self, before: str) -> None:
        listed = (
            f"{before}Name:            vboxnet0\nGUID:            786f6276\nDHCP:            Disabled\n"
            "IPAddress:       192.168.56.1\nNetworkMask:     255.255.255.0\nStatus:          Up\n"
            "VBoxNetworkName: HostInterfaceNetworking-vboxnet0\n"
        )
        (one,) = texts.host_only(listed)
        assert one == texts.HostOnly(
            "vboxnet0",
            "192.168.56.1",
            "255.255.255.0",
            "HostInterfaceNetworking-vboxnet0",
            dhcp=False,
        )
        made = f"{before}0%...10%...100%\nInterface 'vboxnet1' was successfully created\n"
        assert texts.created_interface(made) == "vboxnet1"
        assert texts.created_interface(before) == ""


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("poweroff", HostState.STOPPED),
        ("aborted", HostState.STOPPED),
        ("saved", HostState.SAVED),
        ("aborted-saved", HostState.SAVED),
        ("paused", HostState.PAUSED),
        ("stopping", HostState.STOPPING),
        ("starting", HostState.STARTING),
        ("gurumeditation", HostState.ERROR),
        ("something new", HostState.ERROR),
    ],
)
def test_states(word: str, state: HostState) -> None:
    vm = texts.vm(f'VMState="{word}"\n')
    assert vm.state is state
    assert not vm.locked


def test_hardware_virtualisation() -> None:
    assert not texts.hardware_virtualisation("Processor supports HW virtualization: no\n")
    assert texts.hardware_virtualisation("Processor supports HW virtualization: yes\n")
    assert texts.hardware_virtualisation("")


def _raised(first: str, code: str = "", where: str = "") -> str:
    out = f"VBoxManage: error: {first}\n"
    if code:
        out += f"VBoxManage: error: Details: code {code}, component X, interface IX\n"
    return out + (
        f'VBoxManage: error: Context: "{where}" at line 1 of file X.cpp\n' if where else ""
    )


ERRORS: list[tuple[str, str, type[DriverError]]] = [
    ("showvminfo", _raised("Could not find a registered machine named 'nope'",
        "VBOX_E_OBJECT_NOT_FOUND (0x80bb0001)", "FindMachine(...)"), GoneError),
    ("snapshot", _raised("Could not find a snapshot named 'nope'"), GoneError),
    ("closemedium", _raised("Could not find file for the medium '/x.iso' (VERR_FILE_NOT_FOUND)",
        "VBOX_E_FILE_ERROR (0x80bb0004)"), GoneError),
    ("dhcpserver", _raised("DHCP server does not exist"), GoneError),
    ("showvminfo", _raised("The object functionality is limited", "E_ACCESSDENIED (0x80070005)",
        "LockMachine(a->session, LockType_Shared)"), GoneError),
    ("createvm", _raised("Machine settings file '/vms/a/a.vbox' already exists",
        "VBOX_E_FILE_ERROR (0x80bb0004)", "CreateMachine(...)"), ConflictError),
    ("storagectl", _raised("Storage controller named 'disks' already exists",
        "VBOX_E_OBJECT_IN_USE (0x80bb000c)"), ConflictError),
    ("convertfromraw", _raised("VDI: cannot create image '/d.vdi'") + _raised(
        'Cannot create the disk image "/d.vdi": VERR_ALREADY_EXISTS'), ConflictError),
    ("sharedfolder", _raised("Shared folder named 'share' already exists"), ConflictError),
    ("dhcpserver", _raised("DHCP server already exists"), ConflictError),
    ("modifyvm", _raised("A NAT rule of this name already exists",
        "NS_ERROR_INVALID_ARG (0x80070057)"), ConflictError),
    ("controlvm", _raised(f"Machine '{UUID}' is not currently running."), ConflictError),
    ("controlvm", _raised("Already paused"), ConflictError),
    ("snapshot", _raised("Cannot delete the current state of the running machine (machine state: "
        "Running)", "VBOX_E_INVALID_VM_STATE (0x80bb0002)"), ConflictError),
    ("snapshot", _raised("Snapshot 'first' of the machine 'a' cannot be deleted, because it is the "
        "current snapshot and has one child snapshot"), ConflictError),
    ("startvm", _raised("The machine 'a' is already locked by a session (or being locked or "
        "unlocked)", "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)"), TransientError),
    ("modifyvm", _raised("The machine 'a' is already locked for a session (or being unlocked)",
        "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)"), TransientError),
    ("unregistervm", _raised("Cannot unregister the machine 'a' while it is locked",
        "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)"), TransientError),
    ("showvminfo", _raised("The object is not ready", "E_ACCESSDENIED (0x80070005)")
        + _raised("The session is not locked (session state: Unlocked)",
        "NS_ERROR_UNEXPECTED (0x8000ffff)"), TransientError),
    ("showvminfo", _raised("Failed to get a console object from the direct session "
        "(VBOX_E_INVALID_OBJECT_STATE)", "VBOX_E_VM_ERROR (0x80bb0003)"), TransientError),
    ("closemedium", _raised("The given path '8d0d4bbf-0e68-440e-8c33-5e31971557b9' is not fully "
        "qualified", "VBOX_E_FILE_ERROR (0x80bb0004)"), GoneError),
    ("modifymedium", _raised("Error: Attempt to resize the medium from 1.0 MB to 20000.0 MB. Use "
        "--resizebyte if this is intended!"), InvalidError),
    ("list", _raised("Failed to create the VirtualBox object!"), TransientError),
    ("list", _raised("Code NS_ERROR_CALL_FAILED (0x800706be) - Call to remote object failed"),
        TransientError),
    ("modifyvm", _raised("Invalid RAM size: 99999999 MB (must be in range [4, 2097152] MB)",
        "NS_ERROR_INVALID_ARG (0x80070057)"), InvalidError),
    ("modifyvm", _raised("Invalid NIC type 'foo' specified for NIC 1"), InvalidError),
    ("modifyvm", "Oracle VirtualBox Command Line Management Interface Version 7.2.22\n"
        + _raised("Unknown option: --nope"), InvalidError),
    ("modifymedium", "0%...VBOX_E_NOT_SUPPORTED\n" + _raised("Failed to resize medium")
        + _raised("Shrinking is not yet supported for medium '/d.vdi'",
        "VBOX_E_NOT_SUPPORTED (0x80bb0009)"), InvalidError),
    ("hostonlyif", _raised("Code E_ACCESSDENIED (0x80070005) - Access denied (extended info not "
        "available)", "", "EnableStaticIPConfig(...)"), InvalidError),
    ("convertfromraw", _raised('Cannot write to "/d.vdi": VERR_DISK_FULL'), QuotaError),
    ("startvm", _raised("Out of memory condition when allocating memory with low physical backing. "
        "(VERR_NO_LOW_MEMORY)", "NS_ERROR_OUT_OF_MEMORY"), QuotaError),
    ("startvm", _raised("The virtual machine 'dm1' has terminated unexpectedly during startup with "
        "exit code 1 (0x1)", "NS_ERROR_FAILURE (0x80004005)"), CannotError),
    ("startvm", _raised("VT-x is not available (VERR_VMX_NO_VMX)", "NS_ERROR_FAILURE"), CannotError),
    ("startvm", _raised("VirtualBox can't operate in VMX root mode. Please disable the KVM kernel "
        "extension (VERR_VMX_IN_VMX_ROOT_MODE)", "NS_ERROR_FAILURE"), CannotError),
    ("startvm", _raised("Nonexistent host networking interface, name 'vboxnet0' "
        "(VERR_INTERNAL_ERROR)", "NS_ERROR_FAILURE (0x80004005)"), DriverError),
    ("hostonlyif", "0%...NS_ERROR_FAILURE\n" + _raised("Failed to create the host-only adapter")
        + _raised("VBoxNetAdpCtl: Error while adding new interface: failed to open /dev/vboxnetctl: "
        "No such file or directory", "NS_ERROR_FAILURE (0x80004005)"), DriverError),
    ("startvm", "", DriverError),
]  # fmt: skip


@pytest.mark.parametrize("before", ["", WARNING])
@pytest.mark.parametrize(("call", "text", "kind"), ERRORS)
def test_errors_are_the_contracts_kinds(
    before: str, call: str, text: str, kind: type[DriverError]
) -> None:
    err = texts.error(call, before + text)
    assert type(err) is kind
    assert err.message.startswith(f"VBoxManage {call}: ")
    assert "Context" not in err.message
    if text:
        first = next(x for x in text.splitlines() if x.startswith("VBoxManage: error: "))
        assert first.removeprefix("VBoxManage: error: ") in err.message


def test_what_can_be_done_is_said() -> None:
    def hint(text: str) -> str:
        return texts.error("startvm", _raised(text)).hint

    assert "modprobe vboxdrv" in hint("terminated unexpectedly during startup")
    assert "VT-x" in hint("VERR_SVM_DISABLED")
    assert "networks.conf" in hint("Code E_ACCESSDENIED")
