"""Who a certificate is for: the role in its SAN URI, its extended key usage, its names.

OpenSSL has verified chain, dates and signature before this is asked; what is decided here is only
the role (DESIGN decision 7, security C7): client certificates carry `clientAuth` alone and
`spiffe://machine/<store-id>/client/<name>`, server certificates `serverAuth` alone and
`.../server/<name>`. The standard library shows neither extension of a peer, hence this minimal DER
reader (X.690, RFC 5280 section 4.1). It refuses what it does not understand, and its oracle in the
tests is pyca/cryptography.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from agent.values import frozen

_SEQUENCE: Final = 0x30
_OID: Final = 0x06
_OCTETS: Final = 0x04
_BOOLEAN: Final = 0x01
_EXTENSIONS: Final = 0xA3  # [3] EXPLICIT, in TBSCertificate
_SAN_DNS: Final = 0x82
_SAN_URI: Final = 0x86
_SAN_IP: Final = 0x87

_BASIC_CONSTRAINTS: Final = b"\x55\x1d\x13"  # 2.5.29.19
_KEY_USAGE_EXTENDED: Final = b"\x55\x1d\x25"  # 2.5.29.37
_ALT_NAMES: Final = b"\x55\x1d\x11"  # 2.5.29.17
_CLIENT_AUTH: Final = b"\x2b\x06\x01\x05\x05\x07\x03\x02"
_SERVER_AUTH: Final = b"\x2b\x06\x01\x05\x05\x07\x03\x01"

_TAG_LOW: Final = 0x1F
_LENGTH_LONG: Final = 0x80
_LENGTH_OCTETS_MAX: Final = 4

_ROLE: Final = re.compile(
    r"spiffe://machine/(?P<store>[A-Za-z0-9][A-Za-z0-9._-]{0,127})"
    r"/(?P<role>client|server)/(?P<name>[A-Za-z0-9][A-Za-z0-9._@+-]{0,127})"
)


class CertificateError(ValueError):
    """The certificate is malformed, or has not the role it needs."""


@frozen(slots=True)
class Role:
    store_id: str
    role: str  # "client" or "server"
    name: str


@frozen(slots=True)
class CertificateNames:
    """The parts of an end-entity certificate that decisions are made on."""

    usages: frozenset[bytes]  # encoded OIDs of the extended key usage
    uris: tuple[str, ...]
    dns: tuple[str, ...]
    ips: tuple[str, ...]  # numeric form
    is_ca: bool


def client_role(der: bytes, store_id: str) -> Role:
    """The role of a client certificate of this store. Raises CertificateError."""
    return _role(der, "client", _CLIENT_AUTH, store_id)


def server_role(der: bytes, store_id: str | None = None) -> Role:
    """The role of a server certificate; of any store when `store_id` is None.

    Raises CertificateError.
    """
    return _role(der, "server", _SERVER_AUTH, store_id)


def _role(der: bytes, wanted: str, usage: bytes, store_id: str | None) -> Role:
    names = certificate_names(der)
    if names.is_ca:
        raise CertificateError("certificate of an authority used as a peer's")
    if names.usages != {usage}:
        raise CertificateError(f"certificate is not for {wanted} authentication alone")
    roles = [uri for uri in names.uris if uri.startswith("spiffe:")]
    match = _ROLE.fullmatch(roles[0]) if len(roles) == 1 else None
    if match is None:
        raise CertificateError("certificate has not exactly one machine role")
    role = Role(match["store"], match["role"], match["name"])
    if role.role != wanted:
        raise CertificateError(f"certificate has the role {role.role}, not {wanted}")
    if store_id is not None and role.store_id != store_id:
        raise CertificateError("certificate belongs to another store")
    return role


def certificate_names(der: bytes) -> CertificateNames:
    """Reads a DER certificate. Raises CertificateError for anything malformed or duplicated."""
    extensions = dict(_extensions(der))
    usages: frozenset[bytes] = frozenset()
    if _KEY_USAGE_EXTENDED in extensions:
        items = _children(_only(extensions[_KEY_USAGE_EXTENDED], _SEQUENCE))
        usages = frozenset(_expect(item, _OID) for item in items)
    uris: list[str] = []
    dns: list[str] = []
    ips: list[str] = []
    if _ALT_NAMES in extensions:
        for tag, value in _children(_only(extensions[_ALT_NAMES], _SEQUENCE)):
            if tag == _SAN_URI:
                uris.append(_text(value))
            elif tag == _SAN_DNS:
                dns.append(_text(value))
            elif tag == _SAN_IP:
                ips.append(_address(value))
    return CertificateNames(usages, tuple(uris), tuple(dns), tuple(ips), _is_ca(extensions))


def _is_ca(extensions: dict[bytes, bytes]) -> bool:
    if _BASIC_CONSTRAINTS not in extensions:
        return False
    fields = list(_children(_only(extensions[_BASIC_CONSTRAINTS], _SEQUENCE)))
    return bool(fields) and fields[0][0] == _BOOLEAN and any(fields[0][1])


def _extensions(der: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(OID, content of the OCTET STRING) of each extension."""
    certificate = list(_children(_only(der, _SEQUENCE)))
    if len(certificate) != 3:
        raise CertificateError("malformed certificate")
    blocks = [
        value for tag, value in _children(_expect(certificate[0], _SEQUENCE)) if tag == _EXTENSIONS
    ]
    if len(blocks) != 1:
        raise CertificateError("certificate without extensions")
    seen: set[bytes] = set()
    for item in _children(_only(blocks[0], _SEQUENCE)):
        fields = list(_children(_expect(item, _SEQUENCE)))
        if len(fields) == 3 and fields[1][0] == _BOOLEAN:
            del fields[1]
        if len(fields) != 2:
            raise CertificateError("malformed certificate extension")
        oid = _expect(fields[0], _OID)
        if oid in seen:
            raise CertificateError("certificate extension given twice")
        seen.add(oid)
        yield oid, _expect(fields[1], _OCTETS)


