"""What builds do: every instruction, the classic builder's words, cache, commit, prune."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.cases.build.engine import Engine, tar, timed
from tests.lab.waiting import wait_until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def test_the_classic_words(engine: Engine) -> None:
    said = engine.build('FROM busybox\nRUN echo hi\nCMD ["true"]\n', t=["a:1", "b"], nocache=1)
    lines = [re.sub(r"[0-9a-f]{12}", "ID", one) for one in said.text.splitlines()]
    assert lines == [
        "Step 1/3 : FROM busybox",
        " ---> ID",
        "Step 2/3 : RUN echo hi",
        " ---> Running in ID",
        "hi",
        " ---> Removed intermediate container ID",
        " ---> ID",
        'Step 3/3 : CMD ["true"]',
        " ---> ID",
        "Successfully built ID",
        "Successfully tagged a:1",
        "Successfully tagged b:latest",
    ]
    assert said.image == engine.inspect("a:1")["Id"] == engine.inspect("b")["Id"]


def test_a_failing_command(engine: Engine) -> None:
    said = engine.build("FROM busybox\nRUN exit 7\n")
    text = "The command '/bin/sh -c exit 7' returned a non-zero code: 7"
    assert said.lines[-1] == {"errorDetail": {"code": 7, "message": text}, "error": text}
    assert " ---> Failed at Dockerfile:2\n" in said.text


def test_quiet(engine: Engine) -> None:
    said = engine.build("FROM busybox\nRUN echo loud\n", q=1)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", said.text)
    failed = engine.build("FROM busybox\nRUN echo loud; false\n", q=1, nocache=1)
    assert "loud" in failed.text
    assert failed.error


def test_metadata(engine: Engine) -> None:
    said = engine.build(
        """FROM busybox
MAINTAINER me <me@example.com>
ENV A=1 B="two words" C=$A
LABEL a=b "c d"=e
EXPOSE 80 53/udp 8000-8002
VOLUME ["/data", "/more"]
USER web:staff
WORKDIR /srv
WORKDIR sub
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=5s --retries=2 CMD true
ONBUILD RUN echo later
ENTRYPOINT ["/bin/echo"]
CMD ["x"]
""",
        labels=json.dumps({"given": "it's"}),
    )
    assert said.error == "", said.lines
    config = engine.inspect(said.image)["Config"]
    assert config["Env"][1:] == ["A=1", "B=two words", "C="]
    assert config["Labels"] == {"a": "b", "c d": "e", "given": "it's"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp"}
    assert set(config["Volumes"]) == {"/data", "/more"}
    assert (config["User"], config["WorkingDir"]) == ("web:staff", "/srv/sub")
    assert (config["StopSignal"], config["Shell"]) == ("SIGINT", ["/bin/sh", "-ec"])
    assert config["Healthcheck"] == {
        "Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 2,
    }  # fmt: skip
    assert config["OnBuild"] == ["RUN echo later"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/bin/echo"], ["x"])
    assert engine.inspect(said.image)["Author"] == "me <me@example.com>"


def test_copy_rules(engine: Engine) -> None:
    files = {
        "a.txt": "a", "b.txt": "b", "c.md": "c", "d/": "", "d/one": "1", "d/sub/": "",
        "d/sub/two": "2", "d/skip.tmp": "x", "with space": "s",
    }  # fmt: skip
    said = engine.build(
        """FROM busybox
