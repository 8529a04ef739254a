"""The driver contract. Its comments are normative; `drivers.testkit` holds drivers to them.

A driver makes a host that answers SSH (or is this computer) and unmakes it. It never installs
anything on the host. A driver is an object without state of its own: everything that a call needs
comes in a `DriverContext`, everything that must be kept goes out as `Made`. All verbs may be called
from any thread, for different machines at the same time; for one machine the caller makes sure that
verbs do not overlap.

Every verb raises `drivers.errors.DriverError` and nothing else. No verb waits without a deadline:
`drivers.polling.wait_until` is the only loop.

A driver is published by an entry point of the group `machine.drivers`, whose name is the driver's
name on the command line and whose value is the driver object. Importing the module must be cheap:
a provider's SDK is imported inside the verbs.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from drivers.errors import DriverError
from drivers.options import OptionSpec, Value
from drivers.polling import Clock

T = TypeVar("T")


class HostState(enum.Enum):
    """docker-machine's state names, and one for a host that the provider does not know."""

    NONE = ""
    RUNNING = "Running"
    PAUSED = "Paused"
    SAVED = "Saved"
    STOPPED = "Stopped"
    STOPPING = "Stopping"
    STARTING = "Starting"
    ERROR = "Error"
    TIMEOUT = "Timeout"
    NOT_FOUND = "Not Found"


class Via(enum.Enum):
    """How the provisioner gets to the host."""

    SSH = "ssh"
    LOCAL = "local"  # this computer: no SSH, sudo when not root


@dataclasses.dataclass(frozen=True, slots=True)
class SshLogin:
    """`key_path` None: the user's SSH agent and default keys are tried."""

    host: str
    port: int = 22
    user: str = "root"
    key_path: str | None = None
    host_keys: tuple[
        str, ...
    ] = ()  # "TYPE BASE64" lines that the driver seeded or read; () unknown


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where clients reach the engine (`host`, `engine_port`) and how the provisioner gets in."""

    host: str
    engine_port: int = 2376
    via: Via = Via.SSH
    ssh: SshLogin | None = None  # always given when via is SSH


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """Something that `create` has made or learnt; stored on disk before create is resumed.

    `key` and `value` (JSON types) go into the driver's state; `note` is a line for the user ("").
    """

    key: str
    value: object
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended. Output is text, cut at the runner's limit."""

    status: int
    stdout: str = ""
    stderr: str = ""


class Runner(Protocol):
    """Runs a program on this computer: argv list, no shell, no inherited stdin."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        """Raises DriverError when the program is missing or runs longer than `timeout` seconds."""


class Host(Protocol):
    """The machine itself, reached by its address; connects at the first call."""

    def run(self, command: str, *, timeout: float = 60.0) -> Completed:
        """Run a constant command line. Raises DriverError when the host can't be reached.

        A connection that the command itself ends (reboot) is a Completed with status -1.
        """

    def dial(self, host: str, port: int, *, timeout: float = 15.0) -> str:
        """ "" when a TCP connection opens within `timeout` seconds, else the reason why not."""


class Http(Protocol):
    """One HTTPS request to a provider. Verifies certificates; never logs headers."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 60.0,
    ) -> tuple[int, bytes]:
        """(status, body). Raises DriverError when no answer came."""


