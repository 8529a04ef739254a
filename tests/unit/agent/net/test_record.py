from __future__ import annotations

import threading
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from agent.errors import EngineError
from agent.net import record
from agent.net.behind import Behind
from agent.net.bip import parse_bip


def test_record_comes_back(tmp_path: Path) -> None:
    folder = str(tmp_path / "network")
    made = record.load(folder, 5)
    assert made.created == 5
    assert {len(name) for name in made.ids.values()} == {64}
    assert record.load(folder, 6) == made
    changed = record.NetworkRecord(made.ids, 5, IPv4Interface("172.18.0.1/16"), "boot", (2, 3))
    record.save(folder, changed)
    assert record.load(folder, 7) == changed


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 2}', '{"version": 1, "guard": 3}'])
def test_a_damaged_record_is_kept_aside(tmp_path: Path, damage: str) -> None:
    (tmp_path / "network.json").write_text(damage)
    assert record.load(str(tmp_path), 1).created == 1
    assert (tmp_path / "network.json.bad").read_text() == damage


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "172.17.0.0/16",
        "172.17.255.255/16",
        "10.0.0.1",
        "8.8.8.8/24",
        "::1/64",
        "10.0.0.1/7",
    ],
)
def test_bip_that_is_none(given: str) -> None:
    with pytest.raises(EngineError, match="invalid bip"):
        parse_bip(given)


def test_behind_in_order_and_on_demand() -> None:
    behind, done = Behind(), []
    first = threading.Event()

    def fail() -> None:
        raise OSError("no")

    behind.later(0, fail)
    behind.later(0, first.set)
    assert first.wait(2)
    behind.later(60, lambda: done.append(1))
    behind.later(30, lambda: done.append(2))
    behind.flush()
    assert sorted(done) == [1, 2]
    behind.later(60, lambda: done.append(3))
    behind.close()
    behind.later(60, lambda: done.append(4))
    behind.close()
    assert sorted(done) == [1, 2, 3, 4]
