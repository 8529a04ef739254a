import dataclasses
import os
import sqlite3
import stat
import threading

import pytest

from agent.engine.model import Container, ContainerConfig, HostConfig
from agent.errors import EngineError, Kind
from agent.state.records import SqliteRecords, StateDamagedError


def container(number: int, name: str = "") -> Container:
    identity = f"{number:064x}"
    return Container(
        identity,
        name or f"name{number}",
        number,
        ContainerConfig(),
        HostConfig(),
        "s",
        "r",
        "sh",
        (),
    )


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


def reopened(records, folder):
    records.close()
    return SqliteRecords(folder)


def test_saved_is_there_again(folder):
    records = SqliteRecords(folder)
    records.save(container(1))
    records.save(dataclasses.replace(container(1), path="other"))
    records.save(container(2))
    records.delete(container(2).id)
    records = reopened(records, folder)
    assert records.all() == [dataclasses.replace(container(1), path="other")]
    records.close()
    records.close()


def test_the_files_are_private(folder):
    records = SqliteRecords(folder)
    records.save(container(1))
    for name in os.listdir(folder):
        assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o600
    records.close()


def test_settings(folder):
    records = SqliteRecords(folder)
    database = records._live()
    values = [
        database.execute(f"PRAGMA {one}").fetchone()[0]
        for one in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert values == ["wal", 2, 1]
    records.close()


def test_names_are_unique_and_can_change_hands(folder):
    records = SqliteRecords(folder)
    records.save(container(1, "web"))
    with pytest.raises(EngineError) as caught:
        records.save(container(2, "web"))
    assert caught.value.kind is Kind.CONFLICT
    records.save(container(1, "old"))
    records.save(container(2, "web"))
    assert [one.name for one in records.all()] == ["old", "web"]
    records.close()


def test_intents(folder):
    records = SqliteRecords(folder)
    first = records.begin("c1", "create", {"volumes": "a,b"})
    second = records.retire("c2", {})
    records.end(first)
    assert records.pending() == [(second, "c2", "remove", {})]
    # `end` is carried by the next commit.
    records.save(container(1))
    other = sqlite3.connect(os.path.join(folder, "state.db"))
    assert other.execute("SELECT count(*) FROM intents").fetchone() == (1,)
    other.close()
    records.end(second)
    records = reopened(records, folder)
    assert records.pending() == []
    assert records.begin("c3", "start", {}) > second
    records.close()


def test_retire_is_one_commit(folder):
    records = SqliteRecords(folder)
    records.save(container(1))
    row = records.retire(container(1).id, {"volumes": "v"})
    assert (records.all(), records.pending()) == (
        [],
        [(row, container(1).id, "remove", {"volumes": "v"})],
    )
    records.close()


def test_case_126_one_bad_record_is_put_aside(folder):
    records = SqliteRecords(folder)
    for number in range(3):
        records.save(container(number))
    records.close()
    database = sqlite3.connect(os.path.join(folder, "state.db"))
    database.execute(
        "UPDATE containers SET record = '{\"newer\": 1}' WHERE id = ?", (container(1).id,)
    )
    database.commit()
    database.close()
    records = SqliteRecords(folder)
    assert records.all() == [container(0), container(2)]
    assert records.quarantined()[0][0] == container(1).id
    records.save(container(4, "name1"))
    records = reopened(records, folder)
    assert len(records.all()) == 3
    records.close()


def test_case_126_a_newer_schema_is_refused(folder):
    SqliteRecords(folder).close()
    database = sqlite3.connect(os.path.join(folder, "state.db"))
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StateDamagedError, match="newer agent"):
        SqliteRecords(folder)


@pytest.mark.parametrize("offset", range(0, 40000, 1999))
def test_case_126_truncated(folder, offset):
    """It starts with all records, or says what to do: it never starts silently empty."""
    records = SqliteRecords(folder)
    for number in range(40):
        records.save(container(number))
    records.close()
    path = os.path.join(folder, "state.db")
    size = os.path.getsize(path)
    if not 0 < offset < size:
        return
    os.truncate(path, offset)
    with pytest.raises(StateDamagedError) as caught:
        SqliteRecords(folder).all()
    assert path in str(caught.value)
    assert caught.value.hint


def test_case_126_single_bits(folder):
    records = SqliteRecords(folder)
    for number in range(20):
        records.save(container(number))
    records.close()
    path = os.path.join(folder, "state.db")
    with open(path, "rb") as file:
        good = file.read()
    for position in range(0, len(good), len(good) // 60):
        flipped = bytearray(good)
        flipped[position] ^= 1 << (position % 8)
        with open(path, "wb") as file:
            file.write(flipped)
        try:
            records = SqliteRecords(folder)
        except StateDamagedError:
            continue
        try:
            found = len(records.all()) + len(records.quarantined())
            assert found == 20, position
        except StateDamagedError:
            pass
        finally:
            records.close()
            for leftover in ("-wal", "-shm"):
                if os.path.exists(path + leftover):
                    os.unlink(path + leftover)


def test_case_128_a_failed_write_is_told_and_the_next_one_works(folder):
    records = SqliteRecords(folder)
    records.save(container(1))
    other = sqlite3.connect(os.path.join(folder, "state.db"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    records._live().execute("PRAGMA busy_timeout=1")
    with pytest.raises(EngineError) as caught:
        records.save(container(2))
    assert caught.value.kind is Kind.INTERNAL
    other.execute("ROLLBACK")
    other.close()
    records.save(container(3))
    assert [one.created for one in records.all()] == [1, 3]
    records.close()


def test_many_threads(folder):
    records = SqliteRecords(folder)

    def work(base):
        for number in range(base, base + 20):
            records.save(container(number))

    threads = [threading.Thread(target=work, args=(100 * one,)) for one in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(records.all()) == 160
    records.close()
