"""An exec's streams before the exec runs."""

import os
import select
import threading

from agent.api.deferred import DeferredDuplex
from agent.errors import conflict
from agent.wire.streams import STDOUT


class Pipe:
    """A Duplex whose output is given beforehand."""

    tty = False

    def __init__(self, output):
        self.output = list(output)
        self.input = b""
        self.ended = self.closed = False
        self.fd = os.eventfd(1)

    def fileno(self):
        return self.fd

    def read(self):
        return self.output.pop(0) if self.output else []

    def write(self, data):
        self.input += data
        return len(data)

    def write_fileno(self):
        return None

    def close_write(self):
        self.ended = True

    def close(self):
        self.closed = True
        os.close(self.fd)


def until_end(duplex):
    pieces = []
    while (found := duplex.read()) != []:
        if found is None:
            assert select.select([duplex.fileno()], [], [], 5)[0]
        else:
            pieces += found
    return pieces


def test_nothing_starts_before_the_first_read():
    started = threading.Event()
    pipe = Pipe([[(STDOUT, b"hey")]])

    def start():
        started.set()
        return pipe

    duplex = DeferredDuplex(start, tty=False)
    assert not started.is_set()
    assert duplex.write(b"early") == 0
    duplex.close_write()
    assert until_end(duplex) == [(STDOUT, b"hey")]
    assert pipe.ended
    assert duplex.write(b"late") == 4
    duplex.close()
    assert pipe.closed


def test_an_error_is_text_on_the_stream():
    def start():
        raise conflict("already running")

    duplex = DeferredDuplex(start, tty=True)
    assert until_end(duplex) == [(STDOUT, b"already running\r\n")]
    assert duplex.write(b"x") == 1
    duplex.close()


def test_a_client_that_leaves_before_the_start_has_ended():
    go, bound = threading.Event(), threading.Event()
    pipe = Pipe([])

    class Closing(Pipe):
        def close(self):
            super().close()
            bound.set()

    pipe = Closing([])

    def start():
        assert go.wait(5)
        return pipe

    duplex = DeferredDuplex(start, tty=False)
    assert duplex.read() is None
    duplex.close()
    go.set()
    assert bound.wait(5)
