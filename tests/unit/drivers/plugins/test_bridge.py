"""The bridge before a stand-in that misbehaves: what users are told, what is left, what leaks."""

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from drivers import registry
from drivers.api import DriverContext, HostState
from drivers.errors import (
    AuthError,
    DriverError,
    QuotaError,
    TransientError,
    WaitTimeoutError,
)
from drivers.plugins import gob
from drivers.plugins.child import Child
from drivers.plugins.driver import PluginDriver
from drivers.plugins.finding import Plugins
from drivers.plugins.folder import CREATING, Folder
from drivers.plugins.session import Binary
from drivers.testkit import OpenDoor, context, created
from tests.support.goplugin.standin import FLAGS, Behaviour, FaultError, Spawner

RANCHER = "github.com/rancher/machine/libmachine/"
DOCKER = "github.com/docker/machine/libmachine/"


class Bench:
    """A driver before a stand-in, a machine's folder, and what was said."""

    def __init__(self, folder: Path, behaviour: Behaviour | None = None) -> None:
        self.said: list[str] = []
        self.logged: list[str] = []
        self.spawner = Spawner(behaviour)
        place = Path("/opt/bin/docker-machine-driver-standin")
        self.binary = Binary("standin", place, self.spawner, self.said.append, self.logged.append)
        self.driver = PluginDriver(self.binary)
        self.cloud = folder / "cloud"
        self.folder = folder / "machine"
        for one in (self.cloud, self.folder):
            one.mkdir()

    def ctx(self, **given: str) -> DriverContext:
        values = {"standin-token": "good-token", "standin-cloud": str(self.cloud)}
        named = {f"standin-{key}": value for key, value in given.items()}
        return context(self.folder, self.driver.options, {**values, **named})

    def servers(self) -> list[str]:
        return sorted(path.stem for path in self.cloud.iterdir())

    def asked(self) -> list[str]:
        return [method for made in self.spawner.made for method in made.server.asked]


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def make(tmp_path: Path) -> MakeBench:
    def made(**fields: object) -> Bench:
        return Bench(tmp_path, Behaviour(**fields))  # type: ignore[arg-type]

    return made


def test_the_environment_and_the_order_of_the_calls(bench: Bench) -> None:
    ctx = created(bench.driver, bench.ctx())
    assert bench.spawner.environments[-1] == {
        "MACHINE_PLUGIN_TOKEN": "42",
        "MACHINE_PLUGIN_DRIVER_NAME": "standin",
    }
    assert isinstance(ctx.door, OpenDoor)
    assert ctx.door.calls == [
        "GetVersion", "SetConfigRaw", "SetConfigFromFlags", "GetConfigRaw", "PreCreateCheck",
        "Create",
    ]  # fmt: skip
    assert all(made.is_closed and made.ended_itself for made in bench.spawner.made)
    assert ctx.state == {"config": "plugin/driver.json"}


def test_the_flags_are_asked_for_once(bench: Bench) -> None:
    assert [spec.name for spec in bench.driver.options] == [name for _, name, *_ in FLAGS]
    assert bench.driver.options is bench.driver.options
    assert len(bench.spawner.made) == 1


@pytest.mark.parametrize(
    ("family", "options", "services"),
    [
        ("*mcnflag.", "*rpcdriver.RPCFlags", ("RPCServerDriver", "RpcServerDriver")),
        ("*mcnflag.", "*rpcdriver.RpcFlags", ("RpcServerDriver",)),
        (f"{DOCKER}mcnflag.", f"{DOCKER}drivers/rpc.RPCFlags", ("RPCServerDriver",)),
        (f"{RANCHER}mcnflag.", f"{RANCHER}drivers/rpc.RPCFlags", ("RPCServerDriver",)),
    ],
)
def test_families(make: MakeBench, family: str, options: str, services: tuple[str, ...]) -> None:
    bench = make(family=family, options=options, services=services)
    ctx = created(bench.driver, bench.ctx())
    assert bench.driver.state(ctx) is HostState.RUNNING
    assert bench.driver.address(ctx).engine_port == 2377


def test_no_credential_is_written_or_shown(bench: Bench) -> None:
    ctx = created(bench.driver, bench.ctx())
    files = {path: path.read_text() for path in bench.folder.rglob("*") if path.is_file()}
    assert not [path for path, text in files.items() if "good-token" in text]
    (config,) = (text for path, text in files.items() if path.name == "driver.json")
    assert json.loads(config)["config"]["Token"] == {"$secret": "standin-token"}
    assert bench.said == ["(conformance) Creating server..."]
    assert bench.logged == ["(conformance) DBG | asking with the token ***"]
    assert bench.driver.state(ctx) is HostState.RUNNING


def test_a_missing_credential_is_asked_for(bench: Bench) -> None:
    ctx = created(bench.driver, bench.ctx())
    without = dataclasses.replace(ctx, options={**ctx.options, "standin-token": ""})
    with pytest.raises(AuthError, match="--standin-token has no value") as caught:
        bench.driver.state(without)
    assert caught.value.hint == "Give it again: export STANDIN_TOKEN=..."


