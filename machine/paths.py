"""Where the store is: docker-machine's rules, so that both programs see the same machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def storage_path(flag: str | None, env: Mapping[str, str]) -> Path:
    """--storage-path, else MACHINE_STORAGE_PATH, else ~/.docker/machine; always absolute.

    The home folder is HOME (USERPROFILE on Windows), as docker-machine has it.
    """
    chosen = flag or env.get("MACHINE_STORAGE_PATH")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return home(env) / ".docker" / "machine"


def home(env: Mapping[str, str]) -> Path:
    """The user's home folder from the environment, else from the user database."""
    named = env.get("HOME") or env.get("USERPROFILE")
    return Path(named) if named else Path.home()


def cache_path(env: Mapping[str, str]) -> Path:
    """For what can be made again (the packed agent): XDG_CACHE_HOME, else ~/.cache."""
    named = env.get("XDG_CACHE_HOME")
    root = Path(named) if named else home(env) / ".cache"
    return root / "machine"
