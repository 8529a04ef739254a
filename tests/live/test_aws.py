"""`machine create --driver amazonec2` onto lab hosts, before moto's server on loopback."""

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
from tests.support.installed import MACHINE, Done
from tests.support.motolab import UBUNTU, Fault, MotoLab

KEY_ID, SECRET, TOKEN = "AKIALABLABLABLABLABL", "5ecre7/access+key/of/the/lab", "70ken0fthelab" * 3


class Laptop:
    """A user's computer: a store, credentials in the environment, a docker client."""

    def __init__(self, folder: Path, docker: Path, mirror: str, endpoint: str) -> None:
        self.folder = folder
        self.said = b""  # everything that any command printed
        self.mirror = mirror
        self._docker = docker
        self.environment = {
            "PATH": f"{MACHINE.parent}:{docker.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "MACHINE_STORAGE_PATH": str(folder / "store"),
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": TOKEN,
            "AWS_ENDPOINT": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def run(self, *argv: str, timeout: float = 240) -> Done:
        """A command to its end."""
        done = subprocess.run(
            argv, env=self.environment, cwd=self.folder, capture_output=True, timeout=timeout
        )
        self.said += done.stdout + done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def create(self, name: str, *more: str) -> Done:
        """`machine create` as a script of docker-machine's days has it."""
        return self.run(
            str(MACHINE), "create", "--driver", "amazonec2", "--amazonec2-open-to", "10.77.0.0/16",
            "--engine-registry-mirror", self.mirror, *more, name,
        )  # fmt: skip

    def machine(self, *arguments: str) -> str:
        done = self.run(str(MACHINE), *arguments)
        assert done.status == 0, (arguments, done.text[-2000:], done.complaint[-2000:])
        return done.text

    def docker(self, name: str, *arguments: str) -> str:
        script = f'said="$({MACHINE} env {name})" && eval "$said" && exec {self._docker} "$@"'
        done = self.run("bash", "-c", script, "docker", *arguments)
        assert done.status == 0, (arguments, done.complaint[-2000:])
        return done.text

    def record(self, name: str) -> dict[str, object]:
        found = json.loads((self.folder / "store/machines" / name / "config.json").read_text())
        assert isinstance(found, dict)
        return found

    def state(self, name: str) -> dict[str, str]:
        """What the driver keeps."""
        found = self.record(name)["driver_state"]
        assert isinstance(found, dict)
        return found


@pytest.fixture
def cloud(lab: Lab) -> Iterator[MotoLab]:
    with MotoLab(CloudHosts(lab)) as made:
        yield made


@pytest.fixture
def laptop(lab: Lab, registry: Registry, cloud: MotoLab, tmp_path: Path) -> Laptop:
    return Laptop(tmp_path, lab.docker_cli(), registry.url, cloud.url)


def test_an_instance_from_create_to_rm(laptop: Laptop, cloud: MotoLab) -> None:
    own = laptop.folder / "user-data"
    own.write_text("#cloud-config\nruncmd:\n- [touch, /var/lib/of-the-user]\n")
    made = laptop.create(
        "web", "--amazonec2-open-port", "80", "--amazonec2-tags", "team,web",
        "--amazonec2-userdata", str(own),
    )  # fmt: skip
    assert made.status == 0, (made.text[-3000:], made.complaint[-3000:])
    assert "First contact" not in made.text, "the host's keys are known before it"
    uuid = str(laptop.record("web")["uuid"])
    instance = cloud.instance(uuid)
    address = laptop.machine("ip", "web")
    assert (address, instance.image_id) == (instance.public_ip, UBUNTU)
    assert instance.metadata_options.http_tokens == "required"
    assert instance.metadata_options.http_put_response_hop_limit == 1
    assert _opened(cloud, uuid) == {
        (22, "10.77.0.0/16"), (2376, "10.77.0.0/16"), (80, "0.0.0.0/0"), (80, "::/0"),
    }  # fmt: skip
    laptop.docker("web", "run", "-d", "--name", "site", "--restart", "always",
                  "-p", "80:80", "httpd")  # fmt: skip
    assert "It works" in _page(address)
    assert laptop.machine("ssh", "web", "id -un; test -e /var/lib/of-the-user; echo $?") == (
        "ubuntu\n0"
    )
    laptop.machine("stop", "web")
    assert laptop.machine("status", "web") == "Stopped"
    laptop.machine("start", "web")
    moved = laptop.machine("ip", "web")
    assert moved != address, "Amazon gives another address at each start"
    assert "It works" in _page(moved)
    assert laptop.docker("web", "ps", "--format", "{{.Names}}") == "site", "by its new certificate"
    laptop.machine("restart", "web")
    assert "It works" in _page(moved)
    assert "cloud-init" in laptop.machine("console", "web").lower()
    laptop.machine("snapshot", "create", "web", "before")
    assert "before" in laptop.machine("snapshot", "ls", "web")
    laptop.machine("resize", "--size", "t3.small", "--disk", "32", "web")
    assert cloud.instance(uuid).instance_type == "t3.small"
    assert [one.size for one in cloud.backend.volumes.values()] == [32]
    assert laptop.machine("ip", "web") != moved
    laptop.machine("snapshot", "restore", "web", "before")
    assert "It works" in _page(laptop.machine("ip", "web"))
    assert laptop.docker("web", "ps", "--format", "{{.Names}}") == "site", "at yet another address"
    laptop.machine("kill", "web")
    assert laptop.machine("status", "web") == "Stopped"
    laptop.machine("rm", "-y", "web")
    assert cloud.inventory() == []
    assert cloud.hosts is not None
    assert cloud.hosts.left() == []
    assert laptop.machine("ls", "-q") == ""
    _is_nowhere(laptop)


def test_case_155_lost_answers_and_bad_moments_make_one_instance(
    laptop: Laptop, cloud: MotoLab
) -> None:
    """Time-outs after success, 429, 500, not found and not listed for a while, pages."""
    unavailable = "ServiceUnavailable", 503
    cloud.script.hide, cloud.script.page = 3, 1
    faults = cloud.script.faults
    faults["RunInstances"] += [Fault(*unavailable, after=True), Fault("RequestLimitExceeded", 503)]
    faults["ImportKeyPair"].append(Fault(*unavailable, after=True))
    faults["CreateSecurityGroup"].append(Fault("InternalError", 500, after=True))
    faults["AuthorizeSecurityGroupIngress"] += [
        Fault("InvalidGroup.NotFound"), Fault("InternalError", 500, after=True),
    ]  # fmt: skip
    faults["DescribeInstances"] += [Fault("RequestLimitExceeded", 503)]
    done = laptop.create("web")
    assert done.status == 0, (done.text[-3000:], done.complaint[-3000:])
    assert [line.split()[0] for line in cloud.inventory()].count("host") == 1
    faults["TerminateInstances"].append(Fault(*unavailable, after=True))
    faults["DeleteKeyPair"].append(Fault("RequestLimitExceeded", 503))
    laptop.machine("rm", "-y", "web")
    assert cloud.inventory() == []


def test_case_158_refusals_leave_no_ghost(laptop: Laptop, cloud: MotoLab) -> None:
    """Refused by the checks: no record. Refused later: the name is free after rm, or the same
    command goes on."""
    refused = laptop.create("web", "--amazonec2-ami", "ami-00000000000000000")
    assert refused.status == 3
    assert "ami-00000000000000000" in refused.complaint
    cloud.script.faults["GetParameters"] += [Fault("AuthFailure", 401)]
    cloud.script.faults["DescribeImages"] += [Fault("AuthFailure", 401)]
    told = laptop.create("web")
    assert told.status == 3
    assert "AuthFailure" in told.complaint
    assert laptop.machine("ls", "-q") == ""
    full = Fault("VcpuLimitExceeded", message="You have requested more vCPU capacity")
    cloud.script.faults["RunInstances"].append(full)
    stopped = laptop.create("web")
    assert stopped.status == 1
    assert "VcpuLimitExceeded: You have requested more vCPU capacity" in stopped.complaint
    laptop.machine("rm", "-y", "web")
    assert cloud.inventory() == []
    assert laptop.machine("ls", "-q") == ""


def test_case_156_rm_of_what_is_protected_or_half_gone(laptop: Laptop, cloud: MotoLab) -> None:
    """Dead credentials and protection: an error, the record kept, what remains is listed. Then what
    somebody else removed already is no error."""
    done = laptop.create("web")
    assert done.status == 0, (done.text[-3000:], done.complaint[-3000:])
    instance = cloud.instance(str(laptop.record("web")["uuid"]))
    cloud.script.faults["DescribeInstances"].append(Fault("AuthFailure", 401))
    dead = laptop.run(str(MACHINE), "rm", "-y", "web")
    assert dead.status == 1
    assert "AuthFailure" in dead.complaint
    assert f"Perhaps still there: instance {instance.id}" in dead.complaint
    assert laptop.machine("ls", "-q") == "web"
    instance.disable_api_termination = True
    protected = laptop.run(str(MACHINE), "rm", "-y", "web")
    assert protected.status == 1
    assert f"Still there: instance {instance.id}, " in protected.complaint
    assert laptop.machine("ls", "-q") == "web"
    assert laptop.machine("status", "web") == "Running"
    instance.disable_api_termination = False
    cloud.backend.delete_key_pair(laptop.state("web")["key"])
    cloud.terminate(instance.id)
    laptop.machine("rm", "-y", "web")
    assert cloud.inventory() == []
    assert laptop.machine("ls", "-q") == ""


def test_case_159_rm_while_a_create_runs(laptop: Laptop, cloud: MotoLab) -> None:
    """The rm waits or is refused; afterwards there is a whole machine or none."""
    argv = (str(MACHINE), "create", "--driver", "amazonec2", "--amazonec2-open-to", "10.77.0.0/16",
            "--engine-registry-mirror", laptop.mirror, "web")  # fmt: skip
    with subprocess.Popen(
        argv, env=laptop.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as creating:
        try:
            wait_until(lambda: bool(cloud.inventory()), 60, "something is made")
            during = laptop.run(str(MACHINE), "rm", "-y", "web")
            out, err = creating.communicate(timeout=240)
        finally:
            if creating.poll() is None:
                creating.kill()
    assert creating.returncode == 0, (out[-2000:], err[-2000:])
    if during.status == 0:
        assert laptop.machine("ls", "-q") == ""
    else:
        assert str(creating.pid) in during.complaint
        assert laptop.machine("status", "web") == "Running"
        laptop.machine("rm", "-y", "web")
    assert cloud.inventory() == []


def _opened(cloud: MotoLab, uuid: str) -> set[tuple[int, str]]:
    """(port, source) of the machine's own group."""
    (ident,) = [line.split()[1] for line in cloud.inventory(uuid) if line.startswith("group ")]
    group = cloud.backend.get_security_group_from_id(ident)
    return {
        (int(rule.from_port), str(rule.ip_range.get("CidrIp") or rule.ip_range.get("CidrIpv6")))
        for rule in group.ingress_rules
    }


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


def _is_nowhere(laptop: Laptop) -> None:
    """Credentials are in no file of the user's, and in nothing that was printed (C2)."""
    files = [place for place in laptop.folder.rglob("*") if place.is_file()]
    assert files
    for secret in (SECRET.encode(), TOKEN.encode()):
        assert secret not in laptop.said
        assert not [place for place in files if secret in place.read_bytes()]
