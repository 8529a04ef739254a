"""Registry credentials in docker's configuration file."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from machine.cli import credentials
from machine.errors import MachineError


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("debian", credentials.HUB),
        ("bitnami/redis:7", credentials.HUB),
        ("docker.io/library/x", credentials.HUB),
        ("10.0.0.1:5000/x", "10.0.0.1:5000"),
        ("localhost/x", "localhost"),
        ("ghcr.io/a/b@sha256:0", "ghcr.io"),
    ],
)
def test_the_server_of_a_name(name: str, server: str) -> None:
    assert credentials.server_of(name) == server


def test_kept_found_and_forgotten(tmp_path: Path) -> None:
    env = {"DOCKER_CONFIG": str(tmp_path / "new")}
    path = credentials.keep(env, "r.example", "me", "pass:word")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.find(env, "r.example") == ("me", "pass:word")
    header = credentials.registry_header(env, "r.example/x")["X-Registry-Auth"]
    assert json.loads(base64.urlsafe_b64decode(header)) == {
        "username": "me",
        "password": "pass:word",
        "serveraddress": "r.example",
    }
    assert credentials.registry_header(env, "debian") == {"X-Registry-Auth": "e30="}
    assert credentials.forget(env, "r.example")
    assert not credentials.forget(env, "r.example")
    assert credentials.find(env, "r.example") == ("", "")


def test_what_else_is_in_the_file_stays(tmp_path: Path) -> None:
    env = {"DOCKER_CONFIG": str(tmp_path)}
    (tmp_path / "config.json").write_text('{"detachKeys": "ctrl-a", "auths": {"x": {}}}')
    credentials.keep(env, "y", "u", "p")
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["detachKeys"] == "ctrl-a"
    assert set(document["auths"]) == {"x", "y"}


def test_a_credential_helper_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"credsStore": "pass"}')
    with pytest.raises(MachineError):
        credentials.keep({"DOCKER_CONFIG": str(tmp_path)}, "y", "u", "p")


def test_a_damaged_file_is_told_and_kept(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(MachineError):
        credentials.keep({"DOCKER_CONFIG": str(tmp_path)}, "y", "u", "p")
    assert (tmp_path / "config.json").read_text() == "{"
