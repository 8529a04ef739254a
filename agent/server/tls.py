"""TLS on `ssl.MemoryBIO` (DESIGN decision 9, reference/libraries.md section 1).

asyncio's own TLS answers the client's close_notify by closing, so what a container says after
`docker run -i` has ended its input is lost. Here close_notify ends only the client's direction.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from dataclasses import field
from typing import Final

from agent.server.channel import Channel, RawChannel
from agent.server.limits import READ_SIZE
from agent.values import frozen
from agent.wire.certrole import CertificateError, certificate_names, client_role, server_role
from agent.wire.http import Client, Transport

_RECORDS: Final = 128 * 1024  # plain text encrypted in one go
_PLAIN_HTTP: Final = (
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)


class TlsError(Exception):
    """The files of the TLS listener cannot be used. The text names the file, never its content."""


@frozen(slots=True)
class TlsConfig:
    """Where the TLS listener's identity is. Paths to PEM files.

    `store_id` None: the store is the one that the server's own certificate names. `revoked`: a
    file with a client's name or certificate fingerprint (SHA-256, hex) on each line; it may be
    missing. `minimum` is "1.3" or "1.2".
    """

    certificate: str
    key: str
    authority: str
    store_id: str | None = None
    revoked: str | None = None
    minimum: str = "1.3"


@frozen(slots=True)
class Identity:
    """What a connection is accepted with; a reload makes a new one."""

    context: ssl.SSLContext
    store_id: str
    host_names: frozenset[str]  # of the server's own certificate, lower case
    stamp: tuple[tuple[int, int, int], ...] = field(default=())


def load_identity(config: TlsConfig) -> Identity:
    """Reads and checks the files. Raises TlsError."""
    stamp = file_stamp(config)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _version(config.minimum)
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(config.certificate, config.key, password=_no_password)
        context.load_verify_locations(config.authority)
        with open(config.certificate, encoding="ascii") as file:
            der = ssl.PEM_cert_to_DER_cert(_first_certificate(file.read()))
        names = certificate_names(der)
        store_id = config.store_id or server_role(der).store_id
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        files = f"{config.certificate}, {config.key}, {config.authority}"
        raise TlsError(f"cannot use the TLS files {files}: {reason}") from error
    hosts = frozenset(name.lower() for name in (*names.dns, *names.ips, "localhost", "docker"))
    return Identity(context, store_id, hosts, stamp)


def file_stamp(config: TlsConfig) -> tuple[tuple[int, int, int], ...]:
    """Changes when one of the files does; empty when one cannot be read. Raises nothing."""
    try:
        stats = [os.stat(path) for path in (config.certificate, config.key, config.authority)]
    except OSError:
        return ()
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def revoked_clients(config: TlsConfig) -> frozenset[str]:
    """Names and fingerprints that are refused. Raises TlsError when the file is unreadable.

    A missing file revokes nobody; one that exists and cannot be read must not let everybody in.
    """
    if config.revoked is None:
        return frozenset()
    try:
        with open(config.revoked, encoding="utf-8") as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise TlsError(f"cannot read the list of revoked clients {config.revoked}") from error
    return frozenset(line for line in lines if line)


def _version(text: str) -> ssl.TLSVersion:
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    if text not in versions:
        raise ValueError(f"unknown TLS version {text}")
    return versions[text]


def _no_password() -> str:
    """An encrypted key would otherwise be asked for on the terminal."""
    raise ValueError("the private key is encrypted")


def _first_certificate(pem: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = pem.find(begin)
    stop = pem.find(end, start)
    if start < 0 or stop < 0:
        raise ValueError("no certificate in the file")
    return pem[start : stop + len(end)] + "\n"


class TlsChannel(Channel):
    """The server's side of TLS over a RawChannel. `handshake()` comes first."""

    def __init__(self, raw: RawChannel, identity: Identity) -> None:
        self._raw = raw
        self._identity = identity
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._finished = False
        self._tls = identity.context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    @property
    def raw(self) -> RawChannel:
        return self._raw

    async def handshake(self, deadline: float) -> Client:
        """The verified client. Raises ConnectionError, TimeoutError, CertificateError."""
        async with asyncio.timeout(deadline):
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._fetch()
                except ssl.SSLError as error:
                    await self._refuse(error)
            await self._flush()
        return self._client()

    async def _refuse(self, error: ssl.SSLError) -> None:
        """Sends the alert. Raises ConnectionError."""
        if error.reason == "HTTP_REQUEST":
            self._raw.write(_PLAIN_HTTP)
        else:
            await self._flush()
        raise ConnectionResetError(f"TLS handshake failed: {error.reason}") from error

    def _client(self) -> Client:
        der = self._tls.getpeercert(binary_form=True)
        if not der:
            raise CertificateError("no client certificate")
        role = client_role(der, self._identity.store_id)
        fingerprint = hashlib.sha256(der).hexdigest()
        return Client(Transport.TLS, role.name, fingerprint, self._raw.peer_address())

    async def recv(self, limit: int = READ_SIZE) -> bytes:
        while True:
            try:
                data = self._tls.read(limit)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fetch()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise ConnectionResetError(f"TLS failed: {error.reason}") from error
            else:
                return data  # b"" after close_notify

    async def _fetch(self) -> None:
        """Raises ConnectionError at the socket's end: without close_notify it is a truncation."""
        data = await self._raw.recv()
        if not data:
            raise ConnectionResetError("connection ended without close_notify")
        self._incoming.write(data)

    async def _flush(self) -> None:
        """Written before anything else runs, so that two tasks' records keep their order."""
        if self._outgoing.pending:
            await self._raw.send(self._outgoing.read())

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _RECORDS):
            part = view[start : start + _RECORDS]
            try:
                while part:
                    part = part[self._tls.write(part) :]
            except ssl.SSLError as error:
                raise ConnectionResetError(f"TLS failed: {error.reason}") from error
            await self._flush()

    async def finish(self, linger: float) -> None:
        if self._finished:
            return
        self._finished = True
        # SSL_shutdown reports that the peer's close_notify is missing, or that data was unread:
        # neither matters to one who only lingers now.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        if self._outgoing.pending and not self._raw.lost:
            self._raw.write(self._outgoing.read())
        await self._raw.finish(linger)

    def abort(self) -> None:
        self._raw.abort()
