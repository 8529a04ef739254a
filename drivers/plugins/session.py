"""A plugin at work: started, greeted, asked, told to end. One session a verb."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from drivers.api import Door
from drivers.errors import DriverError
from drivers.options import Value
from drivers.plugins import gob
from drivers.plugins.child import Child, Identity, Spawner
from drivers.plugins.flags import Flags, read_flags, values_for
from drivers.plugins.folder import CREATED, CREATING, parse_config
from drivers.plugins.kinds import as_driver_error, printable
from drivers.plugins.rpc import EMPTY, Aside, Client, HangupError, RpcError
from drivers.plugins.vault import Json

T = TypeVar("T")
API_VERSION: Final = 1
ASK_SECONDS: Final = 60.0
WORK_SECONDS: Final = 600.0  # Start, Stop, Remove, the checks
CREATE_SECONDS: Final = 3600.0
_END_SECONDS: Final = 2.0  # for the answer to Close, and to the last question
_NO_SERVICE: Final = "can't find service"
_SHORT: Final = 4  # characters; a shorter secret is not looked for in what is shown


@dataclasses.dataclass(frozen=True)
class Binary:
    """A plugin that was found, and the way to start it and to show what it says."""

    name: str
    path: Path
    spawner: Spawner
    say: Callable[[str], None]
    debug: Callable[[str], None]


class Session:
    """Calls of one running plugin. Every method raises DriverError's kinds."""

    def __init__(self, client: Client, child: Child, door: Door, hide: Callable[[str], str]):
        self._client = client
        self._child = child
        self._door = door
        self._hide = hide

    @property
    def identity(self) -> Identity:
        return self._child.identity

    def text(self, method: str) -> str:
        answer = self._ask(method)
        if not isinstance(answer, str):
            raise DriverError(f"{method}: the plugin answered no text")
        return answer

    def number(self, method: str) -> int:
        answer = self._ask(method)
        if isinstance(answer, bool) or not isinstance(answer, int):
            raise DriverError(f"{method}: the plugin answered no number")
        return answer

    def work(self, method: str) -> None:
        """A verb without an answer: Start, Stop, Kill, Restart, Remove, PreCreateCheck."""
        self._ask(method, seconds=WORK_SECONDS)

    def flags(self) -> Flags:
        return read_flags(self._ask("GetCreateFlags"))

    def config(self) -> dict[str, Json]:
        return parse_config(self._ask("GetConfigRaw"))

    def set_config(self, config: Mapping[str, Json]) -> None:
        self._ask("SetConfigRaw", gob.BYTES, json.dumps(config).encode())

    def set_flags(self, flags: Flags, values: Mapping[str, Value]) -> None:
        old = self._client.service == "RpcServerDriver"
        self._ask("SetConfigFromFlags", gob.INTERFACE, values_for(flags, values, old=old))

    def create(
        self, begin: Callable[[], None], hear: Callable[[str, dict[str, Json]], None]
    ) -> None:
        """Create; `begin` is called just before. `hear` gets the driver's configuration every few
        seconds of it and at its end, with the stage CREATED when it has succeeded: a create that is
        cut off leaves its ids behind.
        """

        def during(answer: object) -> None:
            hear(CREATING, parse_config(answer))

        def action() -> None:
            stage = CREATING
            begin()
            try:
                aside = Aside("GetConfigRaw", during)
                self._client.call("Create", seconds=CREATE_SECONDS, aside=aside)
                stage = CREATED
            finally:
                with contextlib.suppress(RpcError, HangupError, DriverError):
                    last = self._client.call("GetConfigRaw", seconds=_END_SECONDS)
                    hear(stage, parse_config(last))

        self._door.call("Create", lambda: self._told("Create", action))

    def _ask(
        self,
        method: str,
        kind: gob.Type = EMPTY,
        value: object = None,
        seconds: float = ASK_SECONDS,
    ) -> object:
        def action() -> object:
            return self._client.call(method, kind, value, seconds=seconds)

        return self._door.call(method, lambda: self._told(method, action))

    def _told(self, method: str, action: Callable[[], T]) -> T:
        """net/rpc's exceptions as the contract's kinds."""
        try:
            return action()
        except RpcError as err:
            raise as_driver_error(method, self._hide(str(err))) from None
        except HangupError:
            words = self._hide(self._child.last_words())
            raise DriverError(f"{method}: the plugin ended early{printable_tail(words)}") from None


@contextlib.contextmanager
def opened(
    binary: Binary, door: Door, machine: str, secrets: Mapping[str, str]
) -> Iterator[Session]:
    """Start the plugin, and end it with the block. Raises DriverError when it is none of its kind.

    `machine` is the name before its lines; the values of `secrets` are shown nowhere.
    """

    def hide(text: str) -> str:
        for secret in secrets.values():
            if len(secret) >= _SHORT:
                text = text.replace(secret, "***")
        return text

    with contextlib.ExitStack() as stack:

        def start() -> Session:
            running = binary.spawner.spawn(
                [str(binary.path)],
                {"MACHINE_PLUGIN_TOKEN": "42", "MACHINE_PLUGIN_DRIVER_NAME": binary.name},
            )
            child = Child(
                running,
                lambda line: binary.say(f"({machine}) {printable(hide(line))}"),
                lambda line: binary.debug(f"({machine}) DBG | {printable(hide(line))}"),
            )
            ending = _Ending(child)
            stack.callback(ending.end)
            client = Client(child.connect(), child.wait)
            ending.client = client
            _agree(client)
            return Session(client, child, door, hide)

        yield door.call("GetVersion", lambda: _started(binary, start))


@dataclasses.dataclass
class _Ending:
    """The end of a plugin that may not have come far."""

    child: Child
    client: Client | None = None

    def end(self) -> None:
        orderly = False
        if self.client is not None and self.client.usable:
            with contextlib.suppress(RpcError, HangupError, DriverError):
                orderly = True
                self.client.call("Close", seconds=_END_SECONDS)
        if self.client is not None:
            self.client.close()
        self.child.close(orderly=orderly)


def _started(binary: Binary, start: Callable[[], Session]) -> Session:
    try:
        return start()
    except DriverError as err:
        raise type(err)(f"{binary.path}: {err.message}", hint=err.hint) from err
    except RpcError as err:
        raise DriverError(f"{binary.path}: {printable(str(err))}") from err
    except HangupError as err:
        raise DriverError(f"{binary.path}: the plugin hung up") from err


def _agree(client: Client) -> None:
    """The greeting and the version. Plugins of before docker-machine 0.5.1 have the old service."""
    client.greet(ASK_SECONDS)
    try:
        version = client.call("GetVersion", seconds=ASK_SECONDS)
    except RpcError as err:
        if _NO_SERVICE not in str(err):
            raise
        client.service = "RpcServerDriver"
        version = client.call("GetVersion", seconds=ASK_SECONDS)
    if version != API_VERSION:
        raise DriverError(f"the plugin has an incompatible API version ({version!r:.20})")


def printable_tail(words: str) -> str:
    """The plugin's last lines, ready to follow a message."""
    return f"\n{printable(words)}" if words.strip() else ""
