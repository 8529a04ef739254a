"""Certificates of a store: one authority, one client identity, a server certificate a machine.

EC P-256 throughout. Roles stand in the SAN (`spiffe://machine/STORE-ID/client|server/NAME`) and in
the extended key usage, which is exclusive, so a machine's certificate opens no other machine
(security.md C5-C11). Everything carries key identifiers and critical basic constraints and key
usage (RFC 5280), which OpenSSL's strict mode, Python 3.13 and Go all want.

Ages: the authority 5 years; leaves 397 days, not C9's 90, because nothing renews them by itself yet
(`provision` and `regenerate-certs` do, and warn from 30 days before the end).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import getpass
import hashlib
import ipaddress
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from machine.errors import MachineError
from machine.model import AuthFiles
from machine.store.files import create_exclusive, ensure_dir, read_limited, write_atomic

CA_DAYS: Final = 5 * 365
LEAF_DAYS: Final = 397
LEAST_CA_DAYS: Final = 30  # create refuses an authority that ends sooner (case 96)
BACKDATE: Final = dt.timedelta(hours=1)  # C11: the host's clock may be behind
_PEM_LIMIT: Final = 1 << 20
_CA_NAME: Final = "machine CA"
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._@+-]")

AnyKey = ec.EllipticCurvePrivateKey


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Where the authority and the client identity are."""

    ca_cert: Path
    ca_key: Path
    client_cert: Path
    client_key: Path
    made: tuple[str, ...] = ()  # lines for the user about what was made just now


@dataclasses.dataclass(frozen=True, slots=True)
class ServerNames:
    """What a server certificate is valid for, apart from its role."""

    machine: str
    dns: tuple[str, ...]
    ips: tuple[str, ...]


class Authority:
    """The loaded authority of a store: signs, and says which store it is."""

    def __init__(self, cert: x509.Certificate, key: AnyKey) -> None:
        self.cert = cert
        self._key = key

    @property
    def store_id(self) -> str:
        """Follows from the authority's key, so it outlives a renewed authority certificate."""
        spki = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(spki).hexdigest()[:32]

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    def sign_server(self, csr_pem: bytes, names: ServerNames, now: float) -> bytes:
        """A server certificate (PEM) for the key in the request.

        Nothing but the key is taken from the request. Raises MachineError for a request that is
        malformed, not signed by its own key, or for another kind of key than P-256.
        """
        try:
            csr = x509.load_pem_x509_csr(csr_pem)
            valid = csr.is_signature_valid
        except (ValueError, TypeError, InvalidSignature) as err:
            raise MachineError("The host's certificate request can't be read") from err
        key = csr.public_key()
        if not valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise MachineError("The host's certificate request is not valid")
        if not isinstance(key.curve, ec.SECP256R1):
            raise MachineError("The host's certificate request has a key of the wrong kind")
        alternatives: list[x509.GeneralName] = [x509.DNSName(n) for n in names.dns]
        alternatives += [x509.IPAddress(ipaddress.ip_address(a)) for a in names.ips]
        alternatives.append(self._role("server", names.machine))
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        return self._leaf(key, names.machine, alternatives, usage, now)

    def issue_client(self, user: str, now: float) -> tuple[bytes, bytes]:
        """(key PEM, certificate PEM) of a new client identity."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _FOREIGN.sub("-", user).strip("-._@+")[:64] or "user"
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        cert = self._leaf(key.public_key(), name, [self._role("client", name)], usage, now)
        return _key_pem(key), cert

    def _role(self, role: str, name: str) -> x509.UniformResourceIdentifier:
        return x509.UniformResourceIdentifier(f"spiffe://machine/{self.store_id}/{role}/{name}")

    def _leaf(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        alternatives: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        now: float,
    ) -> bytes:
        start = _utc(now)
        end = min(start + dt.timedelta(days=LEAF_DAYS), self.cert.not_valid_after_utc)
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(_name(name), self.cert.subject, key, start - BACKDATE, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signing=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(issuer_id, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_authority(now: float) -> tuple[bytes, bytes]:
    """(key PEM, certificate PEM) of a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = _utc(now)
    name = _name(_CA_NAME)
    builder = (
        _builder(name, name, key.public_key(), start - BACKDATE, start + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signing=True), critical=True)
    )
    cert = builder.sign(key, hashes.SHA256())
    return _key_pem(key), cert.public_bytes(serialization.Encoding.PEM)


def locate(certs: Path, auth: AuthFiles) -> Identity:
    """Where a machine's authority and client identity are (nothing is read but the CA's name).

    A store that docker-machine made keeps its own files; ours are beside them in `certs/machine`,
    because its RSA certificates have no roles and other machines still use them.
    """
    folder = certs / "machine" if _is_foreign(certs / "ca.pem") else certs
    return Identity(
        ca_cert=Path(auth.ca_cert or folder / "ca.pem"),
        ca_key=Path(auth.ca_key or folder / "ca-key.pem"),
        client_cert=Path(auth.client_cert or folder / "cert.pem"),
        client_key=Path(auth.client_key or folder / "key.pem"),
    )


