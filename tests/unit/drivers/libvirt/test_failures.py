"""libvirtd's own words (versions 9.0 and 10.0) become the contract's kinds."""

import pytest

from drivers.errors import (
    AuthError,
    CannotError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)
from drivers.libvirt.failures import failure

SAID = [
    (42, "Domain not found: no domain with matching uuid '0f8f...'", GoneError),
    (43, "Network not found: no network with matching name 'machine'", GoneError),
    (49, "Storage pool not found: no storage pool with matching name 'machine'", GoneError),
    (50, "Storage volume not found: no storage vol with matching name 'seed.iso'", GoneError),
    (72, "Domain snapshot not found: no domain snapshot with matching name 'two'", GoneError),
    (9, "operation failed: domain 'web' already exists with uuid 1111", ConflictError),
    (9, "operation failed: pool 'someone' already exists with uuid da55", ConflictError),
    (55, "Requested operation is not valid: domain is already running", ConflictError),
    (55, "Requested operation is not valid: storage pool 'machine' is not active", ConflictError),
    (1, "internal error: Network is already in use by interface virbr0", ConflictError),
    (90, "storage volume name 'machine-base-30e1.img' already in use.", ConflictError),
    (38, "cannot close file '/x.qcow2': No space left on device", QuotaError),
    (1, ("internal error: process exited while connecting to monitor: cannot set up guest memory "
        "'pc.ram': Cannot allocate memory"), QuotaError),
    (38, "Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied", AuthError),
    (45, "authentication failed: access denied by policy", AuthError),
    (94, ("authentication unavailable: no polkit agent available to authenticate action "
         "'org.libvirt.unix.manage'"), AuthError),
    (38, "Cannot recv data: Host key verification failed.: Connection reset by peer", AuthError),
    (67, "unsupported configuration: virtiofs does not yet support read-only mode", InvalidError),
    (67, ("unsupported configuration: Emulator '/usr/bin/qemu-system-x86_64' does not support virt "
         "type 'kvm'"), InvalidError),
    (84, ("Operation not supported: internal snapshots of a VM with pflash based firmware are not "
         "supported"), CannotError),
    (3, "this function is not supported by the connection driver: virStorageVolResize", CannotError),
    (55, ("Requested operation is not valid: cannot migrate domain: non-migratable device: "
         "0000:00:01.0:00.0/vhost-user-fs"), CannotError),
    (68, ("Timed out during operation: cannot acquire state change lock (held by "
         "monitor=remoteDispatchDomainCreate)"), TransientError),
    (86, "Guest agent is not responding: QEMU guest agent is not connected", TransientError),
    (38, "End of file while reading data: Input/output error", TransientError),
    (38, "Cannot write data: Broken pipe", TransientError),
    (1, "internal error: client socket is closed", TransientError),
    (1, "internal error: pool 'machine' has asynchronous jobs running.", TransientError),
]  # fmt: skip


@pytest.mark.parametrize(("code", "text", "kind"), SAID)
def test_each_text_has_its_kind_and_stays_as_it_is(
    code: int, text: str, kind: type[DriverError]
) -> None:
    told = failure(code, text)
    assert type(told) is kind
    assert told.message == f"libvirt: {text}"


def test_what_nobody_knows_is_a_plain_failure() -> None:
    told = failure(1, "internal error: wrong nlmsg len")
    assert type(told) is DriverError
    assert told.hint == ""


def test_an_absent_daemon_and_missing_rights_come_with_a_hint() -> None:
    absent = failure(
        38, "Failed to connect socket to '/run/libvirt-sock': No such file or directory"
    )
    assert "libvirt-daemon-system" in absent.hint
    denied = failure(94, "authentication unavailable: no polkit agent available")
    assert "group libvirt" in denied.hint
