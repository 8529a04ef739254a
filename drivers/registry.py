"""Driver names to driver objects, by entry points; a driver is imported only when asked for."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from drivers.api import Driver
from drivers.errors import DriverError

GROUP = "machine.drivers"
Plugins = Callable[[str], Driver | None]  # a docker-machine plugin binary by its driver's name
# A source tree that is not installed has no entry points; these are pyproject.toml's.
_BUILT_IN: Mapping[str, str] = {
    "ssh": "drivers.ssh:DRIVER",
    "generic": "drivers.ssh:DRIVER",
    "local": "drivers.local:DRIVER",
    "libvirt": "drivers.libvirt:DRIVER",
    "virtualbox": "drivers.virtualbox:DRIVER",
    "aws": "drivers.aws:DRIVER",
    "amazonec2": "drivers.aws:DRIVER",
    "digitalocean": "drivers.digitalocean:DRIVER",
}


def names() -> list[str]:
    """Every name that `create --driver` takes, sorted."""
    found = {point.name for point in importlib.metadata.entry_points(group=GROUP)}
    return sorted(found | set(_BUILT_IN))


def built_in() -> list[str]:
    """The names of our own drivers, aliases too, as they stand in the documentation."""
    return list(_BUILT_IN)


def plugins(path: str) -> list[str]:
    """Names that only a docker-machine-driver-NAME binary on `path` (a PATH) has, sorted."""
    from drivers.plugins.finding import on_path

    return sorted(set(on_path(path)) - set(names()))


def load(name: str, plugins: Plugins | None = None) -> Driver:
    """The driver of that name; a plugin binary when no entry point has it.

    Raises DriverError when there is none or it can't be imported.
    """
    point = _entry_point(name)
    if point is None:
        found = plugins(name) if plugins else None
        return found or _missing(name)
    try:
        driver = point.load()
    except ImportError as err:
        raise DriverError(
            f'Driver "{name}" could not be loaded: {err}',
            hint=f"Its libraries may be missing: pip install 'machine[{name}]'",
        ) from err
    if not isinstance(driver, Driver):
        raise DriverError(f'Driver "{name}" ({point.value}) does not keep the driver contract')
    return driver


def default_name(env: Mapping[str, str], platform: str = sys.platform) -> str:
    """MACHINE_DRIVER, else `local` where containers can run on this computer, else `ssh`."""
    return env.get("MACHINE_DRIVER") or ("local" if platform == "linux" else "ssh")


def _entry_point(name: str) -> importlib.metadata.EntryPoint | None:
    for point in importlib.metadata.entry_points(group=GROUP, name=name):
        return point
    if name in _BUILT_IN:
        return importlib.metadata.EntryPoint(name, _BUILT_IN[name], GROUP)
    return None


def _missing(name: str) -> NoReturn:
    raise DriverError(
        f'Driver "{name}" not found. Do you have the plugin binary '
        f'"docker-machine-driver-{name}" accessible in your PATH?',
        hint=f"Installed drivers: {', '.join(names())}. Others are Python packages with an entry "
        f"point of the group {GROUP}.",
    )