def test_checks_tell_the_plugins_own_reason(bench: Bench) -> None:
    assert bench.driver.check(bench.ctx(cloud="")) == [
        "SetConfigFromFlags: standin driver requires the --standin-cloud option"
    ]
    with pytest.raises(AuthError, match="401 Unauthorized"):
        bench.driver.check(bench.ctx(token="bad"))
    assert list(bench.folder.iterdir()) == []


def test_a_check_of_what_exists_asks_nothing(bench: Bench) -> None:
    ctx = created(bench.driver, bench.ctx())
    before = len(bench.spawner.made)
    assert bench.driver.check(ctx) == []
    assert len(bench.spawner.made) == before


def test_the_key_is_found_in_the_machines_folder(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("KEY")
    ctx = created(bench.driver, bench.ctx(**{"ssh-key": str(tmp_path / "key")}))
    login = bench.driver.address(ctx).ssh
    assert login is not None
    assert login.key_path == str(bench.folder / "plugin/machines/conformance/id_rsa")
    assert login.host == "192.0.2.1"
    assert login.port == 22
    assert login.user == "root"


@pytest.mark.parametrize("address", ["-oProxyCommand=x", "a b", "", "1.2.3.4;x", "x" * 300])
def test_addresses_that_are_none(bench: Bench, address: str) -> None:
    ctx = created(bench.driver, bench.ctx(address=address))
    with pytest.raises(DriverError, match="the plugin's host is none"):
        bench.driver.address(ctx)


def test_a_failed_create_keeps_its_ids_and_is_undone(make: MakeBench) -> None:
    bench = make(errors={"Heartbeat": "x"})
    bench.spawner.behaviour.wait = _failing
    with pytest.raises(QuotaError, match="Create: 422 will exceed your volume limit"):
        created(bench.driver, bench.ctx())
    (left,) = bench.servers()
    state = json.loads((bench.folder / "plugin/driver.json").read_text())
    assert state["stage"] == "creating"
    assert state["config"]["ServerID"] == left
    bench.spawner.behaviour.wait = lambda: None
    ctx = created(bench.driver, bench.ctx())
    (now,) = bench.servers()
    assert now != left
    bench.driver.remove(ctx)
    assert bench.servers() == []


def _failing() -> None:
    raise FaultError("422 will exceed your volume limit")


def test_a_create_that_is_watched_leaves_its_ids_while_it_works(make: MakeBench) -> None:
    """An old plugin, since its heartbeats are many: each comes with a look at the configuration."""
    go_on = threading.Event()
    bench = make(options="*rpcdriver.RpcFlags", services=("RpcServerDriver",))
    bench.spawner.behaviour.wait = lambda: _wait(go_on)
    ctx = bench.ctx()
    working = threading.Thread(target=lambda: created(bench.driver, ctx))
    working.start()
    state = bench.folder / "plugin/driver.json"
    try:
        deadline = threading.Event()
        for _ in range(200):
            text = state.read_text() if state.exists() else "{}"
            if json.loads(text).get("config", {}).get("ServerID"):
                break
            deadline.wait(0.02)
        found = json.loads(state.read_text())
        assert found["stage"] == "creating"
        assert found["config"]["ServerID"] == bench.servers()[0]
    finally:
        go_on.set()
        working.join(5)
    assert json.loads(state.read_text())["stage"] == "created"
    assert bench.asked().count("Heartbeat") >= 1


def _wait(go_on: threading.Event) -> None:
    go_on.wait(5)


def test_a_plugin_of_an_earlier_create_is_outwaited(make: MakeBench) -> None:
    """Its command was killed, and it still makes things."""
    bench = make()
    ctx = bench.ctx()
    old = bench.spawner.spawn([], {})
    try:
        identity = Child(old, bench.said.append, bench.said.append)
        identity.connect().close()
        folder = Folder(bench.folder, "conformance")
        begun = {**folder.fresh(), "Token": "good-token", "Cloud": str(bench.cloud)}
        folder.save(CREATING, begun, {}, identity.identity)
        with pytest.raises(WaitTimeoutError, match="the plugin of an earlier create did not"):
            created(bench.driver, ctx)
    finally:
        old.close()
    created(bench.driver, ctx)
    assert len(bench.servers()) == 1


def test_what_cannot_be_undone_is_told(make: MakeBench) -> None:
    bench = make()
    bench.spawner.behaviour.wait = _failing
    with pytest.raises(QuotaError):
        created(bench.driver, bench.ctx())
    bench.spawner.behaviour.errors = {"Remove": "exit status 3"}
    with pytest.raises(DriverError, match="can't be undone: Remove: exit status 3") as caught:
        created(bench.driver, bench.ctx())
    assert "machine rm -f conformance" in caught.value.hint


def test_a_removal_is_looked_after(make: MakeBench) -> None:
    bench = make(removal=False)
    ctx = created(bench.driver, bench.ctx())
    with pytest.raises(WaitTimeoutError, match=r"the removal did not happen .*: it is Running"):
        bench.driver.remove(ctx)
    bench.spawner.behaviour.removal = True
    bench.driver.remove(ctx)
    assert bench.servers() == []


def test_a_removal_that_finds_nothing_is_not_believed_while_the_host_is_there(
    make: MakeBench,
) -> None:
    bench = make()
    ctx = created(bench.driver, bench.ctx())
    bench.spawner.behaviour.errors = {"Remove": "404 firewall not found"}
    with pytest.raises(DriverError, match="Remove: 404 firewall not found"):
        bench.driver.remove(ctx)
    bench.spawner.behaviour.errors = {"GetState": "dial tcp: lookup api: no such host"}
    with pytest.raises(TransientError):
        bench.driver.remove(ctx)
    bench.spawner.behaviour.errors = {}
    bench.driver.remove(ctx)
    assert bench.servers() == []


def test_a_state_of_a_newer_plugin_is_an_error_state(make: MakeBench) -> None:
    bench = make()
    ctx = created(bench.driver, bench.ctx())
    (place,) = bench.cloud.iterdir()
    for number, state in ((9, HostState.NOT_FOUND), (3, HostState.SAVED), (77, HostState.ERROR)):
        server = json.loads(place.read_text())
        place.write_text(json.dumps({**server, "state": number}))
        assert bench.driver.state(ctx) is state


# type 100: struct { Seq []byte }, and one of it, and an answer
NUMBERLESS = bytes.fromhex(
    "14 ffc7 03 01 02 ffc8 00 01 01 01 03 536571 01 0a 00 00 00  06 ffc8 01 01 78 00"
) + gob.Encoder().encode(gob.INT, 1)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"first_line": "0.0.0.0:1"}, "not on the loopback"),
        ({"first_line": "This is a Docker Machine plugin binary."}, "first line is no address"),
        ({"first_line": "127.0.0.1:1"}, "is not the plugin's own port"),
        ({"version": 2}, r"incompatible API version \(2\)"),
        ({"welcome": b"HTTP/1.1 404 Not Found\r\n\r\n"}, "speaks no net/rpc: 'HTTP/1.1 404"),
        ({"welcome": b"SSH-2.0-OpenSSH\r\n" * 300}, "speaks no net/rpc"),
        ({"errors": {"GetVersion": "panic"}}, "panic"),
        ({"services": ("Other",)}, "can't find service RpcServerDriver.GetVersion"),
        ({"hang_up": "GetVersion"}, "hung up"),
        ({"hang_up": "GetCreateFlags"}, "GetCreateFlags: the plugin ended early"),
        ({"raw": {"GetCreateFlags": b"\xfc\xff\xff\xff\xff"}}, "no gob: a message of 4294967295"),
        ({"raw": {"GetCreateFlags": gob.Encoder().encode(gob.INT, 1) * 2}}, "has no head"),
        ({"raw": {"GetCreateFlags": NUMBERLESS}}, "has no number"),
        ({"flags": [("FloatFlag", "x", "", "", "1")]}, "flag of an unknown type"),
    ],
)
def test_binaries_that_are_no_plugins(
    make: MakeBench, fields: Mapping[str, object], says: str
) -> None:
    bench = make(**fields)
    with pytest.raises(DriverError, match=says):
        assert bench.driver.options
    (made,) = bench.spawner.made
    assert made.is_closed, "nothing is left running"


