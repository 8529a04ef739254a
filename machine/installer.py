"""Provisioning one host, from facts to an engine that answers over mutual TLS."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from drivers.errors import WaitTimeoutError
from drivers.polling import Backoff, NotYet, wait_until
from machine import pki
from machine.config import ENGINE_TIMEOUT
from machine.errors import EXIT_PRECHECK, MachineError
from machine.hosts import Hosts
from machine.model import AuthFiles, Deployed, MachineRecord
from machine.progress import Progress
from machine.provision import apply, bundle, plan
from machine.provision.facts import Facts
from machine.provision.plan import Plan, Wanted
from machine.store import Store
from machine.store.files import ensure_dir, read_limited, write_atomic
from machine.transport.api import Transport

_PEM_LIMIT: Final = 1 << 20
_TEXTS: Final = {
    "bundle": "Installing the agent...",
    "certificate": "Copying certs to the remote machine...",
    "config": "Setting Docker configuration on the remote daemon...",
    "service": "Starting the agent...",
}


AskVersion = Callable[[MachineRecord], str]


class Installer:
    """Plans and performs provisioning. Raises MachineError."""

    def __init__(
        self,
        store: Store,
        hosts: Hosts,
        progress: Progress,
        ask_version: AskVersion | None = None,
    ) -> None:
        self._store = store
        self._ask_version = ask_version or self._over_tls
        self._hosts = hosts
        self._progress = progress

    def ensure_identity(self, auth: AuthFiles) -> pki.Identity:
        """The store's authority and client identity, made at the first use."""
        now = self._now()
        self._store.prepare()
        found = pki.ensure(self._store.paths.certs, auth, self._store.ca_lock, now)
        for line in found.made:
            self._progress.note(line)
        left = pki.authority_days_left(pki.load_authority(found), now)
        if left < pki.LEAST_CA_DAYS:
            raise MachineError(
                f"The CA {found.ca_cert} ends in {left:.0f} days",
                hint="Move it away to have a new one made, then regenerate the certificates of all "
                "machines: machine regenerate-certs -f NAMES",
            )
        return found

    def look(self, transport: Transport) -> Facts:
        return apply.look(transport)

    def plan(
        self,
        record: MachineRecord,
        facts: Facts,
        *,
        take_over: bool = False,
        new_certificate: bool = False,
    ) -> Plan:
        """Raises MachineError with all problems of the host at once (exit 3, case 145)."""
        authority = pki.load_authority(pki.locate(self._store.paths.certs, record.auth))
        wanted = Wanted(
            machine=record.name,
            uuid=record.uuid,
            store_id=authority.store_id,
            address=record.address,
            port=record.engine_port,
            listen=_listen(record),
            engine=record.engine,
            driver=record.driver,
            names=(),  # the agent takes those of its certificate
            bundle=bundle.load(self._hosts.ports.cache).folder,
            new_certificate=new_certificate,
            take_over=take_over,
            now=self._now(),
            others=frozenset(self._other_uuids(record)),
        )
        found = plan.problems(facts, wanted)
        if found:
            raise MachineError(
                f"The host can't become a machine ({facts.os_name})",
                details="\n".join(f"- {text}" for text in found),
                hint="Nothing was changed on it.",
                exit_code=EXIT_PRECHECK,
            )
        return plan.make(facts, wanted)

    def install(
        self, record: MachineRecord, transport: Transport, facts: Facts, steps: Plan
    ) -> MachineRecord:
        """Perform the plan; the record then says what is on the host (it is not saved here)."""
        system = facts.os.get("ID", "linux")
        self._progress.phase(f"Provisioning with {system}({steps.init.value})...")
        if steps.packages:
            self._progress.phase(f"Installing packages: {', '.join(steps.packages)}...")
            apply.install_packages(transport, steps)
        identity = pki.locate(self._store.paths.certs, record.auth)
        authority = pki.load_authority(identity)
        self._progress.phase("Copying certs to the local machine directory...")
        self.copy_identity(record, identity)
        names = pki.server_names(record.name, record.address, facts.hostname, record.auth.sans)
        now = self._now()
        signing = apply.Signing(
            ca_pem=authority.pem.decode(),
            renew=lambda pem: steps.new_certificate or not _still_good(pem, authority, names, now),
            sign=lambda csr: authority.sign_server(csr, names, now),
        )
        packed = bundle.load(self._hosts.ports.cache)
        done = apply.apply(transport, steps, packed, signing, self._step)
        folder = self._store.machine_dir(record.name)
        write_atomic(folder / "server.pem", done.server_pem.encode())
        deployed = Deployed(
            packed.sha256, steps.init.value, facts.os_name, pki.not_after(done.server_pem.encode())
        )
        return record.with_changes(deployed=deployed)

    def copy_identity(self, record: MachineRecord, identity: pki.Identity) -> None:
        """What DOCKER_CERT_PATH points at: copies, as docker-machine has them."""
        folder = self._store.machine_dir(record.name)
        ensure_dir(folder)
        for source, name in (
            (identity.ca_cert, "ca.pem"),
            (identity.client_cert, "cert.pem"),
            (identity.client_key, "key.pem"),
        ):
            _copy(source, folder / name)

    def verify(self, record: MachineRecord, *, seconds: float = ENGINE_TIMEOUT) -> MachineRecord:
        """Wait until the engine answers over mutual TLS, as a client would ask it."""
        self._progress.phase("Checking connection to Docker...")

        def attempt() -> str | NotYet:
            try:
                return self.engine_version(record)
            except MachineError as err:
                return NotYet(str(err))

        try:
            wait_until(
                attempt,
                what="an answer of the engine",
                seconds=seconds,
                clock=self._hosts.ports.clock,
                backoff=Backoff(first=0.05, most=1.0),
            )
        except WaitTimeoutError as err:
            raise MachineError(
                f"The engine at {record.url} does not answer",
                details=err.message,
                hint=f"Is port {record.engine_port} open in the host's or the cloud's firewall?",
            ) from err
        return record

    def engine_version(self, record: MachineRecord) -> str:
        """The engine's version. Raises MachineError when it does not answer."""
        return self._ask_version(record)

    def _over_tls(self, record: MachineRecord) -> str:
        from machine.engine import Engine, Target

        folder = self._store.machine_dir(record.name)
        answer = Engine(Target(record.url, folder, record.name)).get("/version")
        return str(answer.get("Version", "")) if isinstance(answer, dict) else ""

    def renew_client(self) -> None:
        """A new client identity, and its copies in all machines of ours."""
        identity = self.ensure_identity(AuthFiles())
        pki.renew_client(identity, self._store.ca_lock, self._now())
        for entry in self._store.entries():
            record = entry.record
            if record and not record.imported and not record.auth.client_cert:
                self.copy_identity(record, identity)

    def uninstall(self, record: MachineRecord) -> None:
        """Stop the containers and take everything of ours off the host."""
        with self._hosts.connected(record) as transport:
            facts = apply.look(transport)
            if not facts.root:
                raise MachineError("The SSH user is neither root nor has passwordless sudo")
            if facts.owner and facts.owner.uuid != record.uuid:
                raise MachineError(
                    f'The host is now the machine "{facts.owner.machine}" of someone else',
                    hint="Leave it alone with: machine rm without --uninstall",
                )
            if facts.python:
                apply.uninstall(transport, facts.python, self._undo_step)

    def _step(self, name: str) -> None:
        self._progress.phase(_TEXTS.get(name, name))

    def _undo_step(self, name: str) -> None:
        self._progress.phase(f"Removing from the host: {name}...")

    def _other_uuids(self, record: MachineRecord) -> Iterable[str]:
        for entry in self._store.entries():
            if entry.record and entry.name != record.name:
                yield entry.record.uuid

    def _now(self) -> float:
        return self._hosts.ports.clock.now()


