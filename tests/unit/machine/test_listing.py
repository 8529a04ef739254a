"""ls: cells, filters, and what an unreadable or unfinished machine looks like."""

from __future__ import annotations

import pytest

from machine.errors import MachineError
from machine.listing import HEADERS, TABLE, Row, matches, parse_filters
from machine.model import EngineOptions, MachineRecord

WEB = MachineRecord("web", "u", "ssh", "t", engine=EngineOptions(labels=("tier=Front", "a=b")))
ROW = Row("web", WEB, "Running", "tcp://10.0.0.1:2376", "1.2", "", 0.0123)


def test_cells() -> None:
    cells = ROW.cells("tcp://10.0.0.1:2376")
    assert [cells[name] for name in TABLE] == [
        "web", "*", "ssh", "Running", "tcp://10.0.0.1:2376", "", "v1.2", "",
    ]  # fmt: skip
    assert cells["ResponseTime"] == "12ms"
    assert set(cells) == set(HEADERS)
    assert ROW.cells("tcp://10.0.0.2:2376")["Active"] == "-"


def test_cells_of_a_machine_that_can_not_be_read() -> None:
    cells = Row("bad", None, "Error", error="corrupt record").cells("")
    assert (cells["DriverName"], cells["State"], cells["Error"], cells["DockerVersion"]) == (
        "not found",
        "Error",
        "corrupt record",
        "Unknown",
    )
    assert cells["Active"] == "-"  # an empty DOCKER_HOST is not its empty URL


def test_host_is_not_running_is_no_error() -> None:
    assert Row("w", WEB, "Stopped", error="Host is not running").cells("")["Error"] == ""


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ([], True),
        (["driver=SSH"], True), (["driver=local"], False), (["driver=local", "driver=ssh"], True),
        (["state=running"], True), (["state=stopped"], False),
        (["name=we"], True), (["name=^eb"], False),
        (["label=TIER=front"], True), (["label=tier"], False), (["label=tier=back"], False),
        (["swarm=x"], False),
        (["name=web", "state=stopped"], False),
    ],
)  # fmt: skip
def test_filters(filters: list[str], shown: bool) -> None:
    assert matches(ROW, parse_filters(filters)) is shown


@pytest.mark.parametrize(
    ("word", "said"),
    [("foo", "Unsupported filter syntax"), ("x=1", "Unsupported filter key 'x'"),
     ("name=(", "Bad name filter")],
)  # fmt: skip
def test_wrong_filters(word: str, said: str) -> None:
    with pytest.raises(MachineError, match=said):
        parse_filters([word])


def test_an_unreadable_machine_matches_by_name_and_state_only() -> None:
    row = Row("bad", None, "Error")
    assert matches(row, parse_filters(["name=bad", "state=error"]))
    assert not matches(row, parse_filters(["driver=ssh"]))
