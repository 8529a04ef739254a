"""Build arguments: given ones, ARGs before the first FROM, ARGs of a stage, predefined ones.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

# Usable without an ARG, and kept out of history and cache unless there is one (moby's builtins).
PREDEFINED: Final = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


class BuildArgs:
    """One build's arguments; `stage()` begins a new scope with the same globals."""

    def __init__(
        self,
        given: Mapping[str, str | None],
        platform: Mapping[str, str],
        shared: BuildArgs | None = None,
    ) -> None:
        self._given = {name: value for name, value in given.items() if value is not None}
        self._platform = platform
        self.globals: dict[str, str | None] = {} if shared is None else shared.globals
        self.used: set[str] = set() if shared is None else shared.used
        self._allowed: dict[str, str | None] = {}

    def stage(self) -> BuildArgs:
        return BuildArgs(self._given, self._platform, self)

    def add_global(self, name: str, default: str | None) -> None:
        self.globals[name] = default
        self.used.add(name)

    def add(self, name: str, default: str | None) -> None:
        self._allowed[name] = default
        self.used.add(name)

    def unused(self) -> list[str]:
        """Given, but never asked for."""
        return sorted(set(self._given) - self.used - PREDEFINED)

    def for_from(self) -> dict[str, str]:
        """What FROM may use."""
        found = dict(self._platform)
        for name, default in self.globals.items():
            value = self._given.get(name, default)
            if value is not None:
                found[name] = value
        return found

    def allowed(self, env: Iterable[str]) -> dict[str, str]:
        """What the stage's instructions see, but for names that ENV has set."""
        found: dict[str, str] = {}
        for name in sorted({*self._allowed, *(PREDEFINED & set(self._given))} - set(env)):
            value = self._value(name)
            if value is not None:
                found[name] = value
        return found

    def _value(self, name: str) -> str | None:
        if name in self._given:
            return self._given[name]
        default = self._allowed.get(name)
        if default is not None:
            return default
        shared = self.globals.get(name)
        return self._platform.get(name) if shared is None else shared

    def shown(self, values: Mapping[str, str]) -> list[str]:
        """Those of `values` that history and cache know, as name=value."""
        return [
            f"{name}={value}"
            for name, value in sorted(values.items())
            if name not in PREDEFINED or name in self._allowed
        ]
