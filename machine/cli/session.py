"""What every command gets: where the store is, how to print, and the ports to the outside."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from machine.config import DEFAULT_MACHINE
from machine.errors import MachineError
from machine.paths import cache_path, storage_path

if TYPE_CHECKING:
    from drivers.registry import Plugins
    from machine.service import Service
    from machine.store import Store


@dataclasses.dataclass(frozen=True)
class Globals:
    """The flags that stand before the command."""

    storage_path: str | None = None
    machine: str = ""
    debug: bool = False
    fix_perms: bool = False
    tls_ca_cert: str = ""
    tls_ca_key: str = ""
    tls_client_cert: str = ""
    tls_client_key: str = ""


@dataclasses.dataclass
class Session:
    """One run of the command. `click.Context.obj`; take it with `click.pass_obj`.

    `program` is the name that the user typed (`machine` or `docker-machine`); `env` the process's
    environment, read here and nowhere else below `__main__`.
    """

    program: str
    env: Mapping[str, str]
    stdin: IO[str]
    stdout: IO[str]
    stderr: IO[str]
    flags: Globals = Globals()
    resume_hint: str = ""  # shown after Ctrl-C
    _closers: list[Callable[[], None]] = dataclasses.field(default_factory=list)

    @property
    def store_root(self) -> Path:
        return storage_path(self.flags.storage_path, self.env)

    @property
    def own_command(self) -> list[str]:
        """How this program is called again for the same store: what hints must say."""
        storage = self.flags.storage_path
        given = storage and self.env.get("MACHINE_STORAGE_PATH") != storage
        return [self.program, *(["--storage-path", str(storage)] if given else [])]

    @property
    def cache(self) -> Path:
        return cache_path(self.env)

    @functools.cached_property
    def store(self) -> Store:
        """The store, checked to be private (security.md case 166). Raises MachineError."""
        from machine.store import Store

        store = Store(self.store_root)
        if self.flags.fix_perms:
            for path in store.fix_modes():
                self.say(f"Made private: {path}")
        store.check_modes()
        return store

    @functools.cached_property
    def service(self) -> Service:
        """The use cases over this store; imports paramiko and the like only when they connect."""
        from machine.cli.wiring import make_service

        return make_service(self)

    @functools.cached_property
    def plugins(self) -> Plugins:
        """docker-machine's plugin binaries on this PATH, each asked for its flags once."""
        from machine.cli.wiring import make_plugins

        return make_plugins(self)

    def say(self, text: str) -> None:
        """An information line, on standard output as docker-machine has it."""
        print(text, file=self.stdout, flush=True)

    def warn(self, text: str) -> None:
        print(text, file=self.stderr, flush=True)

    def debug(self, text: str) -> None:
        if self.flags.debug:
            print(text, file=self.stderr, flush=True)

    def names_or_default(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The given names, else the machine called `default`. Raises MachineError without one."""
        if names:
            return names
        if self.store.exists(DEFAULT_MACHINE):
            return (DEFAULT_MACHINE,)
        raise MachineError('Error: No machine name(s) specified and no "default" machine exists')

    def name_or_default(self, name: str | None) -> str:
        return self.names_or_default((name,) if name else ())[0]

    def confirm(self, question: str) -> bool:
        """True for an answer that begins with y; the end of input is a no."""
        print(question, end="", file=self.stdout, flush=True)
        answer = self.stdin.readline()
        if not answer:
            self.say("")  # the end of input leaves the cursor behind the question
        return answer.strip().lower().startswith("y")

    def service_note(self, text: str) -> None:
        """A line of a command that may have a live step on the screen."""
        self.close()
        self.say(text)

    def on_exit(self, close: Callable[[], None]) -> None:
        """Call `close` when the command has ended, well or not."""
        self._closers.append(close)

    def close(self) -> None:
        """Leave the terminal as it was. May be called more than once."""
        for close in self._closers:
            close()
