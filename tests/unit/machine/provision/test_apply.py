"""The laptop's half of the conversation, against scripted and hostile hosts."""

import json
from collections.abc import Iterable

import pytest

from machine.errors import MachineError
from machine.provision import apply
from machine.provision.bundle import Bundle
from machine.provision.facts import Init
from machine.provision.plan import Plan
from machine.transport import api

PLAN = Plan(
    manager="", packages=(), python="/usr/bin/python3", send_bundle=True, config={}, owner={},
    subject="web", new_certificate=False, init=Init.SYSTEMD, bundle="agent-1", port=2376,
    environment=(),
)  # fmt: skip
SIGNING = apply.Signing("CA", lambda pem: not pem, lambda csr: b"CERT of " + csr)


class Script:
    """A running command whose output is given."""

    def __init__(self, chunks: Iterable[bytes], status: int = 0) -> None:
        self._chunks = iter(chunks)
        self._status = status
        self.sent = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        self.sent += data

    def close_stdin(self) -> None:
        pass

    def read(self, timeout: float) -> bytes:
        del timeout
        return next(self._chunks, b"")

    def wait(self, timeout: float) -> int:
        del timeout
        return self._status

    def stderr(self) -> str:
        return "\x1b]0;evil\x07broken pipe"

    def close(self) -> None:
        self.closed = True


class Scripted:
    def __init__(self, *runs: Script) -> None:
        self._runs = list(runs)
        self.commands: list[str] = []

    def start(self, command: str) -> Script:
        self.commands.append(command)
        return self._runs.pop(0)

    def close(self) -> None:
        pass


def talk(*lines: object) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in lines]


def test_install() -> None:
    script = Script(
        talk({"step": "bundle"}, {"tls": ""}, {"csr": "R"}, {"done": True, "changed": True})
    )
    transport = Scripted(script)
    steps: list[str] = []
    done = apply.apply(transport, PLAN, Bundle("agent-1", "x", b"DATA"), SIGNING, steps.append)
    assert done == apply.Outcome(changed=True, server_pem="CERT of R")
    assert steps == ["bundle"]
    sources, document, rest = script.sent.split(b"\n", 2)
    assert next(name for name, _ in json.loads(sources)) == "machine.provision.onhost.kit"
    assert json.loads(document)["bundle_size"] == 4
    assert rest.startswith(b'DATA{"ca": "CA", "renew": true}\n')
    assert script.closed


def test_answers_byte_by_byte() -> None:
    whole = b"".join(talk({"tls": "OLD"}, {"done": True, "changed": False}))
    script = Script(bytes([b]) for b in whole)
    done = apply.apply(Scripted(script), PLAN, Bundle("a", "x", b""), SIGNING, lambda _: None)
    assert done == apply.Outcome(changed=False, server_pem="OLD")


def test_error_of_the_host_is_shown_escaped() -> None:
    script = Script(talk({"error": "no \x1b[31mspace", "details": "df\x07"}))
    with pytest.raises(MachineError) as caught:
        apply.apply(Scripted(script), PLAN, Bundle("a", "x", b""), SIGNING, lambda _: None)
    assert caught.value.brief == "On the host: no \\x1b[31mspace"
    assert "\x07" not in caught.value.details


@pytest.mark.parametrize(
    "chunks",
    [
        [b"[" * 100_000 + b"\n"],
        [b"Password: \n"],
        [b"[1]\n"],
        [b'{"tls": 1'],
        [b"x" * 65536] * 40,
        [],
    ],
)
def test_case_144_hostile_answers(chunks: list[bytes]) -> None:
    script = Script(chunks)
    with pytest.raises(MachineError) as caught:
        apply.apply(Scripted(script), PLAN, Bundle("a", "x", b""), SIGNING, lambda _: None)
    assert "\x1b" not in str(caught.value)
    assert script.closed


def test_case_144_endless_facts_are_cut() -> None:
    def forever() -> Iterable[bytes]:
        while True:
            yield b"\x1b]0;x\x07" * 10_000

    script = Script(forever())
    with pytest.raises(MachineError, match="more than it should") as caught:
        apply.look(Scripted(script))
    assert "\x1b" not in str(caught.value)
    assert script.closed


def test_commands_are_constants() -> None:
    """security.md C14: what varies goes through standard input."""
    transport = Scripted(Script(talk({"tls": "x"}, {"done": True})), Script([b""]))
    apply.apply(transport, PLAN, Bundle("a", "x", b"SECRET"), SIGNING, lambda _: None)
    with pytest.raises(MachineError):
        apply.look(transport)
    assert not [c for c in transport.commands if "SECRET" in c or "web" in c]


def test_lines_of_any_cut() -> None:
    lines = api.Lines(Script([b"a", b"b\nc\n\nd"]))
    assert [lines.next(1), lines.next(1), lines.next(1), lines.next(1)] == [b"ab", b"c", b"", None]