class Door(Protocol):
    """The one way to the provider: every call of its API, SDK or program goes through it.

    The caller's door says under --debug what is asked and how long it took; a test's door breaks
    calls (`drivers.faults`). So a call is one thing that the provider does or does not do.
    """

    def call(self, name: str, action: Callable[[], T]) -> T:
        """Do `action` and answer what it answers. `name` is the provider's own name of the call.

        `action` raises a kind of DriverError, never the SDK's errors.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class SeedRequest:
    """What a driver asks of the first boot.

    `user` is the login to make (or to give the key to, when the image has it). `user_data` is the
    user's own, merged into ours. `limit` is the provider's limit for user data in bytes, after its
    own encoding is taken off; above 2 KiB under it the seed is compressed.
    """

    user: str
    user_data: bytes = b""
    limit: int = 16 * 1024
    disk_grows: bool = True
    mounts: tuple[tuple[str, str, str], ...] = ()  # (what, where, file system type), for shares


@dataclasses.dataclass(frozen=True, slots=True)
class Seed:
    """What a host is told at its first boot: rendered from cloud-init/, the same at every call.

    The user data carries the host's private SSH keys, so that its public ones are known before the
    first contact: it is a secret, never in argv, logs or a readable file.
    """

    user: str
    key_path: str  # the login's private key in the machine's folder, mode 0600
    public_key: str  # "ssh-ed25519 BASE64 COMMENT"
    host_keys: tuple[str, ...]  # "TYPE BASE64" lines for SshLogin.host_keys
    user_data: bytes  # for the provider's user data field, or NoCloud's user-data
    meta_data: bytes  # NoCloud's meta-data
    network_config: bytes  # NoCloud's network-config: DHCP on every Ethernet card


class Seeds(Protocol):
    """Makes the seed of a machine; its keys are made at the first call and kept in its folder."""

    def seed(self, wanted: SeedRequest) -> Seed:
        """Raises DriverError when the user's own user data is unusable or all is too large.

        For `create` and `address` only: it writes into the machine's folder.
        """


@dataclasses.dataclass(frozen=True)
class DriverContext:
    """Everything that a verb may use.

    `options` holds every OptionSpec's value by name, secrets included; `state` what earlier calls of
    `create` yielded. `folder` is the machine's own folder (0700): keys and disks of the machine go
    there and vanish with it. `cache` is for what all machines share, such as base images; it may be
    emptied at any time when no verb runs. `uuid` is fixed before the first call: tag everything with
    it.
    """

    name: str
    uuid: str
    options: Mapping[str, Value]
    state: Mapping[str, object]
    folder: Path
    clock: Clock
    runner: Runner
    http: Http
    host: Host
    door: Door
    seeds: Seeds
    cache: Path

    def text(self, option: str) -> str:
        """An option's value as text. Raises DriverError when the driver has no such option."""
        return str(self._value(option))

    def number(self, option: str) -> int:
        value = self._value(option)
        if isinstance(value, bool) or not isinstance(value, int):
            raise DriverError(f"{option} is no number")
        return value

    def flag(self, option: str) -> bool:
        return self._value(option) is True

    def listed(self, option: str) -> tuple[str, ...]:
        value = self._value(option)
        if not isinstance(value, tuple):
            raise DriverError(f"{option} is no list")
        return value

    def _value(self, option: str) -> Value:
        try:
            return self.options[option]
        except KeyError:
            raise DriverError(f"this driver has no option {option}") from None


@runtime_checkable
class Driver(Protocol):
    """What every driver does."""

    @property
    def name(self) -> str:
        """The canonical name, `[a-z0-9]+`; an alias of the same driver is another entry point."""

    @property
    def summary(self) -> str:
        """One line for `machine drivers`."""

    @property
    def options(self) -> tuple[OptionSpec, ...]:
        """The options, in the order in which help shows them. Constant."""

    @property
    def adopts(self) -> bool:
        """True when the host exists before `create`, so that it can be inspected by the checks."""

    def check(self, ctx: DriverContext) -> list[str]:
        """Everything that is known to make `create` fail, all at once; [] when nothing is.

        Changes nothing anywhere. Reads ctx.options; ctx.state is empty for a new machine.
        """

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        """Make the host, and yield each thing as soon as it exists.

        The caller stores what was yielded before it asks for more, so a killed create leaves at
        most one thing unstored: it must be found again by ctx.uuid. Called again with the stored
        state it goes on where it stopped, and yields nothing when all is there.
        """

    def remove(self, ctx: DriverContext) -> None:
        """Unmake the host and everything that `create` made, found by state and by ctx.uuid.

        Returns when it is verified to be gone; what is gone already is no error. A driver that
        `adopts` leaves the host as it is.
        """

    def state(self, ctx: DriverContext) -> HostState:
        """The host's state now. NOT_FOUND when the provider says that it does not exist."""

    def address(self, ctx: DriverContext) -> Address:
        """Where the host is, from ctx.options and ctx.state. Raises DriverError when unknown yet.

        May ask the provider, since addresses change; makes no connection to the host.
        """