def _text(value: bytes) -> str:
    try:
        return value.decode("ascii")  # IA5String
    except UnicodeDecodeError as error:
        raise CertificateError("malformed name in certificate") from error


def _address(value: bytes) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise CertificateError("malformed address in certificate") from error


def _expect(element: tuple[int, bytes], tag: int) -> bytes:
    if element[0] != tag:
        raise CertificateError(f"malformed certificate: tag {element[0]:#x} for {tag:#x}")
    return element[1]


def _only(data: bytes, tag: int) -> bytes:
    """The content of the single element that `data` is."""
    elements = list(_children(data))
    if len(elements) != 1:
        raise CertificateError("malformed certificate: trailing data")
    return _expect(elements[0], tag)


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of the elements that `data` is made of."""
    offset = 0
    while offset < len(data):
        tag = data[offset]
        if tag & _TAG_LOW == _TAG_LOW:
            raise CertificateError("malformed certificate: long tag")
        length, offset = _length(data, offset + 1)
        if length > len(data) - offset:
            raise CertificateError("malformed certificate: truncated")
        yield tag, data[offset : offset + length]
        offset += length


def _length(data: bytes, offset: int) -> tuple[int, int]:
    """(length, offset behind it); DER allows only the shortest form."""
    if offset >= len(data):
        raise CertificateError("malformed certificate: truncated")
    first = data[offset]
    offset += 1
    if first < _LENGTH_LONG:
        return first, offset
    octets = data[offset : offset + first - _LENGTH_LONG]
    if not 0 < first - _LENGTH_LONG <= _LENGTH_OCTETS_MAX or len(octets) < first - _LENGTH_LONG:
        raise CertificateError("malformed certificate: length")
    length = int.from_bytes(octets, "big")
    if length < _LENGTH_LONG or not octets[0]:
        raise CertificateError("malformed certificate: length not in shortest form")
    return length, offset + len(octets)
