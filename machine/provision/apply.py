"""Performs a plan over a transport: facts in one round trip, then one remote run (decision 12)."""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Final, Self

from machine import resources
from machine.config import OUTPUT_LIMIT, PROVISION_TIMEOUT
from machine.errors import MachineError, printable
from machine.provision import facts as facts_of
from machine.provision import units
from machine.provision.bundle import Bundle
from machine.provision.facts import Facts, Init
from machine.provision.plan import Plan
from machine.transport.api import Lines, Running, Transport, run

_HERE: Final = "machine.provision"
_KIT: Final = "machine.provision.onhost.kit"
_ANSWER_LIMIT: Final = 256 * 1024
_ROOT: Final = 'if [ "$(id -u)" = 0 ]; then exec "$0" "$@"; else exec sudo -n "$0" "$@"; fi'
_ROOT_IF_WE_CAN: Final = (
    'if [ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null; then exec "$0" "$@"; '
    'else exec sudo -n "$0" "$@"; fi'
)
# Receives modules as one JSON line and runs them in order; nothing is written to the host's /tmp.
_BOOT: Final = (
    "import sys,json,types\n"
    "for n,s in json.loads(sys.stdin.buffer.readline()):\n"
    " m=types.ModuleType(n);sys.modules[n]=m;exec(compile(s,n,'exec'),m.__dict__)\n"
)

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Signing:
    """How the laptop answers the host's questions about certificates."""

    ca_pem: str
    renew: Callable[[str], bool]  # the host's certificate (PEM or "") -> whether a new one is due
    sign: Callable[[bytes], bytes]  # request PEM -> certificate PEM


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What the remote run did. `server_pem` is the certificate that the host now has."""

    changed: bool
    server_pem: str


def look(transport: Transport) -> Facts:
    """Ask the host what it is; changes nothing on it. Raises MachineError."""
    command = _command(_ROOT_IF_WE_CAN, "sh", "-s")
    text = resources.script(_HERE, "facts.sh")
    done = run(transport, command, stdin=text.encode(), timeout=60.0)
    return facts_of.parse(done.stdout)


def install_packages(transport: Transport, plan: Plan) -> None:
    """The only step that may use the host's package manager. Raises MachineError."""
    text = resources.script(_HERE, "packages.sh")
    command = _command(_ROOT, "sh", "-s", "--", plan.manager, *plan.packages)
    done = run(transport, command, stdin=text.encode(), timeout=PROVISION_TIMEOUT)
    if done.status:
        raise MachineError(
            f"Installing {', '.join(plan.packages)} failed",
            details=printable((done.stderr or done.stdout).strip()[-3000:]),
            hint=f"Try it on the host: {plan.manager} install {' '.join(plan.packages)}",
        )


def apply(
    transport: Transport, plan: Plan, bundle: Bundle, signing: Signing, report: Report
) -> Outcome:
    """Bring the host to what the plan says. Raises MachineError."""
    data = bundle.data if plan.send_bundle else b""
    document = {
        "bundle": plan.bundle,
        "bundle_size": len(data),
        "config": plan.config,
        "owner": plan.owner,
        "subject": plan.subject,
        "port": plan.port,
        "init": plan.init.value,
        **_service(plan),
    }
    with _Conversation(transport, plan.python, "install", document, data) as talk:
        return talk.install(signing, report)


def uninstall(transport: Transport, python: str, report: Report) -> None:
    """Make the host as it was before. Raises MachineError."""
    with _Conversation(transport, python, "remove", {"python": python}, b"") as talk:
        talk.listen(report)


def _service(plan: Plan) -> dict[str, object]:
    env = plan.environment
    if plan.init is Init.SYSTEMD:
        return {"unit": units.systemd(resources.unit("machine-agent.service"), plan.python, env)}
    return {
        "supervise": units.supervise(resources.unit("supervise.sh"), plan.python),
        "environment": units.checked_env(env),
    }


def _command(wrapper: str, *argv: str) -> str:
    """A command line for any login shell: POSIX, csh and fish read single quotes alike."""
    return " ".join(["sh", "-c", shlex.quote(wrapper), *map(shlex.quote, argv)])


class _Conversation:
    """One remote Python run: sends its sources, then JSON lines in both directions."""

    def __init__(
        self,
        transport: Transport,
        python: str,
        module: str,
        document: Mapping[str, object],
        data: bytes,
    ) -> None:
        here = f"{_HERE}.onhost"
        sources = [
            (_KIT, resources.script(here, "kit.py")),
            (f"{here}.{module}", resources.script(here, f"{module}.py")),
        ]
        self._running: Running = transport.start(_command(_ROOT, python, "-I", "-u", "-c", _BOOT))
        self._lines = Lines(self._running, OUTPUT_LIMIT)
        self._deadline = time.monotonic() + PROVISION_TIMEOUT
        try:
            self._running.send(_json(sources) + _json(document) + data)
        except BaseException:
            self._running.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def install(self, signing: Signing, report: Report) -> Outcome:
        server = ""
        while True:
            said = self._next()
            if "tls" in said:
                server = str(said["tls"])
                self._running.send(_json({"ca": signing.ca_pem, "renew": signing.renew(server)}))
            elif "csr" in said:
                server = signing.sign(str(said["csr"]).encode()).decode()
                self._running.send(_json({"cert": server}))
            elif said.get("done"):
                return Outcome(bool(said.get("changed")), server)
            else:
                _report(said, report)

    def listen(self, report: Report) -> None:
        while not (said := self._next()).get("done"):
            _report(said, report)

    def _next(self) -> dict[str, object]:
        try:
            line = self._lines.next(self._deadline - time.monotonic())
        except TimeoutError as err:
            raise MachineError("The host did not finish in time") from err
        if line is None:
            raise MachineError(
                "Provisioning ended early", details=printable(self._running.stderr()[-3000:])
            )
        said = _parse(line)
        if "error" in said:
            raise MachineError(
                f"On the host: {printable(str(said['error']), 500)}",
                details=printable(str(said.get("details", "")).strip()),
            )
        return said


def _report(said: Mapping[str, object], report: Report) -> None:
    if isinstance(said.get("step"), str):
        report(str(said["step"]))


def _parse(line: bytes) -> dict[str, object]:
    try:
        said = json.loads(line[:_ANSWER_LIMIT])
    except (ValueError, RecursionError) as err:
        shown = printable(line[:200].decode("utf-8", "replace"))
        raise MachineError("The host's answer makes no sense", details=shown) from err
    if not isinstance(said, dict):
        raise MachineError("The host's answer makes no sense")
    return said


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
