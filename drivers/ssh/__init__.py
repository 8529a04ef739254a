"""Driver `ssh` (docker-machine's `generic`): adopts a host that already answers SSH."""

from drivers.ssh.driver import DRIVER

__all__ = ["DRIVER"]
