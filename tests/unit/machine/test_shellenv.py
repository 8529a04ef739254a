"""Every shell gets exactly the value, and runs nothing (security.md case 147)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from machine import shellenv
from machine.errors import MachineError

PLAIN = {"DOCKER_HOST": "tcp://10.0.0.1:2376"}


@pytest.mark.parametrize(
    ("shell", "line", "unset", "comment"),
    [
        ("bash", 'export DOCKER_HOST="tcp://10.0.0.1:2376"', "unset DOCKER_HOST", "# "),
        ("fish", 'set -gx DOCKER_HOST "tcp://10.0.0.1:2376";', "set -e DOCKER_HOST;", "# "),
        (
            "powershell",
            '$Env:DOCKER_HOST = "tcp://10.0.0.1:2376"',
            "Remove-Item Env:\\\\DOCKER_HOST",
            "# ",
        ),
        ("cmd", "SET DOCKER_HOST=tcp://10.0.0.1:2376", "SET DOCKER_HOST=", "REM "),
        ("tcsh", 'setenv DOCKER_HOST "tcp://10.0.0.1:2376";', "unsetenv DOCKER_HOST;", ": "),
        (
            "emacs",
            '(setenv "DOCKER_HOST" "tcp://10.0.0.1:2376")',
            '(setenv "DOCKER_HOST" nil)',
            ";; ",
        ),
    ],
)
def test_lines(shell: str, line: str, unset: str, comment: str) -> None:
    lines = shellenv.script(shell, PLAIN, unset=["DOCKER_HOST"], command="machine env x").split(
        "\n"
    )
    assert lines[0] == line
    assert lines[1] == unset
    assert lines[2] == f"{comment}Run this command to configure your shell: "
    assert lines[3].startswith(comment)
    assert "machine env x" in lines[3]


HOSTILE = [
    "'\"; touch CANARY #",
    "$(touch CANARY)",
    "`touch CANARY`",
    "a\nb; touch CANARY",
    "\\",
    "!x",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "tcsh"])
def test_case_147_hostile_values_arrive_and_run_nothing(
    shell: str, value: str, tmp_path: Path
) -> None:
    program = shutil.which(shell)
    if program is None:
        assert shell in {"zsh", "fish", "tcsh"}, "sh and bash are on every Debian"
        return
    text = shellenv.script(shell, {"V": value}, command="machine env")
    file = tmp_path / "env"
    file.write_text(text + "\n")
    command = {"fish": f"source {file}", "tcsh": f"source {file}"}.get(
        shell, f'eval "$(cat {file})"'
    )
    done = subprocess.run(
        [program, "-c", f"{command}\nprintenv V"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == value + "\n", done.stderr
    assert not (tmp_path / "CANARY").exists()


def test_case_147_cmd_refuses_what_it_cannot_quote() -> None:
    with pytest.raises(MachineError, match=r"cmd\.exe cannot take"):
        shellenv.script("cmd", {"V": 'x" & del'}, command="m")
    assert "SET V=a^&b" in shellenv.script("cmd", {"V": "a&b"}, command="m")


def test_case_147_powershell_quotes() -> None:
    text = shellenv.script("powershell", {"V": '$(x) "`”'}, command="m")
    assert text.startswith('$Env:V = "`$(x) `"```”"')


def test_detect() -> None:
    assert shellenv.detect({"SHELL": "/usr/bin/zsh"}, windows=False) == "zsh"
    assert shellenv.detect({"SHELL": "/bin/sh", "__fish_bin_dir": "/x"}, windows=False) == "fish"
    assert shellenv.detect({"PSModulePath": "x"}, windows=True) == "powershell"
    assert shellenv.detect({}, windows=True) == "cmd"
    with pytest.raises(MachineError, match="Unknown shell"):
        shellenv.detect({}, windows=False)


def test_no_proxy() -> None:
    assert shellenv.no_proxy({}, "10.0.0.1") == ("no_proxy", "10.0.0.1")
    assert shellenv.no_proxy({"NO_PROXY": "a"}, "10.0.0.1") == ("NO_PROXY", "a,10.0.0.1")
    assert shellenv.no_proxy({"no_proxy": "10.0.0.10"}, "10.0.0.1")[1] == "10.0.0.10,10.0.0.1"
    assert shellenv.no_proxy({"no_proxy": "10.0.0.1"}, "10.0.0.1")[1] == "10.0.0.1"
