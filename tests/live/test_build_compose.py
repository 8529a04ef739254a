"""Compose's classic build (DOCKER_BUILDKIT=0) against a created machine."""

import pytest

from tests.live.conftest import MakeProject
from tests.support.installed import Installed

_FILE = """
services:
  one:
    build:
      context: .
      dockerfile: Containerfile
      target: last
      args: {WHO: compose}
      labels: {made.by: compose}
    image: built-by-compose:1
    command: sleep 1000
  two:
    build: ./two
    command: sleep 1000
    depends_on: [one]
"""
_DOCKERFILE = """
FROM busybox AS base
ARG WHO=nobody
COPY . /context
RUN echo "for $WHO" > /who

FROM base AS last
RUN cat /who

FROM base
RUN exit 9
"""


def test_build_and_up(project: MakeProject, box: Installed) -> None:
    built = project("daily.yaml")
    built.write(_FILE)
    built.write(_DOCKERFILE, "Containerfile")
    built.write("hidden\n", ".dockerignore")
    built.write("x", "hidden")
    (built.folder / "two").mkdir()
    built.write("FROM busybox\nRUN echo two > /who\n", "two/Dockerfile")
    try:
        said = built("build", DOCKER_BUILDKIT="0")
        assert "Successfully tagged built-by-compose:1" in said.text + said.complaint
        built("up", "-d", "-t", "0", DOCKER_BUILDKIT="0")
        assert built.sh("one", "cat /who; ls /context").lines == [
            *("for compose", "Containerfile", "compose.yaml", "two"),
        ]
        assert built.sh("two", "cat /who").lines == ["two"]
        label = box.docker(
            "inspect", "-f", '{{index .Config.Labels "made.by"}}', "built-by-compose:1"
        )
        assert label.text == "compose"
    finally:
        built("down", "-v", "-t", "0", "--rmi", "all", check=False)


@pytest.mark.parametrize(
    ("dockerfile", "says"),
    [("FROM busybox\nRUN exit 7\n", "returned a non-zero code: 7"), ("FROMM x\n", "line 1")],
)
def test_failures_are_told(project: MakeProject, dockerfile: str, says: str) -> None:
    built = project("daily.yaml")
    built.write("services: {bad: {build: .}}\n")
    built.write(dockerfile, "Dockerfile")
    done = built("build", check=False, DOCKER_BUILDKIT="0")
    assert done.status != 0
    assert says in done.text + done.complaint
