"""The TLS stream over a socket pair: a half-close loses nothing that is under way."""

import socket
import ssl
import threading

from machine.stream import TlsStream
from tests.lab.registry import new_authority


def _contexts(folder) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    made = new_authority("127.0.0.1")
    for name, text in (("ca", made.ca), ("cert", made.certificate), ("key", made.key)):
        (folder / name).write_text(text)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "cert", folder / "key")
    return server, ssl.create_default_context(cafile=str(folder / "ca"))


def test_data_under_way_survives_close_write(tmp_path) -> None:
    server_context, client_context = _contexts(tmp_path)
    ours, theirs = socket.socketpair()
    payload = bytes(range(256)) * 1024
    heard: list[bytes] = []

    def serve() -> None:
        with server_context.wrap_socket(theirs, server_side=True) as connection:
            connection.sendall(payload)
            heard.append(connection.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    stream = TlsStream(ours, client_context, "127.0.0.1")
    stream.send(b"all of it")
    first = stream.recv()  # a record; the socket gave several
    stream.close_write()
    rest = first
    while len(rest) < len(payload):
        piece = stream.recv()
        assert piece, f"lost {len(payload) - len(rest)} bytes"
        rest += piece
    thread.join(10)
    stream.close()
    assert rest == payload
    assert heard == [b"all of it"]