def _still_good(pem: str, authority: pki.Authority, names: pki.ServerNames, now: float) -> bool:
    """The host's certificate is of this authority, for these names, and not in its last third."""
    try:
        cert = x509.load_pem_x509_certificate(pem.encode())
        cert.verify_directly_issued_by(authority.cert)
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound, InvalidSignature):
        return False
    same = set(found.get_values_for_type(x509.DNSName)) == set(names.dns) and {
        str(a) for a in found.get_values_for_type(x509.IPAddress)
    } == set(names.ips)
    return same and pki.days_left(pem.encode(), now) > pki.LEAF_DAYS / 3


def _listen(record: MachineRecord) -> str:
    """All addresses of the host's own family; this computer's engine stays on loopback."""
    if record.local:
        return "127.0.0.1"
    try:
        version = ipaddress.ip_address(record.address).version
    except ValueError:
        version = 4
    return "::" if version == 6 else "0.0.0.0"  # noqa: S104  mutual TLS guards it


def _copy(source: Path, target: Path) -> None:
    try:
        data = read_limited(source, _PEM_LIMIT)
    except OSError as err:
        raise MachineError(f"Cannot read {source}", details=err.strerror or "") from err
    if not target.exists() or target.read_bytes() != data:
        write_atomic(target, data)
