"""drivers.caller: whom a firewall is opened to."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from drivers.api import DriverContext
from drivers.caller import ASKED, caller_cidr
from drivers.errors import DriverError
from drivers.testkit import context


class Says:
    """drivers.api.Http that gives these answers, the last one again and again."""

    def __init__(self, *answers: tuple[int, bytes] | str) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 60.0,
    ) -> tuple[int, bytes]:
        self.asked.append(f"{method} {url}")
        one = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(one, str):
            raise DriverError(one)
        return one


def asking(folder: Path, http: Says) -> DriverContext:
    return dataclasses.replace(context(folder, (), {}), http=http)


@pytest.mark.parametrize(
    ("body", "cidr"),
    [
        (b"8.8.4.4\n", "8.8.4.4/32"),
        (b"2001:4860:4860::8888\n", "2001:4860:4860::8888/128"),
    ],
)
def test_an_address_becomes_a_network_of_one(tmp_path: Path, body: bytes, cidr: str) -> None:
    http = Says((200, body))
    assert caller_cidr(asking(tmp_path, http)) == cidr
    assert http.asked == [f"GET {ASKED}"]


def test_a_bad_moment_is_waited_out(tmp_path: Path) -> None:
    http = Says("no route", (503, b"later"), (200, b"8.8.4.4"))
    assert caller_cidr(asking(tmp_path, http)) == "8.8.4.4/32"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("checkip.amazonaws.com did not answer", "did not answer"),
        ((500, b"8.8.4.4"), "answered 500"),
        ((200, b"<html>0.0.0.0/0"), "no address"),
        ((200, b"0.0.0.0/0"), "no address"),
        ((200, b"\xff\xfe"), "no address"),
        ((200, b"0.0.0.0"), "no public address"),
        ((200, b"192.168.1.7"), "no public address"),
        ((200, b"::"), "no public address"),
    ],
)
def test_anything_else_opens_nothing_and_names_the_way_out(
    tmp_path: Path, answer: tuple[int, bytes] | str, says: str
) -> None:
    with pytest.raises(DriverError, match=says) as told:
        caller_cidr(asking(tmp_path, Says(answer)))
    assert "option" in told.value.hint
