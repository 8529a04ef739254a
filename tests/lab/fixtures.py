"""Pytest fixtures of the lab. Safe under xdist: each worker has a lab of its own.

`lab`        the worker's lab (tests.lab.lab.Lab): `lab.host(variant="plain", flavour="bare")`
`host`       a fresh systemd host for this test alone, removed after it
`make_host`  makes such hosts: `make_host("plain")`, `make_host(flavour="bare")`
`registry`   the lab's registry (tests.lab.registry.Registry), shared: push under names of your own
`libvirtd`   the lab's libvirtd with QEMU (tests.lab.libvirtd.Libvirtd)
`docker_cli` the path of a docker client
`compose_program` the path of docker-compose, version 2
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.compose import compose_program as fetch_compose
from tests.lab.host import Host
from tests.lab.hostroot import Flavour, Variant
from tests.lab.lab import Lab, open_lab, remove_stale
from tests.lab.libvirtd import Libvirtd
from tests.lab.registry import Registry
from tests.lab.settings import Settings, from_environment

MakeHost = Callable[..., Host]


@pytest.fixture(scope="session")
def lab_settings() -> Settings:
    """Where the lab keeps its cache and state."""
    return from_environment(os.environ)


@pytest.fixture(scope="session")
def lab(lab_settings: Settings, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """This process's lab; removed at the end, or by the next session if this one is killed."""
    if os.geteuid() != 0:
        pytest.fail("the lab needs root", pytrace=False)
    remove_stale(lab_settings)
    workers = getattr(request.config, "workerinput", {"workerid": "main"})
    made = open_lab(lab_settings, f"pytest-{os.getpid()}-{workers['workerid']}", owner=os.getpid())
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def make_host(lab: Lab) -> Iterator[MakeHost]:
    """A factory of hosts that end with the test."""
    made: list[Host] = []

    def make(variant: Variant = "systemd", flavour: Flavour = "full") -> Host:
        host = lab.host(variant=variant, flavour=flavour)
        made.append(host)
        return host

    try:
        yield make
    finally:
        for host in made:
            host.destroy()


@pytest.fixture
def host(make_host: MakeHost) -> Host:
    """A fresh host, systemd, with the container parts installed."""
    return make_host()


@pytest.fixture(scope="session")
def registry(lab: Lab) -> Registry:
    """The lab's registry, running."""
    return lab.registry()


@pytest.fixture(scope="session")
def libvirtd(lab: Lab) -> Iterator[Libvirtd]:
    """The lab's hypervisor, running, with nothing on it; tests leave it so."""
    made = Libvirtd(lab)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def docker_cli(lab: Lab) -> Path:
    """A docker client."""
    return lab.docker_cli()


@pytest.fixture(scope="session")
def compose_program(lab: Lab) -> Path:
    """Docker Compose."""
    return fetch_compose(lab.debian)
