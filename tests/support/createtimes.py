"""How long `machine create` takes on the emulated Amazon, for one machine and for several at once.

    python -m tests.support.createtimes [--machines 10] [--pending 10]

Everything is real but the API: lab hosts that boot and run cloud-init, the command line, provisioning,
the first `docker version`. They all share this computer's processors, which at Amazon they do not.
`--pending` is how long the provider takes before an instance boots. Needs root, like the lab.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.cloudhosts import CloudHosts
from tests.lab.lab import open_lab, remove_stale
from tests.lab.settings import from_environment
from tests.support.installed import MACHINE
from tests.support.motolab import MotoLab


class Shop:
    """A store, and the commands of one user."""

    def __init__(self, folder: Path, cloud: MotoLab, mirror: str) -> None:
        self._cloud = cloud
        self._mirror = mirror
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "MACHINE_STORAGE_PATH": str(folder / "store"),
            "AWS_ACCESS_KEY_ID": "AKIALAB",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_ENDPOINT": cloud.url,
        }

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(MACHINE), *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode != 0:
            sys.exit(f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def create(self, name: str) -> float:
        """Seconds."""
        begun = time.monotonic()
        self.run(
            "create", "--driver", "aws", "--amazonec2-open-to", "10.77.0.0/16",
            "--engine-registry-mirror", self._mirror, name,
        )  # fmt: skip
        return time.monotonic() - begun

    def create_all(self, names: list[str]) -> float:
        """Seconds until the last one is there."""
        begun = time.monotonic()
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(self.create, names))
        return time.monotonic() - begun

    def remove_all(self) -> float:
        """Seconds; nothing may be left at the provider."""
        begun = time.monotonic()
        self.run("rm", "-y", *self.run("ls", "-q").split())
        if self._cloud.inventory():
            sys.exit(f"left over: {self._cloud.inventory()}")
        return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--machines", type=int, default=10)
    parser.add_argument("--pending", type=float, default=10.0)
    asked = parser.parse_args()
    settings = from_environment(os.environ)
    remove_stale(settings)
    lab = open_lab(settings, f"creates-{os.getpid()}", owner=os.getpid())
    try:
        with (
            tempfile.TemporaryDirectory(prefix="createtimes-") as folder,
            MotoLab(CloudHosts(lab), pending=asked.pending) as cloud,
        ):
            shop = Shop(Path(folder), cloud, lab.registry().url)
            shop.create("warm")  # the lab's layers, the store's authority
            one = shop.create("one")
            several = shop.create_all([f"m{number}" for number in range(asked.machines)])
            gone = shop.remove_all()
    finally:
        lab.down()
    print(
        f"one machine {one:.1f} s; {asked.machines} at once {several:.1f} s ({several / one:.2f}x); "
        f"rm of all {gone:.1f} s; of each {asked.pending:.0f} s are the provider's"
    )


if __name__ == "__main__":
    main()
