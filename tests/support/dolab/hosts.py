"""Droplets that are lab hosts: a real first boot from the seed, real shutdowns, real sshd."""

import threading
from collections.abc import Callable

from tests.lab.cloudhosts import CloudHost, CloudHosts, CloudSeed
from tests.support.dolab.catalogue import Doc


class LabMachines:
    """tests.support.dolab.machines.Machines over the lab."""

    def __init__(self, hosts: CloudHosts) -> None:
        self.hosts = hosts
        self._working: list[threading.Thread] = []

    def make(self, droplet: Doc, user_data: str, keys: list[str]) -> str:
        seed = CloudSeed(str(droplet["id"]), user_data.encode(), tuple(keys), droplet["name"])
        return self.hosts.create(seed).ip

    def on(self, ident: int) -> bool:
        """As at DigitalOcean, "active" says nothing of SSH."""
        return self._host(ident).on

    def off(self, ident: int) -> bool:
        return not self._host(ident).on

    def turn(self, ident: int, kind: str) -> None:
        host = self._host(ident)
        verbs: dict[str, Callable[[], None]] = {
            "power_on": host.start,
            "power_off": host.cut,
            "shutdown": host.shut_down,
            "reboot": host.reboot,
        }
        work = threading.Thread(target=verbs.get(kind, lambda: _cycle(host)))
        self._working.append(work)
        work.start()

    def destroy(self, ident: int) -> None:
        self._host(ident).destroy()

    def close(self) -> None:
        """Wait for what was asked for, and leave no host."""
        for one in self._working:
            one.join()
        self.hosts.close()

    def _host(self, ident: int) -> CloudHost:
        found = self.hosts.find(str(ident))
        assert found is not None, f"no lab host of droplet {ident}"
        return found


def _cycle(host: CloudHost) -> None:
    host.cut()
    host.start()
