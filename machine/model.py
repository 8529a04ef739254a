"""Values that describe a machine: what is stored, and nothing that acts."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
from collections.abc import Mapping

DEFAULT_ENGINE_PORT = 2376
DEFAULT_SSH_PORT = 22


class Phase(enum.Enum):
    """How far a machine has come; a record that is not READY may be resumed or removed."""

    CREATING = "creating"
    READY = "ready"
    REMOVING = "removing"


class StepStatus(enum.Enum):
    """The journal writes DOING before a step's first side effect and DONE after its last."""

    DOING = "doing"
    DONE = "done"


@dataclasses.dataclass(frozen=True, slots=True)
class JournalEntry:
    """One step of create: its name, how far it is, and when that was written (RFC 3339, UTC)."""

    step: str
    status: StepStatus
    at: str


@dataclasses.dataclass(frozen=True, slots=True)
class SshEndpoint:
    """Where and as whom to log in. `key_path` None means the user's agent and default keys."""

    host: str
    port: int = DEFAULT_SSH_PORT
    user: str = "root"
    key_path: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class EngineOptions:
    """docker-machine's --engine-* flags, in the order they were given."""

    labels: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    storage_driver: str = ""
    opts: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    install_url: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class AuthFiles:
    """--tls-* flags frozen at create; empty means the store's own `certs/` (so a store can move)."""

    ca_cert: str = ""
    ca_key: str = ""
    client_cert: str = ""
    client_key: str = ""
    sans: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Deployed:
    """What the last provisioning put on the host; empty strings before the first."""

    bundle: str = ""  # sha256 of the agent bundle
    init: str = ""  # "systemd" or "supervise"
    os: str = ""  # os-release PRETTY_NAME
    server_not_after: str = ""  # RFC 3339 end of the server certificate


@dataclasses.dataclass(frozen=True, slots=True)
class MachineRecord:
    """Everything that the store keeps of a machine. Holds no secret, by construction of OptionSpec.

    `driver` is the name as given (`generic` stays `generic`); `driver_options` the non-secret
    options by OptionSpec name; `driver_state` what the driver yielded from create (ids it made).
    `address` is the host part that clients reach the engine by ("" before it is known).
    `local` machines are this computer: no SSH. `imported` marks a docker-machine record that is
    shown but not yet managed by us.
    """

    name: str
    uuid: str
    driver: str
    created: str
    phase: Phase = Phase.CREATING
    driver_options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    driver_state: Mapping[str, object] = dataclasses.field(default_factory=dict)
    engine: EngineOptions = EngineOptions()
    auth: AuthFiles = AuthFiles()
    ssh: SshEndpoint | None = None
    address: str = ""
    engine_port: int = DEFAULT_ENGINE_PORT
    local: bool = False
    deployed: Deployed = Deployed()
    journal: tuple[JournalEntry, ...] = ()
    imported: bool = False

    @property
    def url(self) -> str:
        """`tcp://HOST:PORT` for DOCKER_HOST, IPv6 in brackets; "" while the address is unknown."""
        return engine_url(self.address, self.engine_port) if self.address else ""

    def with_changes(self, **changes: object) -> MachineRecord:
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # checked at run time


def engine_url(address: str, port: int) -> str:
    """`tcp://address:port`, with the brackets that an IPv6 literal needs (RFC 3986 3.2.2)."""
    return f"tcp://{bracketed(address)}:{port}"


def bracketed(address: str) -> str:
    """The address as it stands in a URL."""
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return address
    return f"[{address}]" if version == 6 else address
