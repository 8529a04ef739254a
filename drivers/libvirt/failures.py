"""libvirt's errors as the contract's kinds. Pure: codes are virterror.h's, texts the daemon's own."""

from __future__ import annotations

from typing import Final

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

Kind = type[DriverError]

# virErrorNumber of libvirt/virterror.h
_BY_CODE: Final[dict[int, Kind]] = {
    2: QuotaError,  # NO_MEMORY
    3: CannotError,  # NO_SUPPORT
    4: InvalidError,  # UNKNOWN_HOST
    8: InvalidError,  # INVALID_ARG
    27: InvalidError,  # XML_ERROR
    28: ConflictError,  # DOM_EXIST
    29: AuthError,  # OPERATION_DENIED
    35: InvalidError,  # XML_DETAIL
    37: ConflictError,  # NETWORK_EXIST
    42: GoneError,  # NO_DOMAIN
    43: GoneError,  # NO_NETWORK
    45: AuthError,  # AUTH_FAILED
    49: GoneError,  # NO_STORAGE_POOL
    50: GoneError,  # NO_STORAGE_VOL
    55: ConflictError,  # OPERATION_INVALID
    67: InvalidError,  # CONFIG_UNSUPPORTED
    68: TransientError,  # OPERATION_TIMEOUT
    72: GoneError,  # NO_DOMAIN_SNAPSHOT
    74: CannotError,  # ARGUMENT_UNSUPPORTED
    76: ConflictError,  # STORAGE_POOL_BUILT
    79: AuthError,  # AUTH_CANCELLED
    80: GoneError,  # NO_DOMAIN_METADATA
    84: CannotError,  # OPERATION_UNSUPPORTED
    86: TransientError,  # AGENT_UNRESPONSIVE
    87: ConflictError,  # RESOURCE_BUSY
    88: AuthError,  # ACCESS_DENIED
    90: ConflictError,  # STORAGE_VOL_EXIST
    92: InvalidError,  # XML_INVALID_SCHEMA
    94: AuthError,  # AUTH_UNAVAILABLE
}
# What several codes (system error, internal error, operation failed) say in words only.
_BY_TEXT: Final[tuple[tuple[str, Kind], ...]] = (
    ("no space left on device", QuotaError),
    ("cannot allocate memory", QuotaError),
    ("disk quota exceeded", QuotaError),
    ("permission denied", AuthError),
    ("authentication", AuthError),
    ("host key verification failed", AuthError),
    ("non-migratable device", CannotError),
    ("migration is disabled", CannotError),
    ("already exists", ConflictError),
    ("already in use", ConflictError),
    ("directory not empty", ConflictError),
    ("is already active", ConflictError),
    ("has asynchronous jobs running", TransientError),  # another command's volume is being made
    ("connection reset", TransientError),
    ("connection timed out", TransientError),
    ("broken pipe", TransientError),
    ("end of file while reading", TransientError),
    ("resource temporarily unavailable", TransientError),
    ("cannot acquire state change lock", TransientError),
    ("client socket is closed", TransientError),
)
_HINTS: Final[tuple[tuple[str, str], ...]] = (
    (
        "failed to connect socket",
        "Is libvirtd running? (apt install libvirt-daemon-system) Others: --libvirt-uri",
    ),
    (
        "host key verification failed",
        "libvirt uses ssh here: log in to that host with ssh once, so that its key is known.",
    ),
    ("authentication unavailable", "Is the user in the group libvirt?"),
    ("access denied by policy", "Is the user in the group libvirt?"),
    ("non-migratable device", "Its memory can't be kept while it has a shared folder."),
    ("migration is disabled", "Its memory can't be kept while it has a shared folder."),
    ("no space left", "Free some space in the storage pool, or take another: --libvirt-pool."),
)


def failure(code: int, text: str) -> DriverError:
    """The DriverError for a libvirtError with that code and message; the text stays libvirt's."""
    low = text.lower()
    kind = _by_text(low) or _BY_CODE.get(code, DriverError)
    hint = next((said for part, said in _HINTS if part in low), "")
    return kind(f"libvirt: {text}", hint=hint)


def _by_text(low: str) -> Kind | None:
    return next((kind for part, kind in _BY_TEXT if part in low), None)
