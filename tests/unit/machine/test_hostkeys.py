from pathlib import Path

import pytest

from machine.errors import HostKeyError
from machine.hostkeys import HostKey, KnownHost, parse_key

ONE, TWO = HostKey("ssh-ed25519", b"\0\0one"), HostKey("ssh-ed25519", b"\0\0two")


def test_first_contact_then_pinned(tmp_path: Path) -> None:
    known = KnownHost(tmp_path, "web")
    assert known.verify(ONE) is False
    known.pin([ONE])
    assert known.verify(ONE) is True
    assert known.path.stat().st_mode & 0o777 == 0o600
    assert known.path.read_text().startswith("web ssh-ed25519 ")


def test_changed_key_shows_both_fingerprints(tmp_path: Path) -> None:
    known = KnownHost(tmp_path, "web")
    known.pin([ONE])
    with pytest.raises(HostKeyError) as caught:
        known.verify(TWO)
    assert ONE.fingerprint in caught.value.details
    assert TWO.fingerprint in caught.value.details
    assert str(known.path) in caught.value.hint


@pytest.mark.parametrize("content", ["", "# only a comment\n", "web\n", "web ssh-ed25519 %%%\n"])
def test_an_emptied_or_broken_file_is_not_first_contact(tmp_path: Path, content: str) -> None:
    known = KnownHost(tmp_path, "web")
    known.path.write_text(content)
    with pytest.raises(HostKeyError):
        known.verify(ONE)


def test_fingerprint_is_ssh_keygens() -> None:
    key = parse_key(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github"
    )
    assert key.fingerprint == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
