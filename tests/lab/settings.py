"""Where the lab keeps things."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """Two folders, both on a file system that overlayfs can write to (not itself an overlay).

    `cache`: what is expensive and shared (MACHINE_LAB_CACHE). `state`: running labs
    (MACHINE_LAB_STATE), one folder each.
    """

    cache: Path
    state: Path


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The user's settings or the defaults."""
    return Settings(
        cache=Path(environment.get("MACHINE_LAB_CACHE") or "/var/cache/machine-lab"),
        state=Path(environment.get("MACHINE_LAB_STATE") or "/var/lib/machine-lab"),
    )
