from __future__ import annotations

import datetime as dt
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.certrole import (
    CertificateError,
    Role,
    certificate_names,
    client_role,
    server_role,
)

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
URI = "spiffe://machine/store-1/client/laptop"
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(uris=(URI,), usages=(CLIENT,), *, dns=(), ips=(), ca=None) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=1))
    )
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
    names.append(x509.RFC822Name("a@b.example"))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


GOOD = certificate()


def test_roles():
    assert client_role(GOOD, "store-1") == Role("store-1", "client", "laptop")
    server = certificate(["spiffe://machine/store-1/server/web"], [SERVER], dns=["web"])
    assert server_role(server).name == "web"
    assert client_role(certificate(ca=False), "store-1").name == "laptop"


@pytest.mark.parametrize(
    "der",
    [
        certificate(usages=()),
        certificate(usages=(SERVER,)),
        certificate(usages=(CLIENT, SERVER)),
        certificate(usages=(CLIENT, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
        certificate(uris=()),
        certificate(uris=(URI, URI)),
        certificate(uris=("spiffe://machine/store-1/server/laptop",)),
        certificate(uris=("spiffe://machine/store-2/client/laptop",)),
        certificate(uris=("spiffe://evil/store-1/client/laptop",)),
        certificate(uris=("https://machine/store-1/client/laptop",)),
        certificate(uris=(URI + "/more",)),
        certificate(uris=(URI + "\n",)),
        certificate(uris=("spiffe://machine/store-1/client/",)),
        certificate(ca=True),
        b"",
        b"\x30\x00",
        b"\x30\x80",
        GOOD + b"\0",
        GOOD[:-1],
    ],
)
def test_refusals(der):
    with pytest.raises(CertificateError):
        client_role(der, "store-1")


def test_names_agree_with_the_library():
    der = certificate([URI, "https://x/"], dns=["a", "b.c"], ips=["10.0.0.1", "fe80::1"])
    names = certificate_names(der)
    extension = x509.load_der_x509_certificate(der).extensions
    theirs = extension.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names.uris) == theirs.get_values_for_type(x509.UniformResourceIdentifier)
    assert list(names.dns) == theirs.get_values_for_type(x509.DNSName)
    assert list(names.ips) == [str(ip) for ip in theirs.get_values_for_type(x509.IPAddress)]


@given(st.binary(max_size=200))
def test_junk_is_refused(junk):
    with pytest.raises(CertificateError):
        client_role(junk, "store-1")


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=400)
def test_flipped_bytes_give_an_answer_or_a_refusal(at, flip):
    changed = bytearray(GOOD)
    changed[at] ^= flip
    try:
        role = client_role(bytes(changed), "store-1")
    except CertificateError:
        return
    assert (role.store_id, role.role) == ("store-1", "client")


@given(st.integers(0, len(GOOD) - 1))
def test_truncated_certificates_are_refused(length):
    with pytest.raises(CertificateError):
        client_role(GOOD[:length], "store-1")
