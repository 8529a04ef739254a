"""security.md cases 29 (https to http), 31 and 39: TLS to registries, custom CAs, foreign URLs."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.errors import EngineError, Kind
from agent.images.cancel import Cancellation
from agent.images.connection import Connector, Request, TlsError, TransientError
from agent.images.settings import RegistrySettings
from tests.cases.images.test_registry import ONE, QUICK
from tests.support.evilregistry import EvilRegistry, Reply


def server_context(folder: Path, name: str, days: int = 1) -> ssl.SSLContext:
    """A self-signed certificate for an address; ca.crt is itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    return context


def get(evil: EvilRegistry, folder: Path, *, insecure: bool = False) -> int:
    settings = RegistrySettings(timeouts=QUICK, certificates=(str(folder),))
    connector = Connector(settings, Cancellation())
    try:
        response = connector.open(Request(f"https://{evil.address}/x", {}, insecure=insecure))
        response.close()
        return response.status
    finally:
        connector.close()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return tmp_path


def test_case_039_custom_ca_folder(folder: Path) -> None:
    with EvilRegistry(tls=server_context(folder, "127.0.0.2")) as evil:
        evil.script("/x", Reply(204))
        with pytest.raises(TlsError, match="self-signed certificate"):
            get(evil, folder)
        assert get(evil, folder, insecure=True) == 204
        trusted = folder / evil.address
        trusted.mkdir()
        (trusted / "ca.crt").write_bytes((folder / "ca.crt").read_bytes())
        assert get(evil, folder) == 204


def test_client_certificates_of_the_folder(folder: Path) -> None:
    """`client.cert` and `client.key` beside the CA; only the registry that they belong to asks."""
    other = folder / "client"
    other.mkdir()
    server_context(other, "127.0.0.3")
    context = server_context(folder, "127.0.0.2")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=other / "ca.crt")
    with EvilRegistry(tls=context) as evil:
        evil.script("/x", Reply(204))
        trusted = folder / evil.address
        trusted.mkdir()
        (trusted / "ca.crt").write_bytes((folder / "ca.crt").read_bytes())
        with pytest.raises((TlsError, TransientError)):
            get(evil, folder)
        (trusted / "client.cert").write_bytes((other / "ca.crt").read_bytes())
        with pytest.raises(EngineError, match=r"can't use .*client\.cert"):
            get(evil, folder)  # without its key
        (trusted / "client.key").write_bytes((other / "key.pem").read_bytes())
        assert get(evil, folder) == 204


@pytest.mark.parametrize(
    ("name", "days", "reason"), [("127.0.0.9", 1, "mismatch"), ("127.0.0.2", -1, "expired")]
)
def test_case_039_wrong_name_and_expired(folder: Path, name: str, days: int, reason: str) -> None:
    with EvilRegistry(tls=server_context(folder, name, days)) as evil:
        trusted = folder / evil.address
        trusted.mkdir()
        (trusted / "ca.crt").write_bytes((folder / "ca.crt").read_bytes())
        with pytest.raises(TlsError, match=reason):
            get(evil, folder)


def test_case_039_old_tls_is_refused(folder: Path) -> None:
    context = server_context(folder, "127.0.0.2")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with EvilRegistry(tls=context) as evil, pytest.raises(TlsError):
        get(evil, folder, insecure=True)


def test_case_029_https_never_redirects_to_http(folder: Path) -> None:
    with EvilRegistry() as plain, EvilRegistry(tls=server_context(folder, "127.0.0.2")) as evil:
        evil.script("/x", Reply(302, headers={"Location": f"http://{plain.address}/x"}))
        with pytest.raises(EngineError, match="from https to http") as caught:
            get(evil, folder, insecure=True)
        assert caught.value.kind is Kind.FORBIDDEN
        assert plain.accepted == 0


def test_case_031_foreign_urls_are_ignored() -> None:
    from agent.images import manifest

    layer = {**ONE.descriptor(), "urls": ["http://evil.example/x"]}
    config = {"mediaType": "", "digest": ONE.digest, "size": 1}
    raw = json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode()
    found = manifest.decode(raw, "")
    assert isinstance(found, manifest.Manifest)
    assert "evil" not in repr(found)
