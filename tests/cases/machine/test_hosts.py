"""create, provision, regenerate-certs and rm against real hosts of the lab."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.host import Host
from tests.lab.lab import Lab

MakeHost = Callable[..., Host]
ROOT = Path(__file__).parents[3]


class Laptop:
    """The command with a store of its own."""

    def __init__(self, folder: Path, key: Path) -> None:
        self.store = folder / "store"
        self.key = key
        self.env = {**os.environ, "HOME": str(folder), "MACHINE_STORAGE_PATH": str(self.store)}

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "machine", *args]

    def run(self, *args: str, status: int = 0) -> str:
        done = subprocess.run(self.argv(*args), env=self.env, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def create(self, host: Host, name: str = "web", user: str = "root", *more: str) -> list[str]:
        return ["create", "--driver", "ssh", "--ssh-ip-address", host.ip, "--ssh-user", user,
                "--ssh-key", str(self.key), *more, name]  # fmt: skip


@pytest.fixture
def laptop(tmp_path: Path, lab: Lab) -> Laptop:
    return Laptop(tmp_path, lab.key)


def listing(host: Host) -> set[str]:
    """Every file of ours or of packages; what the system itself writes is left out."""
    found = host.run(
        "find", "/", "-xdev", "(", "-path", "/var/log", "-o", "-path", "/var/cache", "-o", "-path",
        "/var/lib/apt", "-o", "-path", "/var/lib/dpkg", "-o", "-path", "/tmp", "-o", "-path",
        "/root", "-o", "-path", "/var/lib/systemd", "-o", "-path", "/var/tmp", "-o", "-name",
        "__pycache__", "-o", "-path", "/home", ")", "-prune", "-o", "-print",
    )  # fmt: skip
    return set(found.stdout.splitlines())


def packages(host: Host) -> set[str]:
    return set(
        host.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Package}\n").stdout.split("\n")
    )


def agent_pid(host: Host) -> str:
    return host.run("pgrep", "-f", "/opt/machine/agent serve").stdout.split()[0]


@pytest.mark.parametrize(("variant", "user"), [("systemd", "root"), ("plain", "debian")])
def test_life_of_a_machine(make_host: MakeHost, laptop: Laptop, variant: str, user: str) -> None:
    host = make_host(variant)
    before = listing(host)
    label = "note=$(touch /canary) `id` 'x\""
    said = laptop.run(*laptop.create(host, "web", user, "--engine-label", label))
    lines = said.splitlines()
    assert lines.index("Running pre-create checks...") < lines.index("Creating machine...")
    assert lines[-2] == "Docker is up and running!"
    assert lines[-1].endswith(" env web")
    assert laptop.run("status", "web") == "Running\n"
    assert laptop.run("ip", "web") == f"{host.ip}\n"
    assert laptop.run("url", "web") == f"tcp://{host.ip}:2376\n"
    assert host.run("test", "-e", "/canary", check=False).returncode == 1
    pid = agent_pid(host)
    laptop.run("provision", "web")
    assert agent_pid(host) == pid, "nothing changed, so nothing is restarted"
    laptop.run("regenerate-certs", "-f", "web")
    assert laptop.run("version", "web").strip()
    assert "already exists" in laptop.run(*laptop.create(host, "web", user), status=1)
    assert "does not support kill" in laptop.run("kill", "web", status=1)
    laptop.run("rm", "-y", "--uninstall", "web")
    left = {p for p in listing(host) - before if not p.startswith(("/run/", "/sys/", "/proc/"))}
    assert left == set()
    assert host.run("pgrep", "-f", "/opt/machine", check=False).stdout == ""


def test_case_141_new_host_key_is_refused_by_every_command(
    make_host: MakeHost, laptop: Laptop
) -> None:
    host = make_host("plain")
    laptop.run(*laptop.create(host))
    known = laptop.store / "machines" / "web" / "known_hosts"
    key = Path(str(laptop.key) + ".pub").read_text().split()[1]
    known.write_text(f"web ssh-ed25519 {key}\n")
    for command in (
        ["provision", "web"],
        ["regenerate-certs", "-f", "web"],
        ["rm", "-y", "--uninstall", "web"],
        ["restart", "web"],
        ["ssh", "web", "true"],
        ["scp", str(known), "web:/tmp/x"],
        ["scp", "-r", "web:/etc/hostname", str(known.parent / "x")],
    ):
        said = laptop.run(*command, status=1)
        assert "has changed: refusing to connect" in said
        ours = said[said.index("  pinned:") :]
        assert ours.count("SHA256:") == 2
        assert f"remove {known} and try again" in ours
    laptop.run("url", "web")  # what does not speak SSH still works: TLS has its own authority
    laptop.run("env", "--shell", "sh", "web")


def test_a_machine_of_docker_machine_is_used_and_taken_over(
    make_host: MakeHost, laptop: Laptop
) -> None:
    """Its host key was never pinned: the first contact pins it, ssh and scp as well."""
    host = make_host("plain")
    folder = laptop.store / "machines" / "old"
    folder.mkdir(parents=True)
    for path in (laptop.store, folder.parent, folder):
        path.chmod(0o700)
    key = folder / "id_rsa"
    key.write_bytes(laptop.key.read_bytes())
    key.chmod(0o600)
    driver = {"IPAddress": host.ip, "MachineName": "old", "SSHUser": "debian", "SSHPort": 22,
              "SSHKeyPath": str(key), "EnginePort": 2376, "SSHKey": "/gone/id_rsa"}  # fmt: skip
    document = {"ConfigVersion": 3, "Driver": driver, "DriverName": "generic", "Name": "old"}
    (folder / "config.json").write_text(json.dumps(document))
    assert laptop.run("inspect", "-f", "{{.Driver.IPAddress}}", "old") == f"{host.ip}\n"
    said = laptop.run("ssh", "old", "whoami")
    assert "First contact" in said
    assert said.endswith("debian\n") or said.startswith("debian\n")
    assert laptop.run("ssh", "old", "whoami") == "debian\n"
    laptop.run("provision", "old")
    assert f"tcp://{host.ip}:2376" in laptop.run("env", "--shell", "sh", "old")
    laptop.run("rm", "-y", "--uninstall", "old")


def test_why_the_agent_did_not_start_is_the_end_of_its_log(
    make_host: MakeHost, laptop: Laptop
) -> None:
    host = make_host("systemd")
    laptop.run(*laptop.create(host))
    host.run("sh", "-c", "systemctl stop machine-agent; rm -r /var/lib/machine/*; "
             "echo junk > /var/lib/machine/state.db; chmod 0 /var/lib/machine/state.db")  # fmt: skip
    said = laptop.run("provision", "web", status=1)
    assert "the agent did not start" in said
    assert "state.db" in said
    laptop.run("rm", "-y", "--uninstall", "web")


def test_another_store_is_refused_and_may_take_over(
    make_host: MakeHost, laptop: Laptop, tmp_path: Path
) -> None:
    host = make_host("plain")
    laptop.run(*laptop.create(host))
    other = Laptop(tmp_path / "other", laptop.key)
    (tmp_path / "other").mkdir()
    assert "already the machine" in other.run(*other.create(host, "mine"), status=3)
    assert list((other.store / "machines").iterdir()) == []
    other.run(*other.create(host, "mine", "root", "--take-over"))
    assert other.run("version", "mine").strip()


def test_host_with_nothing_installed(make_host: MakeHost, laptop: Laptop) -> None:
    """Packages come by the host's own manager, and go with --uninstall."""
    host = make_host("systemd", "bare")
    before = packages(host)
    said = laptop.run(*laptop.create(host))
    assert "Installing packages: " in said
    assert packages(host) > before
    laptop.run("rm", "-y", "--uninstall", "web")
    left = packages(host) - before
    assert {p for p in left if p.startswith("ii") and "python3" not in p} == set()


