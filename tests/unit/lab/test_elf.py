import platform
import subprocess
from pathlib import Path

import pytest

from tests.lab.elf import hello


@pytest.mark.parametrize(("machine", "number"), [("amd64", 62), ("arm64", 183)])
def test_the_header_names_the_machine_and_the_text_is_in_it(machine: str, number: int) -> None:
    program = hello(machine, "hi there\n")
    assert program.startswith(b"\x7fELF")
    assert int.from_bytes(program[18:20], "little") == number
    assert program.endswith(b"hi there\n")


def test_this_computers_one_runs(tmp_path: Path) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    (tmp_path / "hello").write_bytes(hello(machine, "hi there\n"))
    (tmp_path / "hello").chmod(0o755)
    done = subprocess.run([str(tmp_path / "hello")], capture_output=True, check=True)
    assert done.stdout == b"hi there\n"
