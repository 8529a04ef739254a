"""`drivers.api.Door` as the command has it: says under --debug what a provider was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from drivers.errors import DriverError
from drivers.polling import Clock

T = TypeVar("T")


class ProviderDoor:
    """Names of calls and times only: arguments and answers may hold secrets."""

    def __init__(self, name: str, clock: Clock, debug: Callable[[str], None]) -> None:
        self._name = name
        self._clock = clock
        self._debug = debug

    def call(self, name: str, action: Callable[[], T]) -> T:
        begin = self._clock.monotonic()
        ended = "was cut off"
        try:
            answer = action()
            ended = "done"
            return answer
        except DriverError as err:
            ended = f"failed: {type(err).__name__}"
            raise
        finally:
            took = (self._clock.monotonic() - begin) * 1000
            self._debug(f"({self._name}) {name}: {ended} after {took:.0f} ms")
