import contextlib
import datetime as dt
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.wire import certrole
from machine import pki
from machine.errors import MachineError
from machine.model import AuthFiles

NOW = time.time()
NAMES = pki.server_names("web", "10.0.0.1", "host1", ("x.example", "2001:db8::1"))


def authority() -> pki.Authority:
    key, cert = pki.make_authority(NOW)
    loaded = serialization.load_pem_private_key(key, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return pki.Authority(x509.load_pem_x509_certificate(cert), loaded)


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *, ca: bool = False) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil")])
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("evil.example")]), critical=False
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def test_roles_are_what_the_agent_checks() -> None:
    ca = authority()
    _, client = ca.issue_client("jane doe/ü", NOW)
    role = certrole.client_role(der(client), ca.store_id)
    assert (role.role, role.name) == ("client", "jane-doe")
    server = ca.sign_server(request(ec.generate_private_key(ec.SECP256R1())), NAMES, NOW)
    assert certrole.server_role(der(server), ca.store_id).name == "web"
    for wrong in (lambda: certrole.client_role(der(server), ca.store_id),
                  lambda: certrole.server_role(der(client), ca.store_id)):  # fmt: skip
        with pytest.raises(certrole.CertificateError):
            wrong()


def test_nothing_but_the_key_is_taken_from_a_request() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = authority().sign_server(request(key, ca=True), NAMES, NOW)
    cert = x509.load_pem_x509_certificate(pem)
    names = certrole.certificate_names(der(pem))
    assert cert.public_key() == key.public_key()
    assert "evil.example" not in names.dns
    assert not names.is_ca
    assert set(names.dns) == {"host1", "web", "localhost", "x.example"}
    assert set(names.ips) == {"10.0.0.1", "127.0.0.1", "::1", "2001:db8::1"}


def test_bad_requests() -> None:
    ca = authority()
    good = request(ec.generate_private_key(ec.SECP256R1()))
    raw = bytearray(x509.load_pem_x509_csr(good).public_bytes(serialization.Encoding.DER))
    raw[-3] ^= 1
    forged = ssl.DER_cert_to_PEM_cert(bytes(raw)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    wrong_curve = request(ec.generate_private_key(ec.SECP384R1()))
    rsa_key = request(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    for bad in (b"", b"x" * 100, forged.encode(), wrong_curve, rsa_key):
        with pytest.raises(MachineError):
            ca.sign_server(bad, NAMES, NOW)


def test_openssl_strict_accepts(tmp_path: Path) -> None:
    ca = authority()
    server = ca.sign_server(request(ec.generate_private_key(ec.SECP256R1())), NAMES, NOW)
    _, client = ca.issue_client("me", NOW)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    for pem, purpose in ((server, "sslserver"), (client, "sslclient")):
        (tmp_path / "leaf.pem").write_bytes(pem)
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile",
             str(tmp_path / "ca.pem"), str(tmp_path / "leaf.pem")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    other = "sslclient"
    (tmp_path / "leaf.pem").write_bytes(server)
    refused = subprocess.run(
        ["openssl", "verify", "-purpose", other, "-CAfile", str(tmp_path / "ca.pem"),
         str(tmp_path / "leaf.pem")],
        capture_output=True, check=False,
    )  # fmt: skip
    assert refused.returncode != 0


def test_ages() -> None:
    ca = authority()
    cert = ca.cert
    assert NOW - cert.not_valid_before_utc.timestamp() >= 3600
    assert pki.authority_days_left(ca, NOW) > 5 * 365 - 1
    _, client = ca.issue_client("me", NOW + 4.9 * 365 * 86400)
    leaf = x509.load_pem_x509_certificate(client)
    assert leaf.not_valid_after_utc == cert.not_valid_after_utc, "a leaf must not outlive its CA"


def test_ensure_makes_once_and_keeps(tmp_path: Path) -> None:
    def lock() -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    first = pki.ensure(tmp_path, AuthFiles(), lock, NOW, "me")
    assert [line.split(":")[0] for line in first.made] == [
        "Creating CA",
        "Creating client certificate",
    ]
    content = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in tmp_path.iterdir())
    assert pki.ensure(tmp_path, AuthFiles(), lock, NOW, "me").made == ()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == content
    later = pki.ensure(tmp_path, AuthFiles(), lock, NOW + 300 * 86400, "me")
    assert len(later.made) == 1, "the client identity is renewed in the last third of its life"
    assert (tmp_path / "ca.pem").read_bytes() == content["ca.pem"]


def test_a_lost_ca_key_is_not_replaced(tmp_path: Path) -> None:
    lock = contextlib.nullcontext
    pki.ensure(tmp_path, AuthFiles(), lock, NOW, "me")
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(MachineError, match="key"):
        pki.ensure(tmp_path, AuthFiles(), lock, NOW, "me")


def test_docker_machines_own_authority_is_left_alone(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "me")])
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2034, 1, 1, tzinfo=dt.UTC)).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = cert.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(pem)
    found = pki.ensure(tmp_path, AuthFiles(), contextlib.nullcontext, NOW, "me")
    assert found.ca_cert == tmp_path / "machine" / "ca.pem"
    assert (tmp_path / "ca.pem").read_bytes() == pem


def test_bad_san() -> None:
    with pytest.raises(MachineError, match="tls-san"):
        pki.server_names("web", "10.0.0.1", "h", ("a b",))
