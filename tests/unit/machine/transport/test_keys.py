"""Key files: which key of the agent is the one in the file."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from machine.transport.ssh import public_part


@pytest.mark.parametrize("lock", [NoEncryption(), BestAvailableEncryption(b"secret")])
def test_public_part_of_a_locked_key(tmp_path: Path, lock: KeySerializationEncryption) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "id"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, lock))
    path.chmod(0o600)
    plain = tmp_path / "plain"
    plain.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    assert public_part(path) == paramiko.Ed25519Key.from_private_key_file(str(plain)).asbytes()


@pytest.mark.parametrize(
    "text",
    ["", "junk", "-----BEGIN X-----\n!!\n-----END X-----", "-----BEGIN X-----\nAAAA\n-----END X-----",
     "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END-----"],
)  # fmt: skip
def test_other_files_have_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "id").write_text(text)
    assert public_part(tmp_path / "id") == b""
    assert public_part(tmp_path / "none") == b""
