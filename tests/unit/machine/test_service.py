"""create as a journal: cut off at every point, then finished or removed, with nothing left over."""

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from drivers.api import Address, DriverContext
from drivers.fake import FakeCloud, FakeDriver
from drivers.options import Value, resolve
from drivers.testkit import NoHttp, NoRunner, TurnedClock
from machine import journal
from machine.errors import EXIT_PRECHECK, MachineError, NotFoundError
from machine.hosts import Hosts, Ports
from machine.journal import Step
from machine.lifecycle import Event
from machine.model import AuthFiles, EngineOptions, MachineRecord, Phase
from machine.progress import PlainProgress
from machine.service import CreateRequest, Service
from machine.store import Store
from tests.unit.machine.provision.test_apply import Script, Scripted, talk
from tests.unit.machine.provision.test_plan import DEBIAN


class CutOffError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class FakeHost:
    """A transport whose host is Debian; `cut` names a remote run that never comes back."""

    def __init__(self, clock: TurnedClock, facts: str = DEBIAN) -> None:
        self.clock, self.facts = clock, facts
        self.cut = ""
        self.runs: list[str] = []

    def connect(self, *_: object) -> Scripted:
        self._maybe("connect")
        return _Transport(self)

    def _maybe(self, what: str) -> None:
        self.runs.append(what)
        if self.cut == what:
            self.cut = ""
            raise CutOffError


class _Transport(Scripted):
    def __init__(self, host: FakeHost) -> None:
        super().__init__()
        self.host = host

    def start(self, command: str) -> Script:
        if "-c" in command and "python3" in command:
            return _Python(self.host)
        self.host._maybe("facts")
        return Script([self.host.facts.format(now=int(self.host.clock.now())).encode()])


