"""A docker-machine plugin binary behind our contract.

The protocol knows no tag, no idempotent create and no inventory, so the bridge keeps what it can:
driver.json says before Create that it begins, and has the driver's configuration (its ids) from
every few seconds of Create and from its end. A create that was cut off is undone by the plugin's
own Remove, then made anew.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from drivers.api import Address, DriverContext, HostState, Made, SshLogin, Via
from drivers.errors import AuthError, DriverError, GoneError, TransientError
from drivers.options import OptionSpec
from drivers.plugins.child import still_there
from drivers.plugins.flags import Flags
from drivers.plugins.folder import CREATED, CREATING, REMOVED, STATE_FILE, Folder, Kept
from drivers.plugins.session import Binary, Session, opened
from drivers.plugins.vault import Json, needed
from drivers.polling import Backoff, NotYet, wait_until

T = TypeVar("T")
ENGINE_PORT: Final = 2376
TURN_SECONDS: Final = 300.0  # until the provider shows what was asked for
OUTLIVES_SECONDS: Final = 30.0  # a plugin whose command was killed ends itself after ten
_PAUSES: Final = Backoff(first=0.1, factor=1.6, most=2.0)  # under the plugin's heartbeat
_HOST: Final = re.compile(r"[A-Za-z0-9_:]([A-Za-z0-9_.:%-]{0,251}[A-Za-z0-9_])?")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
# docker-machine's state.State, by number
_STATES: Final = (
    HostState.NONE,
    HostState.RUNNING,
    HostState.PAUSED,
    HostState.SAVED,
    HostState.STOPPED,
    HostState.STOPPING,
    HostState.STARTING,
    HostState.ERROR,
    HostState.TIMEOUT,
    HostState.NOT_FOUND,
)
_ALIVE: Final = frozenset(
    {
        HostState.RUNNING,
        HostState.PAUSED,
        HostState.SAVED,
        HostState.STOPPING,
        HostState.STARTING,
    }
)


class PluginDriver:
    """One plugin binary. Its flags are read once, at the first look."""

    adopts = False

    def __init__(self, binary: Binary) -> None:
        self.name = binary.name
        self.summary = f"docker-machine's plugin {binary.path}"
        self._binary = binary
        self._known: Flags | None = None
        self._reading = threading.Lock()

    @property
    def options(self) -> tuple[OptionSpec, ...]:
        """Asks the plugin, the first time. Raises DriverError when it is none."""
        return self._flags().specs

    def check(self, ctx: DriverContext) -> list[str]:
        if Folder(ctx.folder, ctx.name).load().stage in {CREATING, CREATED}:
            return []  # it is there already, for better or worse: create knows
        with self._open(ctx) as session:
            try:
                self._configure(ctx, session)
                session.work("PreCreateCheck")
            except (AuthError, TransientError):
                raise
            except DriverError as err:
                return [err.message]
        return []

    def create(self, ctx: DriverContext) -> Iterator[Made]:
        folder = Folder(ctx.folder, ctx.name)
        kept = folder.load()
        if kept.stage == CREATING:
            self._undo(ctx, folder, kept)
        if kept.stage != CREATED:
            self._create(ctx, folder)
            yield Made("config", STATE_FILE, f"Created by docker-machine-driver-{self.name}")
        elif not ctx.state.get("config"):
            yield Made("config", STATE_FILE)

    def remove(self, ctx: DriverContext) -> None:
        folder = Folder(ctx.folder, ctx.name)
        kept = folder.load()
        if not kept.stage:
            return  # Create was never asked for
        with self._ready(ctx, folder, kept) as session:
            _remove(ctx, session)
        folder.mark(REMOVED, kept)

    def state(self, ctx: DriverContext) -> HostState:
        folder = Folder(ctx.folder, ctx.name)
        kept = folder.load()
        if not kept.stage:
            return HostState.NOT_FOUND
        with self._ready(ctx, folder, kept) as session:
            return _state(session)

    def address(self, ctx: DriverContext) -> Address:
        folder = Folder(ctx.folder, ctx.name)
        kept = folder.load()
        if kept.stage != CREATED:
            raise DriverError("the plugin has not made the host yet")
        with self._ready(ctx, folder, kept) as session:
            return _address(session)

    def start(self, ctx: DriverContext) -> None:
        self._turn(ctx, "Start", HostState.RUNNING)

    def stop(self, ctx: DriverContext) -> None:
        self._turn(ctx, "Stop", HostState.STOPPED)

    def kill(self, ctx: DriverContext) -> None:
        self._turn(ctx, "Kill", HostState.STOPPED)

    def restart(self, ctx: DriverContext) -> None:
        self._turn(ctx, "Restart", HostState.RUNNING, always=True)

    # -- the plugin

    def _flags(self) -> Flags:
        with self._reading:
            if self._known is None:
                with opened(self._binary, _Direct(), self.name, {}) as session:
                    self._known = session.flags()
            return self._known

    def _secrets(self, ctx: DriverContext) -> dict[str, str]:
        return {spec.name: ctx.text(spec.name) for spec in self._flags().specs if spec.secret}

    def _open(self, ctx: DriverContext) -> AbstractContextManager[Session]:
        return opened(self._binary, ctx.door, ctx.name, self._secrets(ctx))

    @contextlib.contextmanager
    def _ready(self, ctx: DriverContext, folder: Folder, kept: Kept) -> Iterator[Session]:
        """A session whose driver is the machine's."""
        secrets = self._secrets(ctx)
        for spec in self._flags().specs:
            if spec.name in needed(kept.config) and not secrets.get(spec.name):
                raise AuthError(
                    f"--{spec.name} has no value: credentials are not stored",
                    hint=f"Give it again: export {spec.env[0] if spec.env else spec.name}=...",
                )
        config = folder.config(kept, secrets)
        with self._open(ctx) as session:
            session.set_config(config)
            yield session

    def _configure(self, ctx: DriverContext, session: Session) -> dict[str, Json]:
        """docker-machine's way to a new driver: the bare configuration, then the flags."""
        session.set_config(Folder(ctx.folder, ctx.name).fresh())
        session.set_flags(self._flags(), ctx.options)
        return session.config()

    def _create(self, ctx: DriverContext, folder: Folder) -> None:
        secrets = self._secrets(ctx)
        with self._open(ctx) as session:
            config = self._configure(ctx, session)
            session.work("PreCreateCheck")  # some drivers find here what Create needs

            def save(stage: str, now: dict[str, Json]) -> None:
                folder.save(stage, now, secrets, session.identity)

            session.create(lambda: save(CREATING, config), save)

    def _undo(self, ctx: DriverContext, folder: Folder, kept: Kept) -> None:
        """What a create left that did not come to its end; its plugin must have ended before."""
        plugin = kept.plugin
        if plugin is not None:
            wait_until(
                lambda: not still_there(plugin) or NotYet(f"process {plugin.pid} is at work"),
                what="the end of the plugin of an earlier create",
                seconds=OUTLIVES_SECONDS,
                clock=ctx.clock,
            )
        try:
            with self._ready(ctx, folder, kept) as session:
                _remove(ctx, session)
        except (AuthError, TransientError):
            raise
        except DriverError as err:
            raise DriverError(
                f"an earlier create was cut off and can't be undone: {err.message}",
                hint=f"Look at the provider for what it left, then: machine rm -f {ctx.name}",
            ) from err
        folder.mark(REMOVED, kept)

    def _turn(
        self, ctx: DriverContext, method: str, wanted: HostState, *, always: bool = False
    ) -> None:
        folder = Folder(ctx.folder, ctx.name)
        kept = folder.load()
        with self._ready(ctx, folder, kept) as session:
            if _state(session) is wanted and not always:
                return
            session.work(method)
            _wait(ctx, session, method, wanted)
            folder.save(kept.stage, session.config(), self._secrets(ctx))