def test_a_plugin_that_ends_early_shows_its_last_words(make: MakeBench) -> None:
    bench = make(hang_up="PreCreateCheck")
    ctx = bench.ctx()
    with pytest.raises(DriverError, match="PreCreateCheck: the plugin ended early"):
        created(bench.driver, ctx)
    assert bench.servers() == []


def test_a_plugin_that_ignores_close_is_ended(make: MakeBench) -> None:
    bench = make(ignores_close=True)
    assert bench.driver.options
    (made,) = bench.spawner.made
    assert made.is_closed
    assert not made.ended_itself


def test_transient_errors_stay_transient(make: MakeBench) -> None:
    bench = make(errors={"PreCreateCheck": "503 Service Unavailable"})
    with pytest.raises(TransientError):
        bench.driver.check(bench.ctx())


def test_the_registry_takes_a_plugin_when_no_entry_point_has_the_name(tmp_path: Path) -> None:
    for name in ("ssh", "mine"):
        binary = tmp_path / f"docker-machine-driver-{name}"
        binary.write_text("")
        binary.chmod(0o755)
    plugins = Plugins(str(tmp_path), Spawner(), lambda _: None, lambda _: None)
    assert registry.plugins(str(tmp_path)) == ["mine"]
    assert registry.load("mine", plugins) is registry.load("mine", plugins)
    assert registry.load("mine", plugins).name == "mine"
    assert not isinstance(registry.load("ssh", plugins), PluginDriver)
    with pytest.raises(DriverError, match=r'plugin binary "docker-machine-driver-none"'):
        registry.load("none", plugins)
