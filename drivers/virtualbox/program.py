"""VBoxManage as the provider: every run goes through the context's door, named by its subcommand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from drivers.api import DriverContext
from drivers.errors import DriverError, GoneError, TransientError
from drivers.locks import locked
from drivers.polling import retried
from drivers.virtualbox import texts

TAG: Final = "machine/uuid"  # extra data of every virtual machine of ours
_QUICK: Final = 60.0  # seconds; a call takes 0.04 to 0.2 s, more while a disk is busy
_LOCK_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = 30.0  # a session that ends unlocks its machine within a few


class VBoxManage:
    """The program, for one verb on one machine, which it knows by the machine's uuid."""

    def __init__(self, ctx: DriverContext) -> None:
        self._ctx = ctx
        self._program = ctx.text("program")

    def run(self, *argv: str, timeout: float = _QUICK) -> str:
        """Once; its standard output. Raises the contract's kinds."""
        return self._ctx.door.call(argv[0], lambda: self.raw(*argv, timeout=timeout))

    def again(self, *argv: str, timeout: float = _QUICK) -> str:
        """As `run`, again after a TransientError: for calls that may be made twice."""
        return retried(
            lambda: self.run(*argv, timeout=timeout),
            clock=self._ctx.clock,
            seconds=_RETRY_SECONDS,
        )

    def raw(self, *argv: str, timeout: float = _QUICK) -> str:
        """Not through the door: for what asks nobody (`--version`)."""
        try:
            done = self._ctx.runner.run([self._program, *argv], timeout=timeout)
        except DriverError as err:
            if "no end within" in err.message:
                raise TransientError(err.message) from err
            raise
        if done.status != 0:
            raise texts.error(argv[0], f"{done.stdout}\n{done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One command of ours a computer at a time changes VirtualBox's settings and its ports."""
        lock = self._ctx.cache / "virtualbox.lock"
        with locked(
            lock, what="a change of VirtualBox", seconds=_LOCK_SECONDS, clock=self._ctx.clock
        ):
            yield

    # -- the machine itself

    def listed(self) -> str:
        """The name that VirtualBox has for it; "" when it does not know it."""
        return texts.machines(self.again("list", "vms")).get(self._ctx.uuid, "")

    def registered(self) -> bool:
        """Known, and its files are there."""
        return self.listed() not in {"", texts.INACCESSIBLE}

    def info(self) -> texts.Vm:
        """Raises GoneError when it is not known, or its files are gone."""
        return texts.vm(self.again("showvminfo", self._ctx.uuid, "--machinereadable"))

    def find(self) -> texts.Vm | None:
        try:
            return self.info()
        except GoneError:
            return None

    def modify(self, *argv: str) -> None:
        self.again("modifyvm", self._ctx.uuid, *argv)

    def media(self, kind: str) -> list[tuple[str, str]]:
        """(id, path) of the registered `hdds` or `dvds`."""
        rows = texts.records(self.again("list", kind), "UUID")
        return [(row["UUID"], row.get("Location", "")) for row in rows]
