"""commit, system df, the prunes, build secrets: words become requests, answers become text."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from pathlib import Path

import pytest

from machine.cli.buildsecrets import HEADER, header
from machine.cli.root import root
from machine.cli.session import Session
from machine.errors import MachineError
from tests.unit.machine.tinyengine import Answer, Asked, unix_engine


def _machine(
    folder: Path, answers: dict[str, Answer], words: str, typed: str = ""
) -> tuple[str, list[Asked]]:
    out = io.StringIO()
    folder = Path(tempfile.mkdtemp(dir=folder))  # one socket for each call
    env = {"DOCKER_HOST": f"unix://{folder}/e.sock"}
    session = Session("machine", env, io.StringIO(typed), out, out)
    with unix_engine(folder, answers) as server:
        root.main(words.split(), prog_name="machine", standalone_mode=False, obj=session)
        return out.getvalue(), server.asked


DF = {
    "LayersSize": 1000,
    "Images": [
        {"Id": "sha256:" + "a" * 64, "RepoTags": ["x:1", "x:2"], "Size": 700, "SharedSize": 200,
         "Containers": 1, "Created": 1},
        {"Id": "sha256:" + "b" * 64, "RepoTags": None, "Size": 500, "SharedSize": 200,
         "Containers": 0, "Created": 1},
    ],
    "Containers": [
        {"Id": "c" * 64, "Image": "x:1", "Command": "sleep 1000 and then some more", "SizeRw": 30,
         "State": "running", "Status": "Up 1 second", "Names": ["/web"], "Created": 1,
         "Mounts": [{"Type": "volume"}, {"Type": "bind"}]},
        {"Id": "d" * 64, "Image": "x:1", "Command": "true", "SizeRw": 10, "State": "exited",
         "Status": "Exited (0)", "Names": ["/job"], "Created": 1},
    ],
    "Volumes": [{"Name": "v", "UsageData": {"RefCount": 0, "Size": 2000}}],
    "BuildCache": [],
}  # fmt: skip


def test_system_df(tmp_path: Path) -> None:
    text, _ = _machine(tmp_path, {"GET /system/df": (200, DF)}, "docker system df")
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "TYPE TOTAL ACTIVE SIZE RECLAIMABLE",
        "Images 2 1 1kB 500B (50%)",
        "Containers 2 1 40B 10B (25%)",
        "Local Volumes 1 0 2kB 2kB (100%)",
        "Build Cache 0 0 0B 0B",
    ]


def test_system_df_verbose(tmp_path: Path) -> None:
    text, _ = _machine(tmp_path, {"GET /system/df": (200, DF)}, "docker system df -v")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "REPOSITORY TAG IMAGE ID CREATED SIZE SHARED SIZE UNIQUE SIZE CONTAINERS" in lines
    assert any(
        line.startswith("x 2 aaaaaaaaaaaa") and line.endswith("200B 500B 1") for line in lines
    )
    assert any(line.startswith("<none> <none> bbbbbbbbbbbb") for line in lines)
    assert any('"sleep 1000 and then" 1 30B' in line for line in lines)
    assert "v 0 2kB" in lines
    with pytest.raises(MachineError, match="conflict"):
        _machine(tmp_path, {}, "docker system df -v --format json")


def test_commit(tmp_path: Path) -> None:
    answers: dict[str, Answer] = {"POST /commit": (201, {"Id": "sha256:1"})}
    words = "docker commit -a me -m text -c USER=1 -c WORKDIR=/ --pause=false web a/b:2"
    text, asked = _machine(tmp_path, answers, words)
    assert text == "sha256:1\n"
    found = asked[-1].query
    wanted = {"container": "web", "repo": "a/b", "tag": "2", "author": "me", "comment": "text"}
    assert wanted.items() <= found.items()
    assert found["pause"] == "0"
    with pytest.raises(MachineError, match="invalid reference format"):
        _machine(tmp_path, answers, "docker container commit web x@sha256:1")


PRUNES: dict[str, Answer] = {
    "POST /containers/prune": (200, {"ContainersDeleted": ["c1"], "SpaceReclaimed": 10}),
    "POST /networks/prune": (200, {"NetworksDeleted": None}),
    "POST /volumes/prune": (200, {"VolumesDeleted": ["v1"], "SpaceReclaimed": 100}),
    "POST /images/prune": (
        200,
        {"ImagesDeleted": [{"Untagged": "x:1"}, {"Deleted": "sha256:1"}], "SpaceReclaimed": 1000},
    ),
    "POST /build/prune": (200, {"CachesDeleted": ["s1"], "SpaceReclaimed": 5}),
}


def test_system_prune(tmp_path: Path) -> None:
    words = "docker system prune -a -f --volumes --filter label=x"
    text, asked = _machine(tmp_path, PRUNES, words)
    assert [f"{one.method} {one.path}" for one in asked] == list(PRUNES)
    filters = json.loads(str(asked[3].query["filters"]))
    assert filters == {"label": ["x"], "dangling": ["false"]}
    assert text.splitlines() == [
        *("Deleted Containers:", "c1", "", "Deleted Volumes:", "v1", ""),
        *("Deleted Images:", "untagged: x:1", "deleted: sha256:1", ""),
        *("Deleted build cache objects:", "s1", "", "Total reclaimed space: 1.115kB"),
    ]
    with pytest.raises(MachineError, match="until"):
        _machine(tmp_path, {}, "docker system prune -f --volumes --filter until=1h")


@pytest.mark.parametrize(
    ("words", "route"),
    [
        ("system prune", ""),
        ("builder prune -a", "POST /build/prune"),
        ("network prune", "POST /networks/prune"),
    ],
)
def test_prunes_ask_first(tmp_path: Path, words: str, route: str) -> None:
    text, asked = _machine(tmp_path, PRUNES, f"docker {words}", "n\n")
    assert asked == []
    assert text.startswith("WARNING! This will remove")
    assert text.endswith("continue? [y/N] ")
    if route:
        _, asked = _machine(tmp_path, PRUNES, f"docker {words}", "y\n")
        assert [f"{one.method} {one.path}" for one in asked] == [route]


def sent(*words: str, **env: str) -> dict[str, bytes]:
    raw = json.loads(base64.urlsafe_b64decode(header(words, env)[HEADER]))
    return {name: base64.b64decode(value) for name, value in raw.items()}


def test_secrets(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\x00bytes")
    assert header([], {}) == {}
    assert sent(f"id=a,src={file}") == {"a": b"\x00bytes"}
    assert sent(f"src={file},type=file") == {"key": b"\x00bytes"}
    assert sent("id=a,env=B", B="v") == {"a": b"v"}
    assert sent("id=A", A="v") == {"A": b"v"}
    assert sent("id=a,type=env,src=B", B="v") == {"a": b"v"}


@pytest.mark.parametrize(
    "word",
    ["", "id=a,env=NO", "id=a,src=/nonexistent", "id=a,what=b", "id=a,type=x", "env=A", "src="],
)
def test_secrets_that_are_not(word: str) -> None:
    with pytest.raises(MachineError) as caught:
        header([word], {"A": "value-of-a"})
    assert "value-of-a" not in str(caught.value)


def test_secrets_are_small(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(bytes(20_000))
    with pytest.raises(MachineError, match="larger than"):
        header([f"id=a,src={file}"], {})
