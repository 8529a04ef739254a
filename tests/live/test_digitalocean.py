"""`machine create --driver digitalocean` onto lab hosts, before the emulator of the API."""

import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cloudhosts import CloudHosts
from tests.lab.lab import Lab
from tests.lab.registry import Registry
from tests.lab.waiting import wait_until
from tests.support.dolab import Cloud, DoLab, Fault, Lag
from tests.support.dolab.hosts import LabMachines
from tests.support.installed import MACHINE

TOKEN = "dop_v1_5ecre7c0ffee5ecre7c0ffee5ecre7c0ffee5ecre7c0ffee5ecre7c0ffee"


class Laptop:
    """A user's computer: a store, the token in the environment, a docker client."""

    def __init__(self, folder: Path, docker: Path, registry: Registry, endpoint: str) -> None:
        self.folder = folder
        self.said = b""  # everything that any command printed
        self.argvs: set[bytes] = set()  # every command line that ran meanwhile
        self._docker = docker
        self._mirror = registry.url
        self.environment = {
            "PATH": f"{MACHINE.parent}:{docker.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "MACHINE_STORAGE_PATH": str(folder / "store"),
            "DIGITALOCEAN_ACCESS_TOKEN": TOKEN,
            "DIGITALOCEAN_END_POINT": endpoint,
            "DIGITALOCEAN_OPEN_TO": "10.0.0.0/8",
        }

    def run(self, *argv: str, timeout: float = 120, check: bool = True) -> str:
        """A command's standard output."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, env=self.environment, cwd=self.folder, **pipes) as process:  # type: ignore[call-overload]
            out, err = self._watched(process, timeout)
        self.said += out + err
        failed = check and process.returncode != 0
        assert not failed, f"{argv}: {process.returncode}\n{(out + err).decode()[-3000:]}"
        return str(out.decode().strip())

    def create(self, name: str, *more: str) -> None:
        self.run(*self.creating(name, *more), timeout=240)

    def creating(self, name: str, *more: str) -> list[str]:
        """The command line of a create."""
        mirror = ["--engine-registry-mirror", self._mirror]
        return [str(MACHINE), "-D", "create", "-d", "digitalocean", *more, *mirror, name]

    def machine(self, *arguments: str, timeout: float = 120) -> str:
        return self.run(str(MACHINE), *arguments, timeout=timeout)

    def docker(self, name: str, *arguments: str) -> str:
        script = f'said="$({MACHINE} env {name})" && eval "$said" && exec {self._docker} "$@"'
        return self.run("bash", "-c", script, "docker", *arguments)

    def _watched(self, process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes]:
        """What it printed; the command lines of this computer are read while it runs."""
        for _ in range(int(timeout / 0.05)):
            self.argvs |= _command_lines()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=0.05)
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"not within {timeout} s: {(out + err).decode()[-3000:]}")


@pytest.fixture
def machines(lab: Lab) -> Iterator[LabMachines]:
    made = LabMachines(CloudHosts(lab))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def dolab() -> Iterator[DoLab]:
    with DoLab() as made:
        yield made


@pytest.fixture
def cloud(dolab: DoLab, machines: LabMachines) -> Cloud:
    made = dolab.account(TOKEN, machines)
    made.lag = Lag(listed=2, known=1, new=1, action=1, attached=1, snapshot=1)
    return made


@pytest.fixture
def laptop(lab: Lab, registry: Registry, dolab: DoLab, cloud: Cloud, tmp_path: Path) -> Laptop:
    del cloud  # the token opens it
    return Laptop(tmp_path, lab.docker_cli(), registry, dolab.endpoint)


def test_a_droplet_from_create_to_rm(laptop: Laptop, cloud: Cloud, machines: LabMachines) -> None:
    laptop.create(
        "web", "--digitalocean-volume-size", "10", "--digitalocean-tags", "shop,web",
        "--digitalocean-monitoring", "--digitalocean-ipv6", "--digitalocean-backups",
    )  # fmt: skip
    assert b"First contact" not in laptop.said, "its keys were known before"
    (droplet,) = cloud.drops.values()
    uuid = _uuid(laptop, "web")
    assert droplet["tags"] == [f"machine:{uuid}", "shop", "web"]
    assert droplet["image"]["slug"] == "debian-13-x64"
    assert set(droplet["features"]) == {"backups", "ipv6", "monitoring"}
    address = laptop.machine("ip", "web")
    assert address == droplet["networks"]["v4"][1]["ip_address"]

    laptop.docker("web", "run", "-d", "--name", "site", "--restart", "always",
                  "-p", "80:80", "httpd")  # fmt: skip
    assert "It works" in _page(address)
    ident = droplet["id"]
    assert cloud.lets_in(ident, "tcp", 80, "192.0.2.9"), "what is published is for everybody"
    for port in (22, 2376):
        assert cloud.lets_in(ident, "tcp", port, "10.1.2.3")
        assert not cloud.lets_in(ident, "tcp", port, "192.0.2.9")

    laptop.machine("stop", "web")
    assert laptop.machine("status", "web") == "Stopped"
    assert not machines.on(ident)
    laptop.machine("start", "web")
    assert "It works" in _page(address)
    laptop.machine("restart", "web")
    assert "It works" in _page(address)
    laptop.machine("snapshot", "create", "web", "before")
    assert "before" in laptop.machine("snapshot", "ls", "web")
    laptop.machine("resize", "web", "--cpus", "2", "--memory", "4096", "--disk", "80")
    assert cloud.drops[ident]["size_slug"] == "s-2vcpu-4gb"
    assert "It works" in _page(address), "it runs again"

    laptop.machine("rm", "-y", "web")
    assert cloud.inventory() == ["tag shop", "tag web"], "tags of the user's own stay"
    assert machines.hosts.left() == []
    assert laptop.machine("ls", "-q") == ""
    _is_nowhere(TOKEN, laptop)


def test_a_create_that_loses_its_answers_is_run_again(
    laptop: Laptop, dolab: DoLab, cloud: Cloud, machines: LabMachines
) -> None:
    """The droplet is made, and every answer after that is lost: one droplet, then none."""
    dolab.faults.append(Fault("POST", "droplets", drop="after"))
    dolab.faults.append(Fault("GET", "droplets", status=401, skip=2, times=1000))
    failed = False
    try:
        laptop.create("web")
    except AssertionError as err:
        failed = "Unable" in str(err) or "401" in str(err)
    assert failed
    dolab.faults.clear()
    laptop.create("web")
    assert len(cloud.drops) == 1
    laptop.machine("rm", "-y", "web")
    assert cloud.inventory() == []
    assert machines.hosts.left() == []
    _is_nowhere(TOKEN, laptop)


def test_a_create_that_is_killed_when_its_droplet_is_made_goes_on(
    laptop: Laptop, dolab: DoLab, cloud: Cloud, machines: LabMachines
) -> None:
    """Killed after the call and before its answer; no list shows the droplet yet (case 154)."""
    cloud.lag = Lag(listed=4)
    dolab.faults.append(Fault("POST", "droplets", hold=60))
    with subprocess.Popen(
        laptop.creating("web"), env=laptop.environment, stderr=subprocess.DEVNULL
    ) as first:
        try:
            wait_until(lambda: bool(cloud.drops), 60, "a droplet")
        finally:
            first.kill()
    laptop.create("web")
    assert len(cloud.drops) == 1
    assert b"Resuming the create" in laptop.said
    laptop.machine("rm", "-y", "web")
    assert cloud.inventory() == []
    assert machines.hosts.left() == []


def _uuid(laptop: Laptop, name: str) -> str:
    record = json.loads((laptop.folder / "store/machines" / name / "config.json").read_text())
    return str(record["uuid"])


def _page(address: str) -> str:
    """What the published port says, once the container is up again after a boot."""
    found: list[str] = []

    def there() -> bool:
        opened = urllib.request.urlopen
        with contextlib.suppress(OSError), opened(f"http://{address}/", timeout=5) as answer:
            found.append(answer.read().decode())
        return bool(found)

    wait_until(there, 30, "the page", interval=0.1)
    return found[0]


def _command_lines() -> set[bytes]:
    found = set()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.add(place.read_bytes())
    return found


def _is_nowhere(secret: str, laptop: Laptop) -> None:
    """Case 151: not in a command line, not in what was printed, in no file of the user's."""
    assert any(b"create" in line for line in laptop.argvs), "nothing was watched"
    assert not [line for line in laptop.argvs if secret.encode() in line]
    assert secret.encode() not in laptop.said
    files = [place for place in laptop.folder.rglob("*") if place.is_file()]
    assert files
    assert not [place for place in files if secret.encode() in place.read_bytes()]
