"""security.md case 75: build secrets reach one RUN and nothing else."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cases.build.engine import REPOSITORY, Built, Engine, tar


def header(given: Mapping[str, bytes]) -> dict[str, str]:
    document = {name: base64.b64encode(value).decode() for name, value in given.items()}
    raw = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
    return {"X-Machine-Build-Secrets": raw}


def build(engine: Engine, dockerfile: str, given: Mapping[str, bytes], **query: object) -> Built:
    context = tar({"Dockerfile": dockerfile})
    return Built(*engine.ask("POST", "/build", context, header(given), **query))


def holding(folder: Path, needle: bytes) -> list[str]:
    """The files below a folder in which the bytes are."""
    done = subprocess.run(["grep", "-rlaF", "-e", needle, str(folder)], capture_output=True)
    return done.stdout.decode().split()


def test_case_075_a_secret_is_nowhere_afterwards(engine: Engine) -> None:
    planted = f"s3cret-{secrets.token_hex(16)}".encode()
    said = build(
        engine,
        "FROM busybox\n"
        "RUN --mount=type=secret,id=tok stat -c '%a %u %g' /run/secrets/tok; "
        "sha256sum < /run/secrets/tok; grep -c run/secrets /proc/mounts\n"
        "RUN --mount=type=secret,id=tok,env=TOKEN,required=true "
        'printf "env:"; printf %s "$TOKEN" | sha256sum; env | grep -c s3cret\n'
        "RUN ls -R /run /root 2>&1 || true; env | grep s3cret; true\n",
        {"tok": planted},
    )
    assert said.error == "", said.lines
    digest = subprocess.run(["sha256sum"], input=planted, capture_output=True, check=True).stdout
    assert "400 0 0\n" in said.text
    assert said.text.count(digest.decode().split()[0]) == 2
    document = json.dumps(engine.inspect(said.image))
    history = json.dumps(engine.json("GET", f"/images/{said.image}/history"))
    assert planted.decode() not in said.text + document + history
    assert holding(engine.folder, planted) == []
    status, saved = engine.ask("GET", f"/images/{said.image}/get")
    assert status == 200
    assert planted not in saved
    assert os.listdir(engine.folder / "run" / "build-secrets") == []
    assert engine.run(said.image, "sh", "-c", "ls -d /run/secrets; true").startswith("ls:")


def test_case_075_the_file_is_as_asked(engine: Engine) -> None:
    said = build(
        engine,
        "FROM busybox\nWORKDIR /w\n"
        "RUN --mount=type=secret,id=a,target=key,mode=0440,uid=33,gid=50 "
        "stat -c '%n %a %u %g' /w/key; echo no > /w/key || echo read-only\n"
        "RUN --mount=type=secret,src=b,dst=/root/.netrc cat /root/.netrc\n"
        "RUN --mount=type=secret,target=/x/c cat /x/c\n"
        "RUN ls -d /w/* /x /root/.netrc 2>/dev/null | wc -l\n",
        {"a": b"1", "b": b"netrc\n", "c": b"by target\n"},
        nocache=1,
    )
    assert said.error == "", said.lines
    assert "/w/key 440 33 50\n" in said.text
    assert "read-only\n" in said.text
    assert "netrc\n" in said.text
    assert "by target\n" in said.text
    assert said.text.rstrip().splitlines()[-4].endswith("0"), said.text


def test_case_075_a_secret_that_is_not_given(engine: Engine) -> None:
    said = engine.build("FROM busybox\nRUN --mount=type=secret,id=no ls /run/secrets || echo no\n")
    assert said.error == ""
    assert "no\n" in said.text
    said = engine.build("FROM busybox\nRUN --mount=type=secret,id=no,required true\n")
    assert said.error.startswith("secret no: not found")


def test_case_075_the_cache_knows_names_only(engine: Engine) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=tok wc -c < /run/secrets/tok\n"
    assert "Using cache" not in build(engine, text, {"tok": b"1"}).text
    assert "Using cache" in build(engine, text, {"tok": b"22"}).text
    assert "Using cache" not in build(engine, text.replace("tok", "k"), {"k": b"1"}).text


@pytest.mark.parametrize("options", ["mode=9", "uid=-1", "required=maybe", "id=", "target=/"])
def test_case_075_bad_options(engine: Engine, options: str) -> None:
    base = "" if options == "id=" else "id=tok,"
    said = build(
        engine, f"FROM busybox\nRUN --mount=type=secret,{base}{options} true\n", {"tok": b"1"}
    )
    assert said.error != ""
    assert os.listdir(engine.folder / "run" / "build-secrets") == []


def test_case_075_a_secret_that_is_no_text(engine: Engine) -> None:
    said = build(engine, "FROM busybox\nRUN --mount=type=secret,id=b,env=B true\n", {"b": b"\xff"})
    assert said.error == "secret b can't be a variable: it is no text"


@pytest.mark.parametrize("text", ["!", "bm90IGpzb24=", "W10=", "eyJhIjoxfQ==", "eyIiOiAiIn0="])
def test_case_075_a_header_that_is_wrong(engine: Engine, text: str) -> None:
    context = tar({"Dockerfile": "FROM busybox\n"})
    said = Built(*engine.ask("POST", "/build", context, {"X-Machine-Build-Secrets": text}))
    assert said.status == 400
    assert text not in said.error


def test_case_075_our_own_command_sends_them(engine: Engine, tmp_path: Path) -> None:
    planted = f"s3cret-{secrets.token_hex(8)}"
    (tmp_path / "key").write_text(planted)
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=f --mount=type=secret,id=V,env=V "
        'cat /run/secrets/f | wc -c; echo "${#V}"; [ "$V" = "$(cat /run/secrets/f)" ] && echo same\n'
    )
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "machine", "build", "--secret", f"id=f,src={tmp_path / 'key'}"),
            *("--secret", "id=V", str(tmp_path / "context")),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "DOCKER_HOST": f"unix://{engine.socket}", "V": planted},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "same\n" in done.stdout
    assert planted not in done.stdout + done.stderr
    assert holding(engine.folder, planted.encode()) == []
