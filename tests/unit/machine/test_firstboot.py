"""Waiting for cloud-init: nothing to say when all went well, its own words when not."""

import subprocess

import pytest

from drivers.api import Completed
from machine import firstboot
from tests.unit.machine.provision.test_apply import Script, Scripted


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (Completed(0, ""), ""),
        (
            Completed(1, "status: error\ndetail: no disk\x1b[2J\n"),
            "status: error\ndetail: no disk\\x1b[2J",
        ),
        (Completed(2, ""), "broken pipe"),  # what ssh said
    ],
)
def test_what_it_says(done: Completed, says: str) -> None:
    transport = Scripted(Script([done.stdout.encode()], done.status))
    said = firstboot.wait(transport)
    assert said == says or says in said.splitlines()[-1]
    assert "\x1b" not in said


@pytest.mark.parametrize(("code", "status"), [(0, 0), (1, 1), (2, 2)])
def test_the_script_itself(tmp_path, code: int, status: int) -> None:
    program = tmp_path / "cloud-init"
    program.write_text(f"#!/bin/sh\necho ...; echo 'status: x'; echo \"$*\"; exit {code}\n")
    program.chmod(0o755)
    done = subprocess.run(
        ["sh", "-s"], input=firstboot._WAIT, env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        text=True, capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert ("status: x\nstatus --wait --long" in done.stdout) == (code > 0)
    assert "..." not in done.stdout
