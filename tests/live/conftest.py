"""Machines made once a worker, and swept after each test that used them.

`box`       the systemd machine            `plain_box`   the one without systemd
`make_box`  a machine of the test's own, on a fresh host
`project`   makes a Compose project of files in tests/live/compose, on `box`
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.hostroot import Variant
from tests.lab.lab import Lab
from tests.lab.registry import Registry
from tests.live.compose.project import Project, install_plugin
from tests.support.installed import Installed

MakeBox = Callable[..., Installed]
MakeProject = Callable[[str], Project]


def _install(
    lab: Lab, registry: Registry, factory: pytest.TempPathFactory, variant: Variant, name: str
) -> Installed:
    host = lab.host(variant=variant)
    return Installed(name, host, factory.mktemp(name), lab.docker_cli(), registry).create()


@pytest.fixture(scope="session")
def systemd_machine(
    lab: Lab, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """The worker's machine on a systemd host."""
    return _install(lab, registry, tmp_path_factory, "systemd", "demo")


@pytest.fixture(scope="session")
def plain_machine(
    lab: Lab, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """The worker's machine on a host without systemd."""
    return _install(lab, registry, tmp_path_factory, "plain", "simple")


@pytest.fixture
def box(systemd_machine: Installed) -> Iterator[Installed]:
    """The systemd machine with busybox on it; empty again after the test."""
    yield from _swept(systemd_machine)


@pytest.fixture
def plain_box(plain_machine: Installed) -> Iterator[Installed]:
    """The plain machine with busybox on it; empty again after the test."""
    yield from _swept(plain_machine)


@pytest.fixture(params=["systemd", "plain"])
def any_box(request: pytest.FixtureRequest) -> Iterator[Installed]:
    """Both machines, one after the other."""
    yield from _swept(request.getfixturevalue(f"{request.param}_machine"))


@pytest.fixture
def make_box(
    lab: Lab, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeBox]:
    """A factory of machines that end with the test."""
    made: list[Installed] = []

    def make(variant: Variant = "systemd", name: str = "own") -> Installed:
        made.append(_install(lab, registry, tmp_path_factory, variant, name))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.host.destroy()


def _swept(machine: Installed) -> Iterator[Installed]:
    if machine.api("GET", "/images/busybox/json").status == 404:
        machine.docker("pull", "-q", "busybox")
    try:
        yield machine
    finally:
        machine.sweep()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the test's own files."""
    return tmp_path


@pytest.fixture
def project(box: Installed, compose_program: Path, tmp_path: Path) -> Iterator[MakeProject]:
    """A factory of projects, `project("daily")`; nothing of them is left after the test."""
    extra = install_plugin(compose_program, tmp_path / "docker")
    made: list[Project] = []

    def make(source: str) -> Project:
        one = Project(box, tmp_path / source.removesuffix(".yaml"), extra)
        one.take(source)
        made.append(one)
        return one

    try:
        yield make
    finally:
        for one in made:
            one.remove()