class _Python(Script):
    """Plays onhost/install.py or onhost/remove.py."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__([])
        self._host = host

    def send(self, data: bytes) -> None:
        if not self.sent:
            name = json.loads(data.split(b"\n", 1)[0])[1][0].rpartition(".")[2]
            self._host._maybe(name)
            self._chunks = self._play() if name == "install" else iter(talk({"done": True}))
        super().send(data)

    def _play(self) -> Iterator[bytes]:
        yield from talk({"tls": ""})
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        yield from talk({"csr": pem.decode()}, {"done": True, "changed": True})


class World:
    """A store, a cloud, a host, and the service over them."""

    def __init__(self, folder: Path, facts: str = DEBIAN) -> None:
        self.cloud = FakeCloud()
        self.clock = TurnedClock()
        self.host = FakeHost(self.clock, facts)
        self.store = Store(folder / "store")
        self.out = io.StringIO()
        self.cache = folder / "cache"

    def service(self) -> Service:
        ports = Ports(
            env={"FAKE_TOKEN": "s3cret"}, clock=self.clock, runner=NoRunner(), http=NoHttp(),
            cache=self.cache, ssh=self.host.connect, say=lambda _: None,
        )  # fmt: skip
        hosts = _Hosts(self.store, ports, FakeDriver(self.cloud))
        return Service(
            self.store, ports, PlainProgress(self.out), hosts=hosts, ask_version=self._verify
        )

    def _verify(self, record: MachineRecord) -> str:
        del record
        self.host._maybe("verify")
        return "1"

    def create(self) -> MachineRecord:
        return self.service().create(request())


class _Hosts(Hosts):
    def __init__(self, store: Store, ports: Ports, driver: FakeDriver) -> None:
        super().__init__(store, ports)
        self._driver = driver

    def driver(self, record: MachineRecord) -> FakeDriver:
        del record
        return self._driver


def request(**given: Value | None) -> CreateRequest:
    values = resolve(FakeDriver(FakeCloud()).options, {"token": "s3cret", **given}, {})
    return CreateRequest("web", "fake", values, EngineOptions(), AuthFiles())


def test_create(tmp_path: Path) -> None:
    world = World(tmp_path)
    record = world.create()
    assert record == world.store.load("web")
    assert record.phase is Phase.READY
    assert [e.step for e in record.journal] == [s.value for s in Step]
    assert record.url == "tcp://192.0.2.2:2376"
    folder = world.store.machine_dir("web")
    assert {"ca.pem", "cert.pem", "key.pem", "server.pem"} <= {p.name for p in folder.iterdir()}
    assert "s3cret" not in world.store.record_lines("web").decode()
    with pytest.raises(MachineError, match='"web" already exists'):
        world.create()


@pytest.mark.parametrize("cut", ["connect", "facts", "install", "verify"])
@pytest.mark.parametrize("then", ["resume", "remove"])
def test_create_cut_off_at_a_step(tmp_path: Path, cut: str, then: str) -> None:
    world = World(tmp_path)
    world.host.cut = cut
    with pytest.raises(CutOffError):
        world.create()
    assert world.store.load("web").phase is Phase.CREATING
    if then == "resume":
        assert world.create().phase is Phase.READY
        assert len(world.cloud.servers) == 1
    else:
        world.service().remove("web", force=False, uninstall=False)
        assert (world.cloud.servers, world.cloud.keys) == ({}, {})
        assert world.store.names() == []


@pytest.mark.parametrize("call", ["find", "make_key", "make_server"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_provider_faults_leave_one_of_each(tmp_path: Path, call: str, when: str) -> None:
    world = World(tmp_path)
    world.cloud.faults[call] = when
    with pytest.raises(MachineError, match="Error creating machine"):
        world.create()
    world.create()
    assert (len(world.cloud.servers), len(world.cloud.keys)) == (1, 1)
    world.service().remove("web", force=False, uninstall=False)
    assert (world.cloud.servers, world.cloud.keys) == ({}, {})


def test_precheck_leaves_no_ghost(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(MachineError) as caught:
        world.service().create(request(size="huge"))
    assert caught.value.exit_code == EXIT_PRECHECK
    assert world.store.names() == []


def test_unsuitable_new_host_is_kept_for_inspection(tmp_path: Path) -> None:
    world = World(tmp_path, DEBIAN.replace("x86_64", "i686"))
    with pytest.raises(MachineError, match="Error creating machine"):
        world.create()
    assert world.store.load("web").phase is Phase.CREATING
    assert "install" not in world.host.runs
    assert not journal.started(world.store.load("web"), Step.PROVISION)


def test_rm_that_fails_keeps_the_record_and_force_forgets(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.create()
    world.cloud.faults["find"] = "before"
    with pytest.raises(MachineError, match="500"):
        world.service().remove("web", force=False, uninstall=False)
    assert world.store.load("web").phase is Phase.REMOVING
    world.cloud.faults["find"] = "before"
    world.service().remove("web", force=True, uninstall=False)
    with pytest.raises(NotFoundError):
        world.store.load("web")


def test_power(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.create()
    service = world.service()
    service.power(["web"], Event.STOP)
    with pytest.raises(MachineError, match='Machine "web" is already stopped'):
        service.power(["web"], Event.STOP)
    with pytest.raises(MachineError, match="Host is not running"):
        service.url("web")
    service.power(["web"], Event.START)
    service.power(["web"], Event.RESTART)
    assert service.url("web") == "tcp://192.0.2.2:2376"
    world.cloud.servers.clear()
    with pytest.raises(MachineError, match="no longer exists"):
        service.power(["web"], Event.KILL)


class _OtherPort(FakeDriver):
    def address(self, ctx: DriverContext) -> Address:
        return dataclasses.replace(super().address(ctx), engine_port=20001)


def test_an_engine_whose_forwarded_port_changed_is_told_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.create()
    service = world.service()
    service.power(["web"], Event.STOP)
    hosts = service.hosts
    assert isinstance(hosts, _Hosts)
    hosts._driver = _OtherPort(world.cloud)
    service.power(["web"], Event.START)
    assert world.store.load("web").engine_port == 20001
    assert world.host.runs.count("install") == 2
    service.power(["web"], Event.RESTART)
    assert world.host.runs.count("install") == 2


def test_regenerate_and_provision(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.create()
    folder = world.store.machine_dir("web")
    before = (folder / "cert.pem").read_bytes()
    world.service().regenerate_certs(["web"], client=True)
    assert (folder / "cert.pem").read_bytes() != before
    world.service().provision(["web"])
    assert world.host.runs.count("install") == 3


def test_one_bad_name_stops_before_anything(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.create()
    with pytest.raises(NotFoundError):
        world.service().power(["web", "nope"], Event.STOP)
    assert next(iter(world.cloud.servers.values())).state.value == "Running"
