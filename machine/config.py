"""Names and limits that hold for the whole command."""

from __future__ import annotations

from typing import Final

DEFAULT_MACHINE: Final = "default"
OUTPUT_LIMIT: Final = 1 << 20  # bytes kept of what a host says (security.md case 144)
CONNECT_TIMEOUT: Final = (
    15.0  # seconds for the TCP connection (docker-machine's generic state dial)
)
BOOT_TIMEOUT: Final = 180.0  # seconds until a booting host answers SSH (docker-machine: 60 x 3 s)
BOOTED_ENGINE_TIMEOUT: Final = 120.0  # after a start: SSH answers before the rest of the boot
ENGINE_TIMEOUT: Final = 30.0  # seconds until the engine port answers (docker-machine: 10 x 3 s)
PROVISION_TIMEOUT: Final = 900.0  # seconds for one remote run, package downloads included
CLOCK_SKEW_LIMIT: Final = 50 * 60.0  # seconds: certificates are backdated by one hour (C11)
