"""Driver `local`: this computer becomes the machine, without SSH."""

from drivers.local.driver import DRIVER

__all__ = ["DRIVER"]