def ensure(
    certs: Path,
    auth: AuthFiles,
    lock: Callable[[], AbstractContextManager[None]],
    now: float,
    user: str = "",
) -> Identity:
    """The identity, made where it is missing; the client's is renewed in the last third of its life.

    Made under the store's lock and with O_EXCL, so parallel first runs agree on one (case 162).
    """
    found = locate(certs, auth)
    if _complete(found, now):
        return found
    made: list[str] = []
    with lock():
        found = locate(certs, auth)
        for path in (found.ca_cert, found.client_cert):
            ensure_dir(path.parent)
        if not found.ca_key.exists() or not found.ca_cert.exists():
            made.append(f"Creating CA: {found.ca_cert}")
            _make_ca(found, now)
        if not _client_is_fresh(found, now):
            made.append(f"Creating client certificate: {found.client_cert}")
            _make_client(found, now, user or _user())
    return dataclasses.replace(found, made=tuple(made))


def renew_client(
    found: Identity, lock: Callable[[], AbstractContextManager[None]], now: float, user: str = ""
) -> None:
    """Issue the client identity anew (`regenerate-certs --client-certs`)."""
    with lock():
        _make_client(found, now, user or _user())


def load_authority(found: Identity) -> Authority:
    """Raises MachineError when the pair can't be read or does not belong together."""
    try:
        cert = x509.load_pem_x509_certificate(read_limited(found.ca_cert, _PEM_LIMIT))
        key = serialization.load_pem_private_key(read_limited(found.ca_key, _PEM_LIMIT), None)
    except (OSError, ValueError, TypeError) as err:
        raise MachineError(
            f"The CA in {found.ca_cert.parent} can't be read", details=str(err)
        ) from err
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise MachineError(
            f"The CA key {found.ca_key} is no EC key", hint="Leave --tls-ca-key out."
        )
    if key.public_key() != cert.public_key():
        raise MachineError(f"{found.ca_key} is not the key of {found.ca_cert}")
    return Authority(cert, key)


def authority_days_left(authority: Authority, now: float) -> float:
    return (authority.cert.not_valid_after_utc - _utc(now)).total_seconds() / 86400


def days_left(pem: bytes, now: float) -> float:
    """Days until a certificate ends (negative afterwards). Raises MachineError."""
    try:
        cert = x509.load_pem_x509_certificate(pem)
    except ValueError as err:
        raise MachineError("A certificate can't be read", details=str(err)) from err
    return (cert.not_valid_after_utc - _utc(now)).total_seconds() / 86400


def not_after(pem: bytes) -> str:
    """The end of a certificate, RFC 3339."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.isoformat()


def server_names(machine: str, address: str, hostname: str, sans: tuple[str, ...]) -> ServerNames:
    """The names that clients may use: the address, the host's own name, localhost, --tls-san.

    Raises MachineError for a --tls-san that is neither a name nor an address.
    """
    dns: list[str] = []
    ips: list[str] = []
    for value in (address, hostname, machine, "localhost", "127.0.0.1", "::1", *sans):
        if not value:
            continue
        try:
            ips.append(str(ipaddress.ip_address(value.strip("[]"))))
            continue
        except ValueError:
            pass
        if re.fullmatch(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", value):
            dns.append(value)
        elif value in sans:
            raise MachineError(f"--tls-san {value!r} is neither a host name nor an IP address")
    return ServerNames(machine, tuple(dict.fromkeys(dns)), tuple(dict.fromkeys(ips)))


def _make_ca(found: Identity, now: float) -> None:
    """Key first: a certificate without its key would count as whole."""
    if found.ca_key.exists() != found.ca_cert.exists() and found.ca_cert.exists():
        raise MachineError(
            f"{found.ca_cert} is there but its key {found.ca_key} is not",
            hint="Restore the key, or name another pair with --tls-ca-cert and --tls-ca-key.",
        )
    found.ca_key.unlink(missing_ok=True)  # left by a run that was killed before the certificate
    key, cert = make_authority(now)
    create_exclusive(found.ca_key, key)
    create_exclusive(found.ca_cert, cert)


def _make_client(found: Identity, now: float, user: str) -> None:
    key, cert = load_authority(found).issue_client(user, now)
    found.client_cert.unlink(missing_ok=True)
    write_atomic(found.client_key, key)
    write_atomic(found.client_cert, cert)


def _complete(found: Identity, now: float) -> bool:
    return found.ca_key.exists() and found.ca_cert.exists() and _client_is_fresh(found, now)


def _client_is_fresh(found: Identity, now: float) -> bool:
    if not found.client_key.exists():
        return False
    try:
        return days_left(read_limited(found.client_cert, _PEM_LIMIT), now) > LEAF_DAYS / 3
    except (OSError, MachineError):
        return False


def _is_foreign(ca: Path) -> bool:
    try:
        cert = x509.load_pem_x509_certificate(read_limited(ca, _PEM_LIMIT))
    except (OSError, ValueError):
        return False
    names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [n.value for n in names] != [_CA_NAME]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: dt.datetime,
    end: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signing,
        key_cert_sign=signing,
        crl_sign=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_pem(key: AnyKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _utc(now: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(now), dt.UTC)


def _user() -> str:
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "user"
