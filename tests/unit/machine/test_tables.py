"""Columns, ages, sizes."""

from __future__ import annotations

import pytest

from machine.tables import age, human_size, ports, printable, table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (125, "2 minutes"),
        (3600, "About an hour"),
        (3600 * 30, "30 hours"),
        (86400 * 3, "3 days"),
        (86400 * 20, "2 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (123_456_789, "123MB")]
)
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


def test_table_escapes_what_hosts_say() -> None:
    assert table(["A", "BB"], [["x\x1b[2J", "y"], ["é", ""]]) == "A          BB\nx\\x1b[2J   y\né"


def test_printable() -> None:
    assert printable("a\nb\u202e") == "a\\nb\\u202e"


def test_ports() -> None:
    listed: list[dict[str, object]] = [
        {"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"},
        {"PrivatePort": 80, "PublicPort": 8080, "IP": "::", "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    assert ports(listed) == "0.0.0.0:8080->80/tcp, 443/tcp, [::]:8080->80/tcp"
