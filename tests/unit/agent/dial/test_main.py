"""`docker system dial-stdio` on a host."""

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from agent.dial.__main__ import DEFAULT, CannotDialError, configured, dial, pump, wanted


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["system", "dial-stdio"], ""),
        (["--host", "unix:///run/x.sock", "system", "dial-stdio"], "/run/x.sock"),
        (["--host=unix:///run/x.sock", "system", "dial-stdio"], "/run/x.sock"),
        (["-H", "tcp://1.2.3.4:2375", "system", "dial-stdio"], None),
        (["--host"], None),
        (["system", "dial-stdio", "more"], None),
        (["system", "df"], None),
        (["ps"], None),
        ([], None),
    ],
)
def test_what_is_asked(arguments: list[str], path: str | None) -> None:
    assert wanted(arguments) == path


def test_the_socket_is_the_configured_one(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    assert configured(str(path)) == DEFAULT
    for text, found in (
        ("{", DEFAULT), ("[]", DEFAULT), ("{}", DEFAULT), ('{"unix_socket": null}', DEFAULT),
        (json.dumps({"unix_socket": "/x"}), "/x"),
    ):  # fmt: skip
        path.write_text(text)
        assert configured(str(path)) == found


def test_no_engine_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CannotDialError, match="is it running") as error:
        dial(str(tmp_path / "nowhere.sock"))
    assert "\n" not in str(error.value)


def test_both_ways_with_a_half_close() -> None:
    ours, theirs = socket.socketpair()
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()

    def engine() -> None:
        got = b""
        while data := theirs.recv(65536):  # until the client's end
            got += data
        theirs.sendall(got[::-1] * 3)
        theirs.close()

    thread = threading.Thread(target=engine)
    pumping = threading.Thread(target=pump, args=(ours, read_in, write_out))
    thread.start()
    pumping.start()
    os.write(write_in, b"question")
    os.close(write_in)
    pumping.join(10)
    assert not pumping.is_alive()
    os.close(write_out)
    with os.fdopen(read_out, "rb") as out:
        assert out.read() == b"noitseuq" * 3
    thread.join(10)
    ours.close()
    os.close(read_in)


def test_a_client_that_goes_ends_it() -> None:
    ours, theirs = socket.socketpair()
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    os.close(read_out)
    theirs.sendall(b"x")
    pump(ours, read_in, write_out)
    for fd in (read_in, write_in, write_out):
        os.close(fd)
    ours.close()
    theirs.close()
