import io
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from machine.__main__ import run
from machine.cli.create import wanted_driver
from machine.cli.grammar import normalise
from machine.cli.session import Session
from machine.errors import MachineError

PARAMS = [
    click.Option(["--force", "-f"], is_flag=True),
    click.Option(["--engine-label"], multiple=True),
    click.Option(["--generic-ip-address", "-i"]),
]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["-force", "x"], ["--force", "x"]),
        (["--force=true", "--force=false"], ["--force"]),
        (["-generic-ip-address", "-force"], ["--generic-ip-address", "-force"]),
        (["-generic-ip-address=1.2.3.4"], ["--generic-ip-address=1.2.3.4"]),
        (["--engine-label", "--force=true"], ["--engine-label", "--force=true"]),
        (["name", "-f"], ["name", "-f"]),
        (["--", "-force"], ["--", "-force"]),
        (["-fi"], ["-fi"]),
    ],
)
def test_go_spellings(given: list[str], read: list[str]) -> None:
    assert normalise(given, PARAMS) == read


def test_bad_boolean() -> None:
    with pytest.raises(MachineError, match="invalid boolean"):
        normalise(["--force=perhaps"], PARAMS)


@pytest.mark.parametrize(
    ("args", "driver"),
    [
        (["-d", "fake", "x"], "fake"), (["--driver=fake"], "fake"), (["-driver", "fake"], "fake"),
        (["x"], "virtualbox"), (["--", "-d", "fake"], "virtualbox"), (["-d"], "virtualbox"),
    ],
)  # fmt: skip
def test_driver_is_found_first(args: list[str], driver: str) -> None:
    assert wanted_driver(args, {"MACHINE_DRIVER": "virtualbox"}) == driver


def _run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    status = run(["docker-machine", *args])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "s")
    assert _run(capsys, "bogus")[0] == 1
    assert _run(capsys, "-s", store, "rm", "--bogus", "x")[0] == 1
    status, _, err = _run(capsys, "-s", store, "status", "nope")
    assert status == 4
    assert err.startswith('Docker machine "nope" does not exist.')
    status, _, err = _run(capsys, "-s", store, "stop")
    assert (status, err) == (
        1,
        'Error: No machine name(s) specified and no "default" machine exists\n',
    )
    assert _run(capsys, "-s", store, "create", "-d", "ssh", "../x", "--ssh-ip-address", "h")[0] == 2
    assert _run(capsys, "-s", store, "create", "-d", "ssh", "x")[0] == 1
    status, _, err = _run(capsys, "-s", store, "create", "-d", "bogus", "x")
    assert 'Driver "bogus" not found' in err
    assert not (tmp_path / "s" / "machines").exists() or not list(
        (tmp_path / "s" / "machines").iterdir()
    )


def test_precheck_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = _run(
        capsys, "-s", str(tmp_path / "s"), "create", "-d", "ssh", "--ssh-ip-address", "-oX=y", "x"
    )
    assert status == 3
    assert err.startswith("Error with pre-create check")
    assert list((tmp_path / "s" / "machines").iterdir()) == []


def test_swarm_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["-s", str(tmp_path), "create", "-d", "ssh", "--swarm", "--swarm-host", "tcp://x", "x"]
    status, _, err = _run(capsys, *args)
    assert status == 1
    assert "--swarm, --swarm-host" in err


def test_create_help_lists_both_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _run(capsys, "create", "-d", "generic", "--help")
    assert status == 0
    assert "--engine-registry-mirror" in out
    assert "--generic-ip-address" in out
    assert "swarm" not in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "--version")[1].startswith("docker-machine version ")
    assert _run(capsys, "version")[1].startswith("docker-machine version ")


def test_help_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["help"], ["h"]):
        status, out, _ = _run(capsys, *words)
        assert status == 0
        assert out == _run(capsys, "--help")[1]
    assert _run(capsys, "help", "ls")[1] == _run(capsys, "ls", "--help")[1]
    assert _run(capsys, "help", "bogus")[0] == 1


def test_errors_name_the_program_that_was_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for program in ("machine", "docker-machine"):
        assert run([program, "-s", str(tmp_path), "url", "nope"]) == 1
        assert f'Use "{program} ls" to list machines.' in capsys.readouterr().err


def test_end_of_input_is_a_no(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    session = Session("machine", {}, io.StringIO(""), out, out)
    assert not session.confirm("Are you sure? (y/n): ")
    assert out.getvalue().endswith("\n")


HEAVY = ("paramiko", "cryptography", "rich", "boto3", "agent", "h11", "asyncio", "machine.service")


SDKS = ("boto3", "botocore", "libvirt", "digitalocean", "requests", "paramiko")


@pytest.mark.parametrize("args", ["--help", "version", "env -u --shell sh", "ls -q"])
def test_help_is_light(args: str, tmp_path: Path) -> None:
    """DESIGN decision 11: nothing heavy is imported before it is needed."""
    assert imported(args, tmp_path, (*HEAVY, *SDKS)) == []


@pytest.mark.parametrize("args", ["drivers", "create --help", "create -d amazonec2 --help"])
def test_no_sdk_before_a_driver_is_used(args: str, tmp_path: Path) -> None:
    assert imported(args, tmp_path, SDKS) == []


def imported(args: str, tmp_path: Path, wanted: tuple[str, ...]) -> list[str]:
    """Which of the wanted modules a command imports."""
    argv = ["machine", "-s", str(tmp_path / "store"), *args.split()]
    code = (
        "import json, sys\nfrom machine.__main__ import run\n"
        f"assert run({argv!r}) == 0\n"
        f"print(json.dumps([m for m in {wanted!r} if m in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [str(name) for name in json.loads(done.stderr.splitlines()[-1])]


def test_plain_progress_escapes() -> None:
    from machine.progress import PlainProgress, make_progress

    out = io.StringIO()
    progress = make_progress(out, live=False)
    assert isinstance(progress, PlainProgress)
    progress.phase("a\x1b[2J")
    assert out.getvalue() == "a\\x1b[2J\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("run", 1),  # too few words, as docker 28.2
        ("exec web", 1),
        ("ps web", 1),
        ("docker stop", 1),
        ("run --nosuch busybox", 125),
        ("ps --nosuch", 125),
        ("docker stop --nosuch web", 125),
        ("docker compose up", 1),
        ("docker nosuch", 1),
    ],
)
def test_container_commands_end_as_dockers_do(
    line: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["machine", *line.split()]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_the_list_of_docker_commands_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["machine", "docker", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Block until containers stop, then print their exit codes" in said
    assert "..." not in said.partition("Commands:")[2]


def test_gc_says_that_a_driver_cannot_before_it_misses_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("gc", "gc -d ssh"):
        assert run(["machine", "-s", str(tmp_path / "store"), *line.split()]) == 1
        said = capsys.readouterr().err
        assert "driver cannot list what it has made" in said
        assert "machine gc -d DRIVER" in said


def test_a_store_that_is_a_file_is_told_without_an_errno(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(["machine", "-s", str(tmp_path / "file"), "ls"]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'file'}: Not a directory\n"


def test_login_refuses_a_password_that_others_could_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["machine", "login", "-u", "me", "-p", "hunter2", "r.example"]) == 1
    said = capsys.readouterr()
    assert "--password-stdin" in said.err
    assert "hunter2" not in said.err + said.out
