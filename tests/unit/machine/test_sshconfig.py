"""ssh_config text: one block a machine, nothing of a value can become another setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.errors import MachineError
from machine.model import MachineRecord, SshEndpoint
from machine.sshconfig import config


def record(name: str, **ssh: object) -> MachineRecord:
    endpoint = SshEndpoint(host="10.0.0.1", **ssh)  # type: ignore[arg-type]
    return MachineRecord(name=name, uuid="u", driver="ssh", created="", ssh=endpoint)


def test_blocks_keep_machines_apart() -> None:
    text = config(
        [
            (record("a", port=2201, user="root", key_path="/k/a"), Path("/s/a")),
            (record("b", port=2202, user="debian"), Path("/s/b")),
        ]
    )
    first, second = text.split("Host b\n")
    assert "  Port 2201" in first
    assert "  IdentityFile /k/a" in first
    assert "  UserKnownHostsFile /s/a/known_hosts" in first
    assert "  Port 2202" in second
    assert "IdentityFile" not in second
    for block in (first, second):
        assert "  StrictHostKeyChecking yes" in block
        assert "  ForwardAgent no" in block


def test_percent_signs_are_not_tokens() -> None:
    text = config([(record("a"), Path("/s/100% sure"))])
    assert '"/s/100%% sure/known_hosts"' in text


@pytest.mark.parametrize("path", ['/s/"x', "/s/a\nProxyCommand evil"])
def test_case_149_a_path_cannot_add_a_setting(path: str) -> None:
    with pytest.raises(MachineError, match="cannot be written"):
        config([(record("a"), Path(path))])


def test_a_machine_without_ssh_is_refused() -> None:
    local = MachineRecord(name="l", uuid="u", driver="local", created="", local=True)
    with pytest.raises(MachineError, match="not reached by SSH"):
        config([(local, Path("/s"))])