@runtime_checkable
class StartStop(Protocol):
    """The provider can turn the host off and on. Both are no-ops in the wanted state."""

    def start(self, ctx: DriverContext) -> None:
        """Turn on; returns when the provider says that it runs (not when SSH answers)."""

    def stop(self, ctx: DriverContext) -> None:
        """Shut down in order; returns when it is off."""


@runtime_checkable
class Restart(Protocol):
    """The host can be rebooted in order."""

    def restart(self, ctx: DriverContext) -> None:
        """Ask for the reboot and return when the host has gone down or a new boot is seen."""


@runtime_checkable
class Kill(Protocol):
    """The provider can cut the power."""

    def kill(self, ctx: DriverContext) -> None:
        """Turn off at once; returns when it is off."""


@runtime_checkable
class Suspend(Protocol):
    """The host can be put to sleep with its memory kept. Both are no-ops in the wanted state."""

    def suspend(self, ctx: DriverContext) -> None:
        """Returns when the state is SAVED (memory on disk) or PAUSED, whichever the provider has."""

    def resume(self, ctx: DriverContext) -> None:
        """Returns when it runs again."""


@runtime_checkable
class Snapshot(Protocol):
    """The host's disks (and memory, where the provider has it) can be kept and put back.

    Snapshots belong to the machine: `remove` takes them along.
    """

    def snapshot(self, ctx: DriverContext, label: str) -> None:
        """Keep the present under `label` ([A-Za-z0-9._-]+). Raises ConflictError when it is taken."""

    def snapshots(self, ctx: DriverContext) -> list[str]:
        """The labels, oldest first."""

    def restore(self, ctx: DriverContext, label: str) -> None:
        """Put the host back to `label`, and on if it was on. Raises GoneError for an unknown one."""

    def drop_snapshot(self, ctx: DriverContext, label: str) -> None:
        """Forget `label`; what is gone already is no error."""


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """What `resize` should change; 0 and "" leave as it is."""

    cpus: int = 0
    memory: int = 0  # MiB
    disk: int = 0  # GiB; never smaller than it is
    plan: str = ""  # the provider's own name of a size


@runtime_checkable
class Resize(Protocol):
    """The host can be made larger or smaller. It is stopped for that when the provider needs it."""

    def resize(self, ctx: DriverContext, size: Size) -> None:
        """Returns with the host in the state that it was in. Raises InvalidError, CannotError."""


@runtime_checkable
class Console(Protocol):
    """What the host wrote on its console can be read: for a host that does not answer SSH."""

    def console(self, ctx: DriverContext) -> str:
        """The last output, 64 KiB at most; as it was written, control characters included."""


@runtime_checkable
class Needs(Protocol):
    """What this computer must have before the driver can be used, for `machine drivers`."""

    def missing(self, ctx: DriverContext) -> list[str]:
        """Each thing that is missing, with how to get it; [] when all is there. Quick, offline."""


@runtime_checkable
class ListOwned(Protocol):
    """The provider can list what carries our tag (for `gc`)."""

    def owned(self, ctx: DriverContext) -> list[tuple[str, str]]:
        """(machine uuid, what it is) of everything that any machine of ours left."""


ABILITIES: tuple[tuple[str, type], ...] = (
    ("start/stop", StartStop),
    ("restart", Restart),
    ("kill", Kill),
    ("suspend", Suspend),
    ("snapshot", Snapshot),
    ("resize", Resize),
    ("console", Console),
    ("gc", ListOwned),
)


def abilities(driver: Driver) -> tuple[str, ...]:
    """What the driver can do beyond the compulsory verbs, in the words of `machine drivers`."""
    return tuple(word for word, protocol in ABILITIES if isinstance(driver, protocol))
