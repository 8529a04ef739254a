"""Choices of `create` that need no hypervisor, and calls that do not come back."""

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from drivers.api import Completed, DriverContext
from drivers.errors import CannotError, DriverError, GoneError, TransientError
from drivers.libvirt import DRIVER, making
from drivers.libvirt.hypervisor import bounded
from drivers.libvirt.options import OPTIONS
from drivers.testkit import context


class Probe:
    """drivers.api.Runner: a virtual CPU that runs, or does not."""

    def __init__(self, said: str) -> None:
        self.said = said

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        del argv, stdin
        if not self.said:
            raise DriverError(f"no end within {timeout} s")
        return Completed(0, self.said)


def ctx_of(folder: Path, said: str = "", **given: str) -> DriverContext:
    ctx = context(folder, OPTIONS, dict(given))
    return dataclasses.replace(ctx, runner=Probe(said))


def test_kvm_that_runs_is_used_without_a_word(tmp_path: Path) -> None:
    assert making.choose(ctx_of(tmp_path, "halted"), ("x86_64", True)) == (True, "")


@pytest.mark.parametrize(
    ("offered", "why"), [(True, "gave no answer within 5 s"), (False, "libvirt does not offer it")]
)
def test_kvm_that_hangs_or_is_not_offered_is_told(tmp_path: Path, offered: bool, why: str) -> None:
    use, note = making.choose(ctx_of(tmp_path), ("x86_64", offered))
    assert not use
    assert why in note
    assert "emulating" in note
    with pytest.raises(CannotError, match=why):
        making.choose(ctx_of(tmp_path, accelerator="kvm"), ("x86_64", offered))


def test_emulation_that_was_asked_for_needs_no_note(tmp_path: Path) -> None:
    assert making.choose(ctx_of(tmp_path, accelerator="tcg"), ("x86_64", True)) == (False, "")


def test_another_computer_is_not_probed_from_here(tmp_path: Path) -> None:
    ctx = ctx_of(tmp_path, uri="qemu+ssh://host/system")
    assert making.choose(ctx, ("x86_64", True)) == (True, "")


class Library:
    """What `bounded` knows of the module libvirt."""

    class libvirtError(Exception):  # noqa: N801
        def get_error_code(self) -> int:
            return 42

        def get_error_message(self) -> str:
            return "Domain not found"


def test_a_call_that_does_not_come_back_is_left_behind() -> None:
    never = threading.Event()
    try:
        with pytest.raises(TransientError, match="virDomainCreate: no answer within 0 s"):
            bounded(Library, "virDomainCreate", never.wait, 0.05)
    finally:
        never.set()


def test_answers_and_errors_come_through() -> None:
    assert bounded(Library, "x", lambda: 7, 5.0) == 7

    def fail() -> None:
        raise Library.libvirtError

    with pytest.raises(GoneError, match="libvirt: Domain not found"):
        bounded(Library, "x", fail, 5.0)

    def refuse() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DriverError, match=r"x: .*No space left"):
        bounded(Library, "x", refuse, 5.0)


def test_check_tells_wrong_options_image_and_library_at_once(tmp_path: Path) -> None:
    """Nothing listens at that URI: that is told as well, or that there is no library for it."""
    ctx = ctx_of(
        tmp_path,
        image=str(tmp_path / "none.qcow2"),
        firmware="none",
        uri="qemu+unix:///system?socket=/nowhere/sock",
    )
    told = "\n".join(DRIVER.check(ctx))
    assert "--libvirt-firmware none" in told
    assert "none.qcow2: no such image file" in told
    assert "/nowhere/sock" in told or "libvirt-python" in told
    assert list(tmp_path.iterdir()) == []
