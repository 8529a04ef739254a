"""Container commands: the words of a command line become requests, answers become text."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from machine.cli.root import root
from machine.cli.session import Session
from machine.errors import MachineError
from tests.unit.machine.tinyengine import Answer, Asked, unix_engine

CONTAINER = {
    "Id": "c0ffee" * 10 + "abcd",
    "Names": ["/web"],
    "Image": "httpd",
    "ImageID": "sha256:1",
    "Command": "httpd-foreground -x",
    "Created": 1,
    "State": "running",
    "Status": "Up 3 minutes",
    "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
    "Labels": {},
}


def _machine(folder: Path, answers: dict[str, Answer], *args: str) -> tuple[int, str, list[Asked]]:
    """(exit status, what was printed, what the engine was asked)."""
    out = io.StringIO()
    env = {"DOCKER_HOST": f"unix://{folder}/e.sock"}
    session = Session("machine", env, io.StringIO(), out, out)
    with unix_engine(folder, answers) as server:
        status = root.main(list(args), prog_name="machine", standalone_mode=False, obj=session)
        return status if isinstance(status, int) else 0, out.getvalue(), server.asked


@pytest.mark.parametrize(
    ("words", "query"),
    [
        ("ps", {}),
        ("ps -a", {"all": "1"}),
        ("ps -l", {"all": "1", "limit": "1"}),
        ("ps -n 3", {"all": "1", "limit": "3"}),
        ("ps -s", {"size": "1"}),
        ("ps -f status=exited -f label=a=b",
         {"filters": '{"status": ["exited"], "label": ["a=b"]}'}),
        ("docker container ls -a", {"all": "1"}),
    ],
)  # fmt: skip
def test_ps_asks(tmp_path: Path, words: str, query: dict[str, str]) -> None:
    _, _, asked = _machine(tmp_path, {"GET /containers/json": (200, [])}, *words.split())
    found = dict(asked[-1].query)
    wanted = dict(query)
    if "filters" in found:
        assert json.loads(found.pop("filters")) == json.loads(wanted.pop("filters"))
    assert found == wanted


def test_ps_shows(tmp_path: Path) -> None:
    answers: dict[str, Answer] = {"GET /containers/json": (200, [CONTAINER])}
    _, text, _ = _machine(tmp_path, answers, "ps")
    assert " ".join(text.splitlines()[0].split()) == (
        "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    )
    assert "c0ffeec0ffee " in text
    assert "0.0.0.0:8080->80/tcp" in text


@pytest.mark.parametrize(
    ("words", "request_line", "query", "body"),
    [
        ("docker stop -t 3 web", "POST /containers/web/stop", {"t": "3"}, None),
        ("docker kill -s HUP web", "POST /containers/web/kill", {"signal": "HUP"}, None),
        ("docker rm -f -v web", "DELETE /containers/web", {"force": "1", "v": "1"}, None),
        ("docker restart web", "POST /containers/web/restart", {}, None),
        ("docker rename web site", "POST /containers/web/rename", {"name": "site"}, None),
        ("docker pause web", "POST /containers/web/pause", {}, None),
        ("docker unpause web", "POST /containers/web/unpause", {}, None),
        ("rmi -f httpd", "DELETE /images/httpd", {"force": "1"}, None),
        ("docker tag httpd me/web:1", "POST /images/httpd/tag", {"repo": "me/web", "tag": "1"},
         None),
        ("docker volume create --label a=b data", "POST /volumes/create", {},
         {"Name": "data", "Labels": {"a": "b"}}),
        ("docker volume rm data", "DELETE /volumes/data", {}, None),
        ("docker volume ls", "GET /volumes", {}, None),
    ],
)  # fmt: skip
def test_requests(
    tmp_path: Path,
    words: str,
    request_line: str,
    query: dict[str, str],
    body: dict[str, object] | None,
) -> None:
    answer: object = [] if request_line.startswith("DELETE /images") else {"Name": "data"}
    status, _, asked = _machine(tmp_path, {request_line: (200, answer)}, *words.split())
    assert status == 0
    found = asked[-1]
    assert f"{found.method} {found.path}" == request_line
    assert query.items() <= found.query.items()
    if body is not None:
        assert isinstance(found.body, dict)
        assert body.items() <= found.body.items()


def test_run_detached(tmp_path: Path) -> None:
    answers: dict[str, Answer] = {
        "POST /containers/create": (201, {"Id": "abc", "Warnings": ["careful"]}),
        "POST /containers/abc/start": (204, None),
    }
    args = ["run", "-d", "--name", "web", "--restart", "on-failure:3", "-p", "8080:80/tcp", "-e",
            "A=1", "-v", "data:/srv:ro", "-m", "64m", "--cpus", "1.5", "httpd", "httpd", "-X"]  # fmt: skip
    status, text, asked = _machine(tmp_path, answers, *args)
    assert status == 0
    assert "abc\n" in text
    create = asked[0]
    assert create.query == {"name": "web"}
    body = create.body
    assert isinstance(body, dict)
    assert body["Image"] == "httpd"
    assert body["Cmd"] == ["httpd", "-X"]
    assert body["Env"] == ["A=1"]
    host = body["HostConfig"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert host["Binds"] == ["data:/srv:ro"]
    assert (host["Memory"], host["NanoCpus"]) == (64 << 20, 1_500_000_000)
    assert [f"{a.method} {a.path}" for a in asked] == list(answers)


def test_an_engine_error_is_told(tmp_path: Path) -> None:
    answers: dict[str, Answer] = {"GET /containers/json": (500, {"message": "out of luck"})}
    with pytest.raises(MachineError, match="Error response from daemon: out of luck"):
        _machine(tmp_path, answers, "ps")


def test_several_names_go_on_after_an_error(tmp_path: Path) -> None:
    answers: dict[str, Answer] = {"POST /containers/b/stop": (204, None)}
    status, text, asked = _machine(tmp_path, answers, "docker", "stop", "a", "b")
    assert status == 1
    assert "no answer for /containers/a/stop" in text
    assert [a.path for a in asked] == ["/containers/a/stop", "/containers/b/stop"]


def test_no_machine_is_selected(tmp_path: Path) -> None:
    session = Session("machine", {}, io.StringIO(), io.StringIO(), io.StringIO())
    with pytest.raises(MachineError, match="No machine is selected"):
        root.main(["-s", str(tmp_path), "ps"], standalone_mode=False, obj=session)


def test_version_and_info_are_dockers_text(tmp_path: Path) -> None:
    version = {
        "Version": "1.2", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux",
        "Arch": "amd64", "Platform": {"Name": "Machine Engine"},
        "Components": [{"Name": "Engine", "Version": "1.2"}, {"Name": "crun", "Version": "1.8"}],
    }  # fmt: skip
    answers: dict[str, Answer] = {
        "GET /version": (200, version),
        "GET /info": (200, {"Name": "web\x1b[2J", "MemTotal": 3 << 30, "Labels": ["a=b"]}),
    }
    (tmp_path / "v").mkdir()
    (tmp_path / "i").mkdir()
    _, text, _ = _machine(tmp_path / "v", answers, "docker", "version")
    assert "Server: Machine Engine" in text
    assert "  API version:      1.51 (minimum version 1.24)" in text
    assert " crun:\n  Version:          1.8" in text
    _, text, _ = _machine(tmp_path / "i", answers, "docker", "info")
    assert " Name: web\\x1b[2J\n" in text
    assert " Total Memory: 3GiB\n" in text
    assert " Labels:\n  a=b\n" in text
