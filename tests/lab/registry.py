"""The lab's registry: Debian's docker-registry over HTTP, and over TLS with basic authentication.

It runs in a small container of its own on the lab's bridge, so nothing listens on this computer's
own addresses. Both doors show the same images; pushes go to an overlay that ends with the lab.
"""

import datetime as dt
import http.client
import ipaddress
import json
import ssl
from dataclasses import dataclass
from pathlib import Path

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.lab import cgroups, network
from tests.lab.cache import key_of
from tests.lab.debian import MINIMAL_KEY, Debian
from tests.lab.enter import Overlay, Root
from tests.lab.environment import CLEAN_ENVIRONMENT
from tests.lab.process import run
from tests.lab.supervise import Unit, power_on
from tests.lab.waiting import wait_until

HTTP_PORT, TLS_PORT = 5000, 5443
USERNAME, PASSWORD = "lab", "secret"
_UNIT = "registry"
_SCRIPT = "cd /; for c in http tls; do docker-registry serve /etc/lab/$c.json & done; wait"


def program(debian: Debian) -> Path:
    """A layer with the docker-registry program (unpacked, not installed: no service starts here)."""

    def build(place: Path) -> None:
        (place / "debs").mkdir()
        for deb in debian.download(place / "debs", [debian.minimal()], "docker-registry"):
            run(["dpkg-deb", "-x", str(deb), str(place / "root")])
        if (place / "root/lib").is_dir():  # minimal has /lib -> usr/lib; keep it a link
            run(["cp", "-a", str(place / "root/lib") + "/.", str(place / "root/usr/lib")])
            run(["rm", "-r", str(place / "root/lib")])

    return debian.cache.entry("registry", key_of("registry", 1, MINIMAL_KEY), build) / "root"


@dataclass(frozen=True)
class Authority:
    """A certificate authority and a server certificate for one address; PEM texts."""

    ca: str
    certificate: str
    key: str


def new_authority(ip: str) -> Authority:
    """A fresh CA with a server certificate for `ip`, registry.lab and localhost."""
    now = dt.datetime.now(tz=dt.UTC)
    begin, end = now - dt.timedelta(days=1), now + dt.timedelta(days=3650)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab registry CA")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.lab")])
    serial = x509.random_serial_number
    ca_usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    ca_identity = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        x509.CertificateBuilder(ca_name, ca_name, ca_key.public_key(), serial(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(ca_usage, critical=True)
        .add_extension(ca_identity, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names = [
        x509.IPAddress(ipaddress.ip_address(ip)),
        x509.DNSName("registry.lab"),
        x509.DNSName("localhost"),
    ]
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_identity)
    certificate = (
        x509.CertificateBuilder(ca_name, name, key.public_key(), serial(), begin, end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    return Authority(
        ca.public_bytes(pem).decode(), certificate.public_bytes(pem).decode(), private.decode()
    )


class Registry:
    """A lab's registry.

    `http` and `tls` are `IP:port`; `url` is what --engine-registry-mirror takes; `ca` the file with
    the CA of `tls`; `username` and `password` open `tls`.
    """

    username, password = USERNAME, PASSWORD

    def __init__(self, directory: Path, subnet: network.Subnet) -> None:
        self._directory = directory
        self._subnet = subnet
        self.ip = subnet.address(2)
        self.ca = directory / "ca.pem"

    @property
    def http(self) -> str:
        """host:port of plain HTTP."""
        return f"{self.ip}:{HTTP_PORT}"

    @property
    def tls(self) -> str:
        """host:port of TLS with basic authentication."""
        return f"{self.ip}:{TLS_PORT}"

    @property
    def url(self) -> str:
        """The mirror's URL."""
        return f"http://{self.http}"

    @property
    def running(self) -> bool:
        """Whether it has processes."""
        return bool(cgroups.members(self._subnet.lab, _UNIT))

    def start(self, layers: tuple[Path, ...], store: Path) -> None:
        """Start it (nothing happens when it runs) and wait until both doors answer."""
        if not self.running:
            self._write_configuration()
            cgroups.make(self._subnet.lab, cgroups.SUPERVISORS)
            cgroups.make(self._subnet.lab, _UNIT)
            power_on(self._unit(layers, store), self._directory)
        wait_until(self._answers, 20, f"registry at {self.ip}")

    def stop(self) -> None:
        """Stop it."""
        cgroups.kill(self._subnet.lab, _UNIT)
        cgroups.remove(self._subnet.lab, _UNIT)
        network.disconnect(self._plug())

    def _answers(self) -> bool:
        trust = ssl.create_default_context(cafile=str(self.ca))
        plain = http.client.HTTPConnection(self.ip, HTTP_PORT, timeout=2)
        secure = http.client.HTTPSConnection(self.ip, TLS_PORT, timeout=2, context=trust)
        try:
            for connection, expected in ((plain, 200), (secure, 401)):
                connection.request("GET", "/v2/")
                if connection.getresponse().status != expected:
                    return False
        except OSError:
            return False
        else:
            return True
        finally:
            plain.close()
            secure.close()

    def _write_configuration(self) -> None:
        folder = self._directory / "upper/etc/lab"
        for place in (folder, self._directory / "work", self._directory / "top",
                      self._directory / "pushed", self._directory / "pushed-work"):  # fmt: skip
            place.mkdir(parents=True, exist_ok=True)
        made = new_authority(self.ip)
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()
        storage = {
            "filesystem": {"rootdirectory": "/store", "maxthreads": 100},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        }
        common = {"version": 0.1, "log": {"level": "warn"}, "storage": storage}
        door = {"certificate": "/etc/lab/cert.pem", "key": "/etc/lab/key.pem"}
        secret = {"secret": key_of(made.key)}
        plain = {**common, "http": {"addr": f"{self.ip}:{HTTP_PORT}", **secret}}
        tls = {
            **common,
            "http": {"addr": f"{self.ip}:{TLS_PORT}", "tls": door, **secret},
            "auth": {"htpasswd": {"realm": "lab", "path": "/etc/lab/htpasswd"}},
        }
        files = {
            "http.json": json.dumps(plain),  # YAML is a superset of JSON
            "tls.json": json.dumps(tls),
            "cert.pem": made.certificate,
            "key.pem": made.key,
            "htpasswd": f"{USERNAME}:{hashed}\n",
        }
        for name, text in files.items():
            (folder / name).write_text(text)
        self.ca.write_text(made.ca)

    def _plug(self) -> network.Plug:
        subnet = self._subnet
        netns = network.netns_name(subnet.lab, _UNIT)
        return network.Plug(subnet.switch, netns, self.ip, subnet.gateway)

    def _unit(self, layers: tuple[Path, ...], store: Path) -> Unit:
        folder = self._directory
        root = Overlay(
            tuple(map(str, layers)),
            str(folder / "upper"),
            str(folder / "work"),
            str(folder / "top"),
        )
        pushed = Overlay(
            (str(store),), str(folder / "pushed"), str(folder / "pushed-work"), "/store"
        )
        spec = Root(
            root=root,
            argv=("/bin/sh", "-c", _SCRIPT),
            environment={"PATH": CLEAN_ENVIRONMENT["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            hostname="registry",
            overlays=(pushed,),
        )
        return Unit(self._subnet.lab, _UNIT, str(folder), self._plug(), spec)
