from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.server.limits import Limits
from agent.server.listeners import Listener, TlsListener, UnixListener
from agent.server.tls import TlsConfig
from tests.api.certs import Authority, Files
from tests.api.clients import TlsClient, UnixClient
from tests.api.fakes import FakeApplication, Running

LIMITS = Limits(linger=1.0, liveness=0.2, stall=1.0, shutdown=3.0)


@dataclasses.dataclass
class Site:
    running: Running
    application: FakeApplication
    authority: Authority
    client: Files
    server: Files
    path: str
    directory: Path
    tls: TlsConfig
    clients: list[UnixClient | TlsClient] = dataclasses.field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        return self.running.server.tcp_addresses[0]

    def unix(self):
        self.clients.append(UnixClient(self.path))
        return self.clients[-1]

    def tcp(self, files: Files | None = None, **options):
        client = TlsClient(self.address, self.authority, files or self.client, **options)
        self.clients.append(client)
        return client

    def connect(self, kind: str):
        return self.unix() if kind == "unix" else self.tcp()


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path: a socket's path has at most 107 bytes.
    path = Path(tempfile.mkdtemp(prefix="wire-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture
def site(directory: Path, limits: Limits) -> Iterator[Site]:
    authority = Authority(directory)
    server = authority.server()
    config = TlsConfig(
        server.certificate, server.key, authority.path, revoked=str(directory / "revoked")
    )
    application = FakeApplication()
    path = str(directory / "engine.sock")
    listeners: list[Listener] = [UnixListener(path), TlsListener("127.0.0.1", 0, config)]
    with Running(application, listeners, limits) as running:
        made = Site(
            running, application, authority, authority.client(), server, path, directory, config
        )
        yield made
        for client in made.clients:
            client.close()
