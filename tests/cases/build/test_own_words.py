"""`machine docker ...` and docker's own command line say the same of one engine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases.build.engine import REPOSITORY, Engine


def words(engine: Engine, program: list[str], line: str) -> str:
    done = subprocess.run(
        [*program, *shlex.split(line)],
        cwd=REPOSITORY,
        env={**os.environ, "DOCKER_HOST": f"unix://{engine.socket}", "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ours(engine: Engine, line: str) -> str:
    return words(engine, [sys.executable, "-m", "machine", "docker"], line)


def dockers(engine: Engine, line: str) -> str:
    return words(engine, ["docker"], line)


@pytest.mark.parametrize("line", ["system df", "system df --format {{.Type}}={{.Size}}"])
def test_system_df(engine: Engine, line: str) -> None:
    engine.build(
        "FROM busybox\nRUN dd if=/dev/zero of=/z bs=1000 count=1234 2>/dev/null\n", t="df:1"
    )
    made = engine.json("POST", "/containers/create", {"Image": "df:1", "Cmd": ["true"]})["Id"]
    engine.json("POST", "/volumes/create", {"Name": "df"})
    try:
        mine, theirs = ours(engine, line), dockers(engine, line)
        assert [one.split() for one in mine.splitlines()] == [
            one.split() for one in theirs.splitlines()
        ]
        assert "Images" in mine
    finally:
        engine.ask("DELETE", f"/containers/{made}")
        engine.ask("DELETE", "/volumes/df")
        engine.ask("DELETE", "/images/df:1")


def test_commit_and_prunes(engine: Engine) -> None:
    made = engine.json(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", "echo 1 > /new"]}
    )["Id"]
    engine.json("POST", f"/containers/{made}/start")
    engine.json("POST", f"/containers/{made}/wait")
    identity = ours(engine, f"commit -m words -c 'USER 7' {made} own/words:1").strip()
    found = engine.inspect("own/words:1")
    assert found["Id"] == identity
    assert found["Comment"] == "words"
    assert found["Config"]["User"] == "7"
    assert engine.run("own/words:1", "cat", "/new") == "1\n"
    engine.json("POST", "/networks/create", {"Name": "own-words"})
    assert "own-words" in ours(engine, "network prune -f")
    said = ours(engine, "system prune -a -f")
    assert f"Deleted Containers:\n{made}\n" in said
    assert "untagged: own/words:1\n" in said
    assert "Total reclaimed space:" in said
    assert dockers(engine, "images -q own/words") == ""
    engine.load_busybox()
    engine.build("FROM busybox\nRUN echo cached\n")
    assert "Deleted build cache objects:" in ours(engine, "builder prune -a -f")


def test_build_is_also_image_build(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo built\n")
    for verb in ("build", "image build", "builder build"):
        assert "built\n" in ours(engine, f"{verb} --no-cache {tmp_path}")
