"""Messages to the client's SSH agent: what passes, what doesn't, and connections that end."""

from __future__ import annotations

import socket
import threading

import pytest

from agent.build.sshforward import Sessions, Upstream, frame
from agent.errors import EngineError, Kind

TOKEN = "0" * 32
LIST = b"\0\0\0\x01\x0b"
FAILURE = b"\0\0\0\x01\x05"


def message(kind: int, body: bytes = b"") -> bytes:
    return (1 + len(body)).to_bytes(4, "big") + bytes([kind]) + body


@pytest.mark.parametrize("kind", [number for number in range(256) if number not in (11, 13)])
def test_only_two_questions_pass(kind: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(0)
        assert Upstream(ours).ask(message(kind, b"x")) == FAILURE
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_answers_of_any_pieces() -> None:
    ours, theirs = socket.socketpair()
    answer = message(12, bytes(70_000))

    def agent() -> None:
        assert frame(theirs) == LIST
        for start in range(0, len(answer), 999):
            theirs.sendall(answer[start : start + 999])

    with ours, theirs:
        thread = threading.Thread(target=agent)
        thread.start()
        assert Upstream(ours).ask(LIST) == answer
        thread.join()


@pytest.mark.parametrize(
    "answer", [b"", b"\0\0\0", b"\0\0\0\x05ab", b"\0\0\0\0", b"\xff\xff\xff\xff"]
)
def test_bad_answers_are_failures(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        upstream = Upstream(ours)
        theirs.sendall(answer)
        theirs.close()
        assert upstream.ask(LIST) == FAILURE
        assert upstream.ask(LIST) == FAILURE


def test_sessions() -> None:
    sessions = Sessions()
    kept = sessions.offer(TOKEN)
    upstream = sessions.find(TOKEN)
    assert upstream is not None
    assert sessions.find("1" * 32) is None
    with pytest.raises(EngineError) as caught:
        sessions.offer(TOKEN)
    assert caught.value.kind is Kind.CONFLICT
    assert kept.tty
    assert kept.read() is None
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(upstream.ask(LIST)))
    thread.start()
    while (asked := kept.read()) is None:
        pass
    assert asked == [(1, LIST)]
    assert kept.write(message(12)) == 5
    thread.join()
    assert answers == [message(12)]
    kept.close_write()
    assert sessions.find(TOKEN) is None
    assert upstream.ask(LIST) == FAILURE
    assert kept.read() == []
    kept.close()
    again = sessions.offer(TOKEN)
    again.close()


def test_there_are_not_too_many() -> None:
    sessions = Sessions()
    kept = [sessions.offer(f"{number:032x}") for number in range(64)]
    with pytest.raises(EngineError, match="too many"):
        sessions.offer(TOKEN[:-2] + "ff")
    for one in kept:
        one.close()
