"""./quickstart, as a newcomer runs it: twice, then away with everything."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.lab.lab import remove
from tests.lab.settings import REPOSITORY, Settings

_LAB = "quickstart-test"


def _run(store: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(store.parent),
        "MACHINE_STORAGE_PATH": str(store),
        "QUICKSTART_LAB": _LAB,
        **{k: v for k, v in os.environ.items() if k.startswith("MACHINE_LAB_")},
    }
    done = subprocess.run(
        ["./quickstart", *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(600)
def test_quickstart_twice_and_down(tmp_path: Path, lab_settings: Settings) -> None:
    store = tmp_path / "home/.docker/machine"
    store.parent.parent.mkdir()
    remove(lab_settings, _LAB)
    try:
        first = _run(store)
        again = _run(store)
        for text in (first, again):
            for expected in (
                "It works!",
                "0.0.0.0:8080->80/tcp",
                "/dev/pts/0",
                "Hello from Debian",
            ):
                assert expected in text, text
        assert "$ machine create --driver ssh" in first
        assert "keeping it" in again
        _run(store, "--down")
        assert not store.exists()
        assert not (lab_settings.state / _LAB).exists()
    finally:
        remove(lab_settings, _LAB)
