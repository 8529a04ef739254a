"""What an operator can set for images and registries, and the limits of security.md C24."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from agent.values import frozen


@frozen
class Limits:
    """Caps on what one image may cost."""

    entries: int = 2_000_000  # tar entries in one layer
    path: int = 4096  # bytes in one name
    ratio: int = 100  # uncompressed bytes for one compressed
    ratio_floor: int = 1 << 30  # ... but this many are always allowed
    reserve_bytes: int = 256 << 20  # left free on the file system
    reserve_inodes: int = 4096
    xattrs: int = 100  # on one entry
    xattr_bytes: int = 65536
    partial_from: int = 32 << 20  # bytes: blobs that are kept beside being unpacked, see partial.py
    zstd_window_log: int = 27  # 128 MiB


@frozen
class Timeouts:
    """Seconds; `attempts` counts the first try."""

    connect: float = 15.0
    stall: float = 60.0  # a read without a byte; a window with less than `stall_bytes`
    stall_bytes: int = 4096
    attempts: int = 5
    backoff: float = 0.5  # doubled at each attempt
    backoff_limit: float = 30.0
    retry_after_limit: float = 300.0


_REALMS: Mapping[str, tuple[str, ...]] = {
    "docker.io": ("auth.docker.io",),
    "registry-1.docker.io": ("auth.docker.io",),
    "registry.gitlab.com": ("gitlab.com",),
}


@frozen
class RegistrySettings:
    """The agent's registry configuration.

    `mirrors`: base URLs for docker.io, tried in order before docker.io itself; an http:// one is
    used as given.  `insecure`: "host", "host:port" or CIDR; loopback always is.  `realms`: hosts
    beside the registry's own that may be sent its credentials.  `certificates`: folders with
    `HOST:PORT/{ca.crt,client.cert,client.key}`.
    """

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    realms: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(_REALMS))
    certificates: tuple[str, ...] = ("/etc/docker/certs.d", "/etc/machine/certs.d")
    parallel_layers: int = 4
    user_agent: str = "docker/28.5.2 machine-agent"
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