COPY *.txt /t/
COPY a.txt /file
COPY a.txt /newdir/file
COPY d /d
COPY d /d2/
COPY ["with space", "/s p/"]
COPY --chown=web:staff --chmod=0640 a.txt /own
COPY --chown=7:8 d /own-d
COPY --exclude=*.tmp --exclude=sub d /ex
COPY --parents d/sub/two /p/
COPY --parents ./d/./sub/two /q/
COPY --link a.txt /l
WORKDIR /w
COPY a.txt .
COPY a.txt rel/
COPY <<EOF <<"RAW" /here/
hello $HOME ${X:-y}
EOF
raw $HOME
RAW
RUN ls /t /newdir /d /d/sub /d2 "/s p" /ex /p/d/sub /q/sub /w /w/rel && stat -c '%a %U %G' /own \
 && stat -c '%u %g' /own-d/sub/two && cat /here/*
""",
        files,
        nocache=1,
    )
    assert said.error == "", said.lines
    text = said.text
    assert "/t:\na.txt\nb.txt\n" in text
    assert "/d:\none\nskip.tmp\nsub\n" in text
    assert "/d2:\none\nskip.tmp\nsub\n" in text
    assert "/ex:\none\n\n" in text
    assert "/w:\na.txt\nrel\n" in text
    assert "640 web staff\n7 8\n" in text
    assert "hello  y\nraw $HOME\n" in text or "raw $HOME\nhello  y\n" in text


@pytest.mark.parametrize(
    ("dockerfile", "says"),
    [
        ("FROM busybox\nCOPY nope /x", "excluded by .dockerignore: stat nope: file does not exist"),
        ("FROM busybox\nCOPY a b /x", "the destination must be a directory and end with a /"),
        ("FROM busybox\nCOPY *.nope /x", "COPY failed: no source files were specified"),
        ("FROM busybox\nCOPY --chown=nobody:x a /x", "can't find user nobody"),
        ("FROM busybox\nCOPY --chmod=abc a /x", "invalid chmod parameter: 'abc'"),
        ("FROM busybox\nCOPY --from=nope.invalid/x a /x", "nope.invalid"),
        ("FROM busybox\nENV A=\"${B:?must be set}\"", "B: must be set"),
        ("FROM busybox\nEXPOSE x", "invalid containerPort: x"),
        ("FROM busybox\nSTOPSIGNAL NOPE", "signal"),
        ("FROM $NOTHING\n", "should not be blank"),
        ("FROM scratch\n", "No image was generated. Is your Dockerfile empty?"),
    ],
)  # fmt: skip
def test_errors(engine: Engine, dockerfile: str, says: str) -> None:
    said = engine.build(dockerfile, {"a": "1", "b": "2"})
    assert says in said.error, said.lines


def test_parse_errors_are_answers(engine: Engine) -> None:
    said = engine.build("FROM busybox\nRUN a\nFOO bar\n")
    assert (said.status, said.error) == (
        400,
        "dockerfile parse error on line 3: unknown instruction: FOO",
    )
    assert engine.build("").error == "the Dockerfile (Dockerfile) cannot be empty"
    assert "target stage x could not be found" in engine.build("FROM busybox", target="x").error


def test_multi_stage_and_target(engine: Engine) -> None:
    text = (
        "ARG BASE=busybox\nFROM $BASE AS one\nRUN echo 1 > /n\nFROM one AS two\nRUN echo 2 >> /n\n"
        "FROM scratch\nCOPY --from=0 /n /one\nCOPY --from=two /n /two\n"
        "COPY --from=busybox /etc/group /g\n"
    )
    said = engine.build(text)
    assert said.error == "", said.lines
    only = engine.build(text, target="two")
    assert "Step 5/5" in only.text
    assert engine.run(only.image, "cat", "/n") == "1\n2\n"


def test_add_archives(engine: Engine) -> None:
    inner = tar({"in/": "", "in/file": "unpacked"})
    files = {
        "p.tar": inner,
        "g.tgz": gzip.compress(inner),
        "b.tar.bz2": bz2.compress(inner),
        "x.tar.xz": lzma.compress(inner),
        "n.gz": gzip.compress(b"not a tar"),
    }
    said = engine.build(
        "FROM busybox\nADD p.tar /p\nADD g.tgz /g/\nADD b.tar.bz2 /b\nADD x.tar.xz /x\n"
        "ADD n.gz /n/\nCOPY p.tar /plain/\nADD --unpack=false p.tar /kept/\n"
        "RUN cat /p/in/file /g/in/file /b/in/file /x/in/file && ls /n /plain /kept\n",
        files,
        nocache=1,
    )
    assert "unpacked" * 4 in said.text, said.lines
    for one in ("/kept:\np.tar\n", "/n:\nn.gz\n", "/plain:\np.tar\n"):
        assert one in said.text


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sparse_files_of_gnu_tar(engine: Engine, tmp_path: Path, form: str) -> None:
    """In an archive that ADD unpacks, in the context itself, and in `docker cp`'s tar."""
    with (tmp_path / "holes").open("wb") as file:
        for number in range(9):
            file.seek(number * 200_000)
            file.write(bytes([number + 1]) * 4096)
        file.truncate(4_000_000)
    words = ["tar", "-S", f"--format={form}", "-C", str(tmp_path)]
    inner = subprocess.run([*words, "-c", "holes"], capture_output=True, check=True).stdout
    (tmp_path / "inner.tar").write_bytes(inner)
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nADD inner.tar /added/\nCOPY holes /copied/\n"
        "RUN sha256sum /added/holes /copied/holes; du -k /added/holes\n"
    )
    said = engine.send(subprocess.run([*words, "-c", "."], capture_output=True, check=True).stdout)
    assert said.error == "", said.lines
    digest = hashlib.sha256((tmp_path / "holes").read_bytes()).hexdigest()
    assert said.text.count(digest) == 2
    (size,) = [
        line.split()[0] for line in said.text.splitlines() if line.endswith("\t/added/holes")
    ]
    assert int(size) < 500
    made = engine.json("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    assert engine.ask("PUT", f"/containers/{made}/archive", inner, path="/tmp")[0] == 200
    status, raw = engine.ask("GET", f"/containers/{made}/archive", path="/tmp/holes")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        found = archive.extractfile("holes")
        assert found is not None
        assert hashlib.sha256(found.read()).hexdigest() == digest
    engine.ask("DELETE", f"/containers/{made}")


def test_run_forms(engine: Engine) -> None:
    said = engine.build(
        """FROM busybox
RUN ["echo", "exec $HOME"]
RUN echo a \\
  # a comment in it
  && echo b
RUN <<EOF
echo from heredoc
echo "$0"
EOF
RUN cat <<A <<"B"
first $HOME
A
second $HOME
B
RUN --network=none ls /sys/class/net
VOLUME /v
RUN echo lost > /v/x; id -u
USER web
RUN id -u; pwd; echo $HOME
""",
        nocache=1,
    )
    assert said.error == "", said.lines
    assert "exec $HOME\n" in said.text
    assert "a\nb\n" in said.text
    assert "from heredoc\n/bin/sh\n" in said.text
    assert "second $HOME\n" in said.text
    assert "\nlo\n" in said.text
    assert "33\n/\n/srv\n" in said.text


def test_build_limits_reach_the_container(engine: Engine) -> None:
    said = engine.build(
        "FROM busybox\nRUN cat /etc/hosts; df -k /dev/shm | tail -1; cat"
        " /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true\n",
        extrahosts="one:10.1.2.3",
        shmsize=8 << 20,
        memory=64 << 20,
        networkmode="none",
        nocache=1,
    )
    assert "10.1.2.3\tone" in said.text
    assert re.search(r"shm\s+8192 ", said.text)
    assert str(64 << 20) in said.text


def test_cgroup_parent(engine: Engine) -> None:
    said = engine.build(
        "FROM busybox\nRUN cat /proc/self/cgroup /proc/1/cgroup\n",
        cgroupparent=f"{engine.folder.name}-builds",
        nocache=1,
    )
    assert said.error == "", said.lines
    assert f":/{engine.folder.name}-builds/" in said.text
    assert engine.build("FROM busybox\n", cgroupparent="/../x").status == 400


def test_build_args(engine: Engine) -> None:
    said = engine.build(
        "ARG G=global\nFROM busybox\nARG G\nARG D=default\nARG N\nARG O=over\nENV O=env\n"
        "RUN echo $G-$D-${N:-none}-$O-$TARGETARCH\nARG TARGETARCH\nRUN echo arch=$TARGETARCH\n",
        buildargs=json.dumps({"D": "given", "O": "x", "UNUSED": "1"}),
        nocache=1,
    )
    assert "global-given-none-env-\n" in said.text
    assert re.search(r"arch=(amd64|arm64)\n", said.text)
    assert "[Warning] One or more build-args [UNUSED] were not consumed\n" in said.text


def test_onbuild(engine: Engine) -> None:
    engine.build("FROM busybox\nONBUILD COPY a /got\nONBUILD RUN cat /got\n", t="onb")
    said = engine.build("FROM onb\n", {"a": "trigger text\n"}, nocache=1)
    assert "# Executing 2 build triggers\n" in said.text
    assert "trigger text\n" in said.text


def test_dockerignore_hides_the_two(engine: Engine) -> None:
    said = engine.build(
        "FROM busybox\nCOPY . /c/\nRUN ls -A /c\n",
        {".dockerignore": "Dockerfile\n.dockerignore\n", "kept": "1"},
        nocache=1,
    )
    assert said.text.rpartition("Running in")[2].splitlines()[1] == "kept"
    said = engine.send(tar({"sub/": "", "sub/My.file": "FROM busybox\n"}), dockerfile="sub/My.file")
    assert said.error == ""


def test_the_image_survives_its_build(engine: Engine) -> None:
    engine.build(
        "FROM busybox\nRUN rm /etc/group && mkdir /etc/new && echo 1 > /etc/new/f\n", t="k"
    )
    assert engine.run("k", "sh", "-c", "ls /etc/new; ls /etc/group") == (
        "f\nls: /etc/group: No such file or directory\n"
    )
    said = engine.build(
        "FROM k\nRUN rm -r /etc/new && mkdir /etc/new\nRUN ls -A /etc/new | wc -l\n"
    )
    assert "\n0\n" in said.text


def test_cache_from_and_dangling(engine: Engine) -> None:
    text = "FROM busybox\nRUN echo cached > /c\nCOPY a /a\n"
    first = engine.build(text, {"a": "1"}, t="source:1")
    engine.json("POST", "/build/prune", all=1)
    assert "Using cache" not in engine.build("FROM busybox\nRUN echo other\n").text
    said = engine.build(text, {"a": "1"}, cachefrom=json.dumps(["source:1"]))
    assert said.text.count("Using cache") == 2
    assert said.image == first.image


def test_failed_steps_are_kept_for_the_next_build(engine: Engine) -> None:
    engine.build("FROM busybox\nRUN echo slow-step > /s\nRUN false\n")
    said = engine.build("FROM busybox\nRUN echo slow-step > /s\nRUN cat /s\n")
    assert said.text.count("Using cache") == 1
    assert "slow-step\n" in said.text


def test_save_gives_a_built_image(engine: Engine) -> None:
    engine.build("FROM busybox\nCOPY a /a\nRUN rm /etc/group\n", {"a": "save me"}, t="saved:1")
    status, raw = engine.ask("GET", "/images/saved:1/get")
    assert status == 200
    engine.ask("DELETE", "/images/saved:1", force=1)
    status, said = engine.ask("POST", "/images/load", raw)
    assert (status, b"error" in said) == (200, False), said
    assert engine.run("saved:1", "cat", "/a") == "save me"


def test_commit(engine: Engine) -> None:
    made = engine.json(
        "POST",
        "/containers/create",
        {"Image": "busybox", "Cmd": ["sh", "-c", "echo kept > /f; rm /etc/group; exec sleep 60"],
         "Env": ["E=1"], "HostConfig": {"NetworkMode": "none"}},
    )["Id"]  # fmt: skip
    engine.json("POST", f"/containers/{made}/start")
    try:
        wait_until(lambda: engine.shell(made, "! test -e /etc/group") == 0, 10, "its work is done")
        answer = engine.json(
            "POST", "/commit", {"Labels": {"from": "body"}}, container=made, repo="com", tag="1",
            comment="why", author="me", changes=["CMD cat /f", "ENV N=2\nEXPOSE 81"],
        )  # fmt: skip
        state = engine.json("GET", f"/containers/{made}/json")["State"]
        assert (state["Running"], state["Paused"]) == (True, False)
    finally:
        engine.ask("DELETE", f"/containers/{made}", force=1)
    image = engine.inspect("com:1")
    assert (image["Id"], image["Author"]) == (answer["Id"], "me")
    assert engine.json("GET", "/images/com:1/history")[0]["Comment"] == "why"
    assert image["Config"]["Labels"] == {"from": "body"}
    assert {"E=1", "N=2"} <= set(image["Config"]["Env"])
    assert "81/tcp" in image["Config"]["ExposedPorts"]
    assert engine.run("com:1") == "kept\n"
    assert "No such file" in engine.run("com:1", "ls", "/etc/group")
    status, raw = engine.ask("POST", "/commit", container="nope")
    assert (status, json.loads(raw)["message"]) == (404, "No such container: nope")


def test_prune(engine: Engine) -> None:
    engine.build("FROM busybox\nRUN --mount=type=cache,target=/c echo 12345 > /c/f\n", nocache=1)
    pruned = engine.json("POST", "/build/prune")
    assert pruned["SpaceReclaimed"] >= 6
    assert engine.json("POST", "/build/prune", all=1)["CachesDeleted"]
    assert os.listdir(engine.root / "build" / "mounts") == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"squash": 1}, 501),
        ({"version": 2}, 501),
        ({"buildargs": "x"}, 400),
        ({"labels": "[]"}, 400),
        ({"t": "UPPER"}, 400),
        ({"t": "a@sha256:" + "0" * 64}, 400),
        ({"platform": "a b"}, 400),
        ({"remote": "client-session"}, 400),
        ({"securityopt": '["label=x"]'}, 400),
        ({"isolation": "hyperv"}, 400),
    ],
)
def test_refused_parameters(engine: Engine, query: dict[str, object], status: int) -> None:
    assert engine.send(tar({"Dockerfile": "FROM busybox\n"}), **query).status == status


def test_independent_stages_run_at_once(engine: Engine) -> None:
    stages = "".join(
        f"FROM busybox AS s{n}\nRUN echo begin-{n}; sleep 1; echo {n} > /n; echo end-{n}\n"
        for n in range(3)
    )
    copies = "".join(f"COPY --from=s{n} /n /n{n}\n" for n in range(3))
    said = None

    def work() -> None:
        nonlocal said
        said = engine.build(f"{stages}FROM busybox\n{copies}RUN cat /n0 /n1 /n2\n", nocache=1)

    assert timed(work) < 2.5
    assert said is not None
    assert "0\n1\n2\n" in said.text, said.lines
    marks = re.findall(r"^(?:Step \d+|begin-\d|end-\d)", said.text, re.MULTILINE)
    assert marks == [
        "Step 1", "Step 2", "begin-0", "end-0", "Step 3", "Step 4", "begin-1", "end-1",
        "Step 5", "Step 6", "begin-2", "end-2", *(f"Step {n}" for n in range(7, 12)),
    ]  # fmt: skip


def test_a_failed_stage_stops_the_others(engine: Engine) -> None:
    said = None

    def work() -> None:
        nonlocal said
        said = engine.build(
            "FROM busybox AS a\nRUN echo slow; sleep 30\nFROM busybox AS b\nRUN exit 5\n"
            "FROM busybox\nCOPY --from=a /x /x\n",
            nocache=1,
        )

    assert timed(work) < 10
    assert said is not None
    assert said.lines[-1]["errorDetail"]["code"] == 5
