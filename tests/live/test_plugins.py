"""A docker-machine plugin binary, made with the real Go library, used by the installed command.

It stands in for the ~35 that exist: the same net/rpc, gob and registered names; its provider is a
folder of files whose servers are a lab host.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivers.api import HostState
from drivers.errors import DriverError
from drivers.options import Value
from drivers.plugins.finding import Plugins
from drivers.testkit import context, created
from machine.process import LocalRunner
from tests.lab.lab import Lab
from tests.lab.registry import Registry
from tests.lab.waiting import wait_until
from tests.support.goplugin.program import NAME, standin_program
from tests.support.installed import Installed

pytestmark = pytest.mark.live
MakeRunner = Callable[..., LocalRunner]


@pytest.fixture(scope="session")
def plugin_folder(lab: Lab) -> Path:
    """A folder for PATH."""
    return standin_program(lab.debian)


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """The provider."""
    (tmp_path / "cloud").mkdir()
    return tmp_path / "cloud"


@pytest.fixture
def plugin_box(
    lab: Lab, registry: Registry, plugin_folder: Path, cloud: Path, tmp_path: Path
) -> Iterator[Installed]:
    """A laptop with the plugin on PATH, its token in the environment, and a host to be made."""
    host = lab.host()
    try:
        box = Installed("pluggy", host, tmp_path / "laptop", lab.docker_cli(), registry)
        box.environment |= {
            "PATH": f"{plugin_folder}:{box.environment['PATH']}",
            "STANDIN_TOKEN": "good-token",
            "STANDIN_CLOUD": str(cloud),
            "STANDIN_ADDRESS": host.ip,
            "STANDIN_SSH_KEY": str(host.key),
        }
        yield box
    finally:
        host.destroy()


def servers(cloud: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(cloud.iterdir())]


def test_from_create_to_a_container_and_back(plugin_box: Installed, cloud: Path) -> None:
    box = plugin_box
    assert "standin" in box.machine("drivers").text
    shown = box.machine("create", "-d", "standin", "--help").text
    assert "--standin-token" in shown
    assert "STANDIN_LABEL" in shown

    mirror = ["--engine-registry-mirror", box.registry.url]
    said = box.machine("create", "-d", "standin", "--standin-label", "a", *mirror, "pluggy").text
    assert "(pluggy) Creating server..." in said
    assert "Docker is up and running!" in said
    assert [(one["Name"], one["State"]) for one in servers(cloud)] == [("pluggy", 1)]
    for path in box.store.rglob("*"):
        assert not path.is_file() or b"good-token" not in path.read_bytes(), path
    record = json.loads((box.store / "machines/pluggy/config.json").read_text())
    assert record["ssh"]["key_path"].endswith("/plugin/machines/pluggy/id_rsa")

    script = 'said="$(machine env pluggy)" && eval "$said" && env -0'
    pairs = (item.split("=", 1) for item in box.run("bash", "-c", script).text.split("\0") if item)
    box.environment |= {key: value for key, value in pairs if key.startswith("DOCKER_")}
    assert box.docker("run", "--rm", "busybox", "echo", "from a plugin").text == "from a plugin"
    assert "Running" in box.machine("ls").text
    assert "standin" in box.machine("ls").text

    box.machine("stop", "pluggy")
    assert servers(cloud)[0]["State"] == 4
    assert box.machine("status", "pluggy").text == "Stopped"
    box.machine("start", "pluggy")
    assert box.machine("status", "pluggy").text == "Running"

    without = box.machine("status", "pluggy", check=False, extra={"STANDIN_TOKEN": ""})
    assert without.status != 0
    assert "--standin-token has no value" in without.complaint
    box.machine("rm", "-y", "pluggy")
    assert servers(cloud) == []
    assert not (box.store / "machines/pluggy").exists()


def test_what_the_plugin_refuses_is_told(plugin_box: Installed, cloud: Path) -> None:
    bad = plugin_box.machine(
        "create", "-d", "standin", "pluggy", check=False, extra={"STANDIN_TOKEN": "bad"}
    )
    assert bad.status == 3
    assert "401 Unauthorized: unable to authenticate you" in bad.complaint
    assert "Traceback" not in bad.complaint
    assert servers(cloud) == []


def test_a_create_that_was_killed_is_undone_and_made_anew(
    plugin_box: Installed, cloud: Path, tmp_path: Path
) -> None:
    """Killed while the provider works: the plugin ends itself, and its server's id was kept."""
    box = plugin_box
    box.environment["STANDIN_WAIT"] = str(tmp_path / "go")
    create = ["create", "-d", "standin", "--engine-registry-mirror", box.registry.url, "pluggy"]
    state = box.store / "machines/pluggy/plugin/driver.json"
    with box.begin("machine", *create) as process:
        try:
            wait_until(lambda: _kept(state, "ServerID"), 15, "the id is kept", interval=0.05)
        finally:
            process.kill()
    (left,) = cloud.iterdir()
    plugin = json.loads(state.read_text())["plugin"]["pid"]
    del box.environment["STANDIN_WAIT"]
    said = box.machine(*create, timeout=120).text
    assert "Docker is up and running!" in said
    assert _ended(plugin), "the second create waited for it"
    (now,) = cloud.iterdir()
    assert now != left
    box.machine("rm", "-y", "pluggy")
    assert servers(cloud) == []


