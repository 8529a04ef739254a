"""`docker build` by the real client's classic builder, docker-py's build, and `machine build`."""

from __future__ import annotations

import contextlib
import io
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from tests.lab.waiting import wait_until
from tests.support.installed import Done, Installed

CLASSIC = {"DOCKER_BUILDKIT": "0"}
MULTI = """ARG BASE=busybox
FROM $BASE AS one
ARG WHO=nobody
RUN echo "made for $WHO" > /made
FROM busybox
LABEL purpose=test
COPY --from=one /made /made
COPY . /all/
RUN ls -A /all
CMD ["cat", "/made"]
"""


@contextlib.contextmanager
def folder(box: Installed, files: Mapping[str, str]) -> Iterator[Path]:
    place = box.folder / f"context-{secrets.token_hex(4)}"
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield place


def build(box: Installed, *arguments: str, data: bytes = b"", check: bool = True) -> Done:
    return box.docker("build", *arguments, data=data, check=check, extra=CLASSIC)


@pytest.fixture
def clean(box: Installed) -> Iterator[Installed]:
    yield box
    listed: Any = box.api("GET", "/images/json", all=1).json()
    ids = {one["Id"] for one in listed}
    for one in ids:
        found: Any = box.api("GET", f"/images/{one}/json").document
        if not any(str(tag).startswith("busybox") for tag in found["RepoTags"]):
            box.api("DELETE", f"/images/{one}", force=1)
    box.api("POST", "/build/prune", all=1)


def test_multi_stage_cache_and_ignore(clean: Installed) -> None:
    files = {
        "Dockerfile": MULTI,
        ".dockerignore": "*.log\nskip\n!keep.log\n",
        "a": "1",
        "x.log": "2",
        "keep.log": "3",
        "skip/y": "4",
    }
    with folder(clean, files) as place:
        first = build(clean, "-t", "multi:1", "--build-arg", "WHO=you", str(place))
        assert "Step 1/10 : ARG BASE=busybox" in first.lines
        assert "Successfully tagged multi:1" in first.lines
        listed = first.text.partition("Step 9/10")[2].splitlines()[2:6]
        assert listed == [".dockerignore", "Dockerfile", "a", "keep.log"]
        again = build(clean, "-t", "multi:2", "--build-arg", "WHO=you", str(place))
        assert again.text.count("Using cache") == 7
        other = build(clean, "--build-arg", "WHO=me", str(place))
        assert other.text.count("Using cache") == 2
    assert clean.docker("run", "--rm", "multi:1").text == "made for you"
    history = clean.docker("history", "--no-trunc", "multi:1").text
    assert 'CMD ["cat" "/made"]' in history


def test_dockerfile_from_stdin(clean: Installed) -> None:
    said = build(clean, "-t", "piped", "-", data=b"FROM busybox\nRUN echo from stdin\n")
    assert "from stdin" in said.lines
    with folder(clean, {"f": "file\n", "Dockerfile": "FROM nowhere.invalid/x\n"}) as place:
        said = build(clean, "-f", "-", str(place), data=b"FROM busybox\nCOPY f /f\nRUN cat /f\n")
        assert "file" in said.lines


def test_quiet_iidfile_target(clean: Installed) -> None:
    with folder(
        clean, {"Dockerfile": "FROM busybox AS a\nRUN true\nFROM a AS b\nRUN false\n"}
    ) as at:
        said = build(clean, "-q", "--target", "a", "--iidfile", str(at / "id"), str(at))
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", said.text)
        assert (at / "id").read_text().strip() == said.text
        failed = build(clean, str(at), check=False)
        assert failed.status == 1
        assert "The command '/bin/sh -c false' returned a non-zero code: 1" in failed.complaint


def test_errors_of_the_client(clean: Installed) -> None:
    with folder(clean, {"Dockerfile": "FROM busybox\nRUN x\nNOPE\n"}) as place:
        failed = build(clean, str(place), check=False)
        assert (failed.status, failed.out) == (1, b"") or b"Sending" in failed.out
        assert "dockerfile parse error on line 3: unknown instruction: NOPE" in failed.complaint