class _Direct:
    """drivers.api.Door for what is asked of the binary alone, before there is any machine."""

    def call(self, name: str, action: Callable[[], T]) -> T:
        del name
        return action()


def _state(session: Session) -> HostState:
    try:
        number = session.number("GetState")
    except GoneError:
        return HostState.NOT_FOUND
    return _STATES[number] if 0 <= number < len(_STATES) else HostState.ERROR


def _remove(ctx: DriverContext, session: Session) -> None:
    """Remove, and look: the protocol has no list, so the plugin's own view of the state decides."""
    try:
        session.work("Remove")
    except GoneError as err:
        if _state(session) is not HostState.NOT_FOUND:
            raise DriverError(err.message, hint=err.hint) from err
        return

    def gone() -> bool | NotYet:
        try:
            state = _state(session)
        except (AuthError, TransientError):
            raise
        except DriverError:
            return True  # it was removed, and there is nothing to say of it any more
        return NotYet(f"it is {state.value}") if state in _ALIVE else True

    wait_until(gone, what="the removal", seconds=TURN_SECONDS, clock=ctx.clock, backoff=_PAUSES)


def _wait(ctx: DriverContext, session: Session, method: str, wanted: HostState) -> None:
    def there() -> bool | NotYet:
        state = _state(session)
        return state is wanted or NotYet(f"it is {state.value}")

    wait_until(there, what=method, seconds=TURN_SECONDS, clock=ctx.clock, backoff=_PAUSES)


def _address(session: Session) -> Address:
    key = session.text("GetSSHKeyPath")
    login = SshLogin(
        host=_sound(session.text("GetSSHHostname"), _HOST, "host"),
        port=_port(session.number("GetSSHPort")),
        user=_sound(session.text("GetSSHUsername"), _USER, "user"),
        key_path=key if key and Path(key).is_file() else None,
    )
    port = ENGINE_PORT
    with contextlib.suppress(DriverError, ValueError):
        port = _port(urlsplit(session.text("GetURL")).port or ENGINE_PORT)
    host = _sound(session.text("GetIP"), _HOST, "address")
    return Address(host, engine_port=port, via=Via.SSH, ssh=login)


def _sound(text: str, pattern: re.Pattern[str], what: str) -> str:
    """What goes to ssh's command line as well: no leading dash, nothing that a shell reads."""
    if not pattern.fullmatch(text):
        raise DriverError(f"the plugin's {what} is none: {text[:60]!r}")
    return text


def _port(number: int) -> int:
    if not 0 < number < 65536:
        raise DriverError(f"the plugin's port is none: {number}")
    return number