def _kept(state: Path, field: str) -> bool:
    return state.exists() and bool(json.loads(state.read_text())["config"].get(field))


@pytest.fixture
def runner() -> MakeRunner:
    """The command's own door to processes."""

    def make(**env: str) -> LocalRunner:
        return LocalRunner({"PATH": os.defpath, **env})

    return make


@pytest.mark.parametrize("family", ["", "old", "docker", "rancher"])
def test_each_family_of_registered_names(
    plugin_folder: Path, runner: MakeRunner, tmp_path: Path, cloud: Path, family: str
) -> None:
    """The real library takes our gobs under each name that it may have registered."""
    lines: list[str] = []
    door = runner(STANDIN_FAMILY=family)
    driver = Plugins(str(plugin_folder), door, lines.append, lines.append)("standin")
    assert driver is not None
    (tmp_path / "machine").mkdir()
    given: dict[str, Value | None] = {
        "standin-token": "good-token",
        "standin-cloud": str(cloud),
        "standin-label": ("x", "y z"),
        "standin-ssh-port": 2222,
        "standin-fast": True,
    }
    ctx = context(tmp_path / "machine", driver.options, given)
    assert driver.check(ctx) == []
    ctx = created(driver, ctx)
    assert driver.state(ctx) is HostState.RUNNING
    state = json.loads((tmp_path / "machine/plugin/driver.json").read_text())["config"]
    assert (state["Labels"], state["SSHPort"], state["Fast"]) == (["x", "y z"], 2222, True)
    driver.kill(ctx)
    assert driver.state(ctx) is HostState.STOPPED
    driver.restart(ctx)
    driver.remove(ctx)
    assert driver.state(ctx) is HostState.NOT_FOUND
    assert not [line for line in lines if "good-token" in line]


def test_a_spawned_program_is_ended_with_its_children(runner: MakeRunner, tmp_path: Path) -> None:
    """A plugin that does not end takes nothing of its group along into our future."""
    script = tmp_path / f"{NAME}-stuck"
    script.write_text("#!/bin/sh\nsleep 300 &\necho $!\nwait\n")
    script.chmod(0o755)
    running = runner().spawn([str(script)], {})
    out = running.outputs[0]
    os.set_blocking(out, True)
    child = int(os.read(out, 100))
    assert not running.ended(0.05)
    running.close()
    wait_until(lambda: _ended(child), 5, "the child has ended", interval=0.02)


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_a_binary_that_is_no_plugin(runner: MakeRunner, tmp_path: Path) -> None:
    """/bin/sh waits for its stdin, which is at its end: it ends without an address."""
    (tmp_path / "docker-machine-driver-shell").symlink_to("/bin/sh")
    driver = Plugins(str(tmp_path), runner(), lambda _: None, lambda _: None)("shell")
    assert driver is not None
    with pytest.raises(DriverError, match="ended before it said its address"):
        assert driver.options
