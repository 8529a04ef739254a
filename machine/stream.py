"""Blocking byte streams to an engine: unix socket or mutual TLS, both with half-close.

`ssl.SSLSocket` can't send close_notify and go on reading, which is what the end of stdin means to
`run -i` over TLS (DESIGN decision 9); so TLS here is `ssl.MemoryBIO` over a plain socket.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Protocol

CHUNK = 65536


class Stream(Protocol):
    """Bytes in, bytes out.  One reader thread and one writer thread may use it at once."""

    def recv(self) -> bytes:
        """Blocks; b"" is the end."""

    def send(self, data: bytes) -> None:
        """Blocks until all is handed to the kernel.  OSError when the peer has gone."""

    def close_write(self) -> None:
        """End of our bytes; the peer's go on."""

    def close(self) -> None: ...


class PlainStream:
    """A connected socket as it is."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def recv(self) -> bytes:
        return self._sock.recv(CHUNK)

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def close_write(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()


class TlsStream:
    """TLS client on memory BIOs.  The handshake is done by the constructor (ssl.SSLError)."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._lock = threading.Lock()  # an SSL object serves one thread at a time
        self._send_lock = threading.Lock()  # records must reach the socket in order
        self._taken = bytearray()  # read from TLS, not yet by our caller
        self._handshake()

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush()  # the alert tells the server why
                raise
            else:
                self._flush()
                return

    def peer_certificate(self) -> bytes:
        """The peer's verified certificate, DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    def _fill(self) -> None:
        data = self._sock.recv(CHUNK)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        with self._send_lock:
            with self._lock:
                data = self._outgoing.read()
            if data:
                self._sock.sendall(data)

    def recv(self) -> bytes:
        while True:
            try:
                with self._lock:
                    if self._taken:
                        data, self._taken = bytes(self._taken), bytearray()
                        return data
                    return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def _take_all(self) -> None:
        try:
            while data := self._tls.read(CHUNK):
                self._taken += data
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            with self._lock:
                taken = self._tls.write(view[:CHUNK])
            view = view[taken:]
            self._flush()

    def close_write(self) -> None:
        try:
            with self._lock:
                # unwrap() looks for the peer's close_notify too, and OpenSSL throws away the data
                # that it meets there (measured): nothing may be left for it to meet.
                self._take_all()
                self._tls.unwrap()
        except ssl.SSLError:
            pass  # close_notify is queued; the peer's answer comes when it has finished
        self._flush()

    def close(self) -> None:
        self._sock.close()


def tls_context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """Client context for mutual TLS.  Paths of PEM files.  OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # docker-machine's old certificates lack key identifiers, which Python 3.13 began to demand.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cafile=ca)
    context.load_cert_chain(cert, key)
    return context
