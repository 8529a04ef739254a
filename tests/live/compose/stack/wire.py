"""The least of Redis' and PostgreSQL's protocols: the python image has no drivers."""

import socket
import struct


def _connect(address: str) -> socket.socket:
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


class Redis:
    """One connection; commands are called with their words."""

    def __init__(self, address: str) -> None:
        self.file = _connect(address).makefile("rwb")

    def __call__(self, *words: str) -> object:
        sent = [b"*%d\r\n" % len(words)]
        sent += [b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words]
        self.file.write(b"".join(sent))
        self.file.flush()
        return self._answer()

    def _answer(self) -> object:
        line = self.file.readline().rstrip()
        kind, rest = line[:1], line[1:]
        if kind in b"+:":
            return rest.decode()
        if kind == b"-" or not kind:
            raise OSError(rest.decode())
        if int(rest) < 0:
            return None
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        return self.file.read(int(rest) + 2)[:-2].decode()


class Postgres:
    """One connection without a password; `rows` gives a query's texts."""

    def __init__(self, address: str) -> None:
        self.file = _connect(address).makefile("rwb")
        body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
        self._send(b"", body)
        self._until_ready()

    def rows(self, query: str) -> list[list[str]]:
        self._send(b"Q", query.encode() + b"\0")
        return self._until_ready()

    def _send(self, kind: bytes, body: bytes) -> None:
        self.file.write(kind + struct.pack("!i", len(body) + 4) + body)
        self.file.flush()

    def _until_ready(self) -> list[list[str]]:
        found = []
        while True:
            kind, size = struct.unpack("!ci", self.file.read(5))
            body = self.file.read(size - 4)
            if kind == b"E":
                raise OSError(body.replace(b"\0", b" ").decode())
            if kind == b"D":
                found.append(self._row(body))
            if kind == b"Z":
                return found

    @staticmethod
    def _row(body: bytes) -> list[str]:
        (count,) = struct.unpack_from("!h", body)
        place, row = 2, []
        for _ in range(count):
            (size,) = struct.unpack_from("!i", body, place)
            row.append(body[place + 4 : place + 4 + size].decode())
            place += 4 + size
        return row