STEPS = ("Creating machine...", "Waiting for SSH", "Provisioning with", "Installing the agent",
         "Copying certs to the remote", "Setting Docker", "Starting the agent", "Checking conn")  # fmt: skip


@pytest.mark.parametrize("variant", ["systemd", "plain"])
def test_create_killed_at_each_step_finishes_or_leaves_nothing(
    make_host: MakeHost, laptop: Laptop, variant: str
) -> None:
    host = make_host(variant)
    before = listing(host)
    for index, step in enumerate(STEPS):
        _killed_at(laptop, host, step)
        if index % 2:
            laptop.run(*laptop.create(host))
            assert laptop.run("version", "web").strip()
            laptop.run("rm", "-y", "--uninstall", "web")
        elif (laptop.store / "machines" / "web").exists():  # else it was killed before its record
            laptop.run("rm", "-y", "web")
        # one killed while its first record is written leaves a hidden folder; the next create of
        # that name removes it
        left_here = {p.name for p in (laptop.store / "machines").iterdir()}
        assert left_here <= {".new-web"}
        left = {p for p in listing(host) - before if not p.startswith(("/run/", "/sys/", "/proc/"))}
        assert left == set(), step


def _killed_at(laptop: Laptop, host: Host, step: str) -> None:
    running = subprocess.Popen(
        laptop.argv(*laptop.create(host)), env=laptop.env, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith(step):
            break
    running.send_signal(signal.SIGKILL)
    running.communicate()


def test_local_driver_makes_this_computer_a_machine(make_host: MakeHost, tmp_path: Path) -> None:
    """The whole program is copied to a lab host and makes that one a machine, without SSH."""
    host = make_host("systemd")
    site = Path(sysconfig.get_path("purelib"))
    parts = [(ROOT, n) for n in ("agent", "machine", "drivers", "cloud-init")]
    names = ("click", "cryptography", "h11", "rich", "pygments", "markdown_it", "mdurl", "cffi")
    parts += [(site, n) for n in names if (site / n).exists()]
    parts += [(site, p.name) for p in site.glob("_cffi_backend*")]
    packed = tmp_path / "program.tar"
    argv = ["tar", "cf", str(packed), "--exclude=__pycache__"]
    subprocess.run([*argv, *(a for folder, n in parts for a in ("-C", str(folder), n))], check=True)
    with packed.open("rb") as data:
        subprocess.run(
            [*host.ssh_argv(), "mkdir -p /srv/p && tar xf - -C /srv/p"], stdin=data, check=True
        )
    machine = "cd /srv/p && PYTHONPATH=/srv/p python3 -m machine "
    said = host.ssh(machine + "create dev").stdout
    assert "Docker is up and running!" in said
    assert host.ssh(machine + "url dev").stdout == "tcp://127.0.0.1:2376\n"
    assert host.ssh(machine + "version dev").stdout.strip()
    assert "does not support restart" in host.ssh(machine + "restart dev", check=False).stderr
    host.ssh(machine + "rm -y --uninstall dev")
    assert host.run("test", "-e", "/opt/machine", check=False).returncode == 1


def test_case_151_no_secret_in_any_argument_list(make_host: MakeHost, laptop: Laptop) -> None:
    """Laptop and host alike: the lab's hosts show their processes in our /proc."""
    host = make_host("plain")
    seen: set[bytes] = set()
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.002):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        laptop.run(*laptop.create(host))
        laptop.run("regenerate-certs", "-f", "web")
        laptop.run("ssh", "web", "true")
    finally:
        done.set()
        sampler.join()
    assert any(b"install.py" in line or b"/opt/machine" in line for line in seen)  # it did look
    secrets = [laptop.key, *(laptop.store / "certs").glob("*key.pem")]
    assert len(secrets) == 3
    for path in secrets:
        for line in path.read_bytes().splitlines()[1:-1]:
            assert not any(line in argv for argv in seen), path.name


def test_case_152_a_crash_leaves_no_secret_behind(
    make_host: MakeHost, laptop: Laptop, tmp_path: Path
) -> None:
    """Aborted in the middle with the fault handler on: its text and every file stay private."""
    host = make_host("plain")
    work = tmp_path / "work"
    work.mkdir()
    env = {**laptop.env, "PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(laptop.argv(*laptop.create(host)), env=env, cwd=work, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("Provisioning"):
            running.send_signal(signal.SIGABRT)
            break
    said = running.stdout.read()
    running.wait()
    running.stdout.close()
    secret = laptop.key.read_text().splitlines()[1]
    assert "Fatal Python error" in said
    assert secret not in said
    assert "PRIVATE KEY" not in said
    for path in [*work.rglob("*"), *laptop.store.rglob("*")]:
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path
    laptop.run("rm", "-y", "web")
