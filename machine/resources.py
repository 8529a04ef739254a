"""Data that ships beside the code: the units in `cloud-init/`, and scripts in the packages.

In a source tree (and an editable install) `cloud-init/` lies beside the package; a wheel installs
it below `share/machine/` (pyproject: data-files), whose place the wheel's own file list tells.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from pathlib import Path

from machine.errors import MachineError


def unit(name: str) -> str:
    """The text of cloud-init/units/NAME. Raises MachineError when the installation is broken."""
    return cloud_init(f"units/{name}")


def cloud_init(name: str) -> str:
    """The text of cloud-init/NAME. Raises MachineError when the installation is broken."""
    beside = Path(__file__).parents[1] / "cloud-init" / name
    if beside.is_file():
        return beside.read_text()
    wanted = f"share/machine/cloud-init/{name}"
    for file in importlib.metadata.files("machine") or ():
        if file.as_posix().endswith(wanted):
            return Path(str(file.locate())).read_text()
    raise MachineError(
        f"{name} is missing from this installation", hint="Reinstall: pip install machine"
    )


def script(package: str, name: str) -> str:
    """The text of a file that lies in a package."""
    return importlib.resources.files(package).joinpath(name).read_text()
