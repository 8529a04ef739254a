"""The unix socket's file: mode, owner, stale ones, handed over ones."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from agent.server.limits import Limits
from agent.server.listeners import InheritedListener, ListenError, UnixListener
from tests.api.clients import UnixClient, read_response, request
from tests.api.fakes import FakeApplication, Running


def test_unix_socket_file(directory):
    path = str(directory / "sub" / "x.sock")
    application = FakeApplication()
    with Running(application, [UnixListener(path)], Limits()):
        mode = os.stat(path)
        assert stat.S_ISSOCK(mode.st_mode)
        assert stat.S_IMODE(mode.st_mode) == 0o660
        with (
            pytest.raises(ListenError, match="another engine"),
            Running(application, [UnixListener(path)], Limits()),
        ):
            pass
        assert os.path.exists(path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with Running(application, [UnixListener(path)], Limits()):
        pass
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(path)
        given.listen()
        with Running(application, [InheritedListener(os.dup(given.fileno()))], Limits()):
            client = UnixClient(path)
            client.send(request("GET", "/_ping"))
            assert read_response(client).status == 200
            client.close()
    with socket.socket(socket.AF_INET) as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        with (
            pytest.raises(ListenError, match="unix"),
            Running(application, [InheritedListener(tcp.fileno())], Limits()),
        ):
            pass