def test_options_arrive(clean: Installed) -> None:
    text = "FROM busybox\nRUN cat /etc/hosts; ls /sys/class/net; df -k /dev/shm | tail -1\n"
    with folder(clean, {"sub/My.docker": text}) as place:
        options = ["--add-host", "one:10.9.8.7", "--network", "none", "--shm-size", "8m"]
        options += [
            "--label",
            "a=b c",
            "--no-cache",
            "--memory",
            "64m",
            "-f",
            f"{place}/sub/My.docker",
        ]
        said = build(clean, *options, "-t", "opts", str(place))
    assert "10.9.8.7\tone" in said.text
    assert re.search(r"\nlo\n", said.text)
    assert re.search(r"8192", said.text)
    assert clean.docker("inspect", "opts", "--format", "{{.Config.Labels.a}}").text == "b c"


def test_build_reaches_the_network(clean: Installed) -> None:
    said = build(clean, "-", data=b"FROM busybox\nRUN ip -o -4 addr show eth0 && ip route\n")
    assert "172.17." in said.text
    assert "default via" in said.text


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_docker_py(clean: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers them to docker's own
        monkeypatch.delenv(name, raising=False)
    client = docker.from_env(environment=clean.environment, timeout=30)
    with folder(clean, {"Dockerfile": MULTI, "a": "1"}) as place, contextlib.closing(client):
        image, lines = client.images.build(path=str(place), tag="py:1", buildargs={"WHO": "py"})
        assert image.tags == ["py:1"]
        assert any("Successfully built" in one.get("stream", "") for one in lines)
        assert client.containers.run("py:1", remove=True) == b"made for py\n"
        with pytest.raises(docker.errors.BuildError, match="non-zero code: 3"):
            client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 3\n"))


def test_machine_build(clean: Installed) -> None:
    files = {
        "Dockerfile": MULTI,
        ".dockerignore": "*.log\n!keep.log\n",
        "a": "1",
        "x.log": "2",
        "keep.log": "3",
    }
    with folder(clean, files) as place:
        said = clean.machine("build", "-t", "own:1", "--build-arg", "WHO=us", str(place))
        listed = said.text.partition("Step 9/10")[2].splitlines()[2:6]
        assert listed == [".dockerignore", "Dockerfile", "a", "keep.log"]
        assert said.lines[-1] == "Successfully tagged own:1"
        again = clean.machine("docker", "build", "-q", "--build-arg", "WHO=us", str(place))
        assert again.text == clean.docker("inspect", "own:1", "--format", "{{.Id}}").text
    piped = clean.machine("build", "-", data=b"FROM busybox\nRUN echo piped; exit 9\n", check=False)
    assert piped.status == 9
    assert "returned a non-zero code: 9" in piped.complaint
    assert "piped" in piped.text


def test_commit(clean: Installed) -> None:
    clean.docker("run", "--name", "com", "busybox", "sh", "-c", "echo committed > /c")
    try:
        clean.docker("commit", "-m", "why", "-c", 'CMD ["cat", "/c"]', "com", "committed:1")
    finally:
        clean.docker("rm", "-f", "com")
    assert clean.docker("run", "--rm", "committed:1").text == "committed"
    found = json.loads(clean.docker("inspect", "committed:1").text)[0]
    assert found["Config"]["Cmd"] == ["cat", "/c"]


def test_a_missing_base_is_pulled(clean: Installed) -> None:
    clean.docker("rmi", "-f", "alpine:latest", check=False)
    said = build(clean, "-", data=b"FROM alpine\nRUN cat /etc/os-release | head -1\n")
    assert "latest: Pulling from library/alpine" in said.text
    assert "Status: Downloaded newer image for alpine:latest" in said.text
    again = build(clean, "--pull", "-", data=b"FROM alpine\nRUN true\n")
    assert "Status: Image is up to date for alpine:latest" in again.text
    failed = build(clean, "-", data=b"FROM nosuchimage:1\n", check=False)
    assert failed.status == 1
    assert "nosuchimage" in failed.complaint


def test_an_interrupted_client_leaves_nothing(clean: Installed) -> None:
    before = clean.api("GET", "/images/json", all=1).json()
    running = clean.begin("docker", "build", "-", env={**clean.environment, **CLASSIC})
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(b"FROM busybox\nRUN echo first\nRUN echo started; sleep 300\n")
    running.stdin.close()
    while b"started" not in (line := running.stdout.readline()) or b"RUN" in line:
        assert line, running.stderr.read() if running.stderr else ""
    running.kill()
    running.wait()
    for stream in (running.stdout, running.stderr):
        if stream is not None:
            stream.close()
    wait_until(
        lambda: not clean.host.run("pgrep", "-x", "sleep", check=False).stdout, 5, "it is gone"
    )
    assert clean.api("GET", "/images/json", all=1).json() == before
