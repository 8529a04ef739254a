"""The driver `nimbus`, by the entry point of pyproject.toml."""

from machine_driver_nimbus.driver import DRIVER

__all__ = ["DRIVER"]
