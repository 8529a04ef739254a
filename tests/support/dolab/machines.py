"""What runs behind droplets."""

import itertools
from typing import Protocol

from tests.support.dolab.catalogue import Doc


class Machines(Protocol):
    """What runs behind the droplets. Called with the account's lock held: no method may wait."""

    def make(self, droplet: Doc, user_data: str, keys: list[str]) -> str:
        """Begin to make it; its address."""

    def on(self, ident: int) -> bool:
        """Whether it is up, which for a starting one means that it answers."""

    def off(self, ident: int) -> bool: ...

    def turn(self, ident: int, kind: str) -> None:
        """Begin power_on, power_off, shutdown, reboot, power_cycle."""

    def destroy(self, ident: int) -> None: ...


class InMemory:
    """Machines that do at once what they are told; a deaf one does not hear a shutdown."""

    def __init__(self) -> None:
        self.power: dict[int, bool] = {}
        self.deaf: set[int] = set()
        self._addresses = itertools.count(10)

    def make(self, droplet: Doc, user_data: str, keys: list[str]) -> str:
        self.power[droplet["id"]] = True
        return f"203.0.113.{next(self._addresses)}"

    def on(self, ident: int) -> bool:
        return self.power[ident]

    def off(self, ident: int) -> bool:
        return not self.power[ident]

    def turn(self, ident: int, kind: str) -> None:
        if kind == "shutdown" and ident in self.deaf:
            return
        self.power[ident] = kind not in {"power_off", "shutdown"}

    def destroy(self, ident: int) -> None:
        del self.power[ident]
