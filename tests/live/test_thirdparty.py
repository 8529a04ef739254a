"""docs/examples/machine-driver-nimbus, installed by pip beside the product, used by its command."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.lab.cloudhosts import CloudHosts
from tests.lab.lab import Lab
from tests.lab.registry import Registry
from tests.support.thirdparty.nimbus import NimbusServer
from tests.support.thirdparty.venv import EXAMPLE, installed_beside

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment's bin folder with the product and the example in it."""
    return installed_beside(tmp_path_factory.mktemp("beside"))


@pytest.fixture
def nimbus(lab: Lab) -> Iterator[NimbusServer]:
    """The provider; its servers end with the test."""
    hosts = CloudHosts(lab)
    try:
        with NimbusServer(hosts) as server:
            yield server
    finally:
        hosts.close()


def run(env: Mapping[str, str], *argv: str, status: int = 0) -> str:
    """What it printed. /tmp is no folder of the sources: what is imported is what was installed."""
    done = subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, timeout=240)
    assert done.returncode == status, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_its_own_tests_pass_where_it_is_installed(programs: Path, tmp_path: Path) -> None:
    options = ["-q", "-c", "/dev/null", "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    tests = str(EXAMPLE / "tests")
    env = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    said = run(env, str(programs / "python"), "-m", "pytest", *options, tests)
    assert " passed" in said


def test_from_create_to_a_container_and_back(
    programs: Path, nimbus: NimbusServer, lab: Lab, registry: Registry, tmp_path: Path
) -> None:
    docker = lab.docker_cli()
    env = {
        "PATH": f"{programs}:{docker.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "SHELL": "/bin/bash",
        "MACHINE_STORAGE_PATH": str(tmp_path / "store"),
        "NIMBUS_TOKEN": nimbus.account,
        "NIMBUS_URL": nimbus.url,
    }
    assert "servers of Nimbus" in run(env, "machine", "drivers")
    assert "--nimbus-size" in run(env, "machine", "create", "-d", "nimbus", "--help")
    wrong = run({**env, "NIMBUS_TOKEN": "x"}, "machine", "create", "-d", "nimbus", "web", status=3)
    assert "401 this token is not known" in wrong

    mirror = ["--engine-registry-mirror", registry.url]
    said = run(env, "machine", "create", "-d", "nimbus", *mirror, "web")
    assert "Docker is up and running!" in said
    assert "First contact" not in said, "the host's key was known before"
    assert nimbus.account not in (tmp_path / "store/machines/web/config.json").read_text()
    script = 'eval "$(machine env web)" && docker run --rm busybox echo from nimbus'
    assert "from nimbus" in run(env, "bash", "-c", script)
    assert "nimbus" in run(env, "machine", "ls")
    assert len(nimbus.emulator.servers) == len(nimbus.emulator.keys) == 1

    run(env, "machine", "stop", "web")
    assert run(env, "machine", "status", "web").strip() == "Stopped"
    run(env, "machine", "start", "web")
    run(env, "machine", "rm", "-y", "web")
    assert nimbus.emulator.servers == nimbus.emulator.keys == {}
