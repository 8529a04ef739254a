"""Whether KVM is used depends on an instruction that ran, not on a device that is there."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from drivers.api import Completed
from drivers.errors import DriverError
from drivers.libvirt import kvm


class Answer:
    """drivers.api.Runner: one answer, or none in time."""

    def __init__(self, answer: Completed | None) -> None:
        self.answer = answer
        self.asked: list[tuple[list[str], float]] = []

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        assert stdin == b""
        self.asked.append((list(argv), timeout))
        if self.answer is None:
            raise DriverError(f"{' '.join(argv)} failed: no end within {timeout:.0f} s")
        return self.answer


def test_an_instruction_that_ran_is_enough() -> None:
    runner = Answer(Completed(0, "halted\n"))
    assert kvm.why_not(runner, "x86_64") == ""
    ((argv, timeout),) = runner.asked
    assert argv[-1] == "/dev/kvm"
    assert timeout == kvm.SECONDS


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "/dev/kvm gave no answer within 5 s"),
        (Completed(0, "no halt\n"), "the virtual CPU did not stop as it should"),
        (
            Completed(
                1, "", "Traceback ...\nFileNotFoundError: [Errno 2] No such file: '/dev/kvm'\n"
            ),
            "FileNotFoundError: [Errno 2] No such file: '/dev/kvm'",
        ),
        (Completed(-9), "the probe ended with status -9"),
    ],
)
def test_anything_else_says_why_not(answer: Completed | None, why: str) -> None:
    assert kvm.why_not(Answer(answer), "x86_64") == why


def test_other_processors_are_libvirts_business() -> None:
    runner = Answer(None)
    assert kvm.why_not(runner, "aarch64") == ""
    assert runner.asked == []


def test_the_probe_is_a_program_that_fails_without_a_device(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-c", kvm.PROBE, str(tmp_path / "kvm")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr
    assert done.stdout == ""
