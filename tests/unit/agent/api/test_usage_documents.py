"""stats, top and path headers as documents."""

import base64
import json
import stat
from typing import Any

import pytest

from agent.api.schema.files import go_mode, path_stat
from agent.api.schema.stats import stats_document
from agent.api.schema.times import go_duration, moment_or_ago
from agent.api.schema.top import top_document
from agent.engine.inside import PathStat, Process, Sample, Traffic
from agent.engine.model import Container, ContainerConfig, HostConfig
from agent.errors import EngineError

SECOND = 1_000_000_000


def container() -> Container:
    return Container(
        "a" * 64, "one", 0, ContainerConfig(), HostConfig(), "sha256:" + "b" * 64, "x", "x", ()
    )


def sample(**changes) -> Sample:
    values = {
        "taken": 1_700_000_000 * SECOND, "unified": True, "cpu_total": 5, "cpu_user": 3,
        "cpu_kernel": 2, "cpu_each": (), "periods": 0, "throttled_periods": 0,
        "throttled_time": 0, "system": 100, "cpus": 4, "memory": 10, "memory_peak": 20,
        "memory_limit": 30, "memory_failures": 0, "pids": 1,
        "networks": {"eth0": Traffic(1, 2, 3, 4, 5, 6, 7, 8)},
    }  # fmt: skip
    return Sample(**{**values, **changes})


def shown(now: Sample | None, before: Sample | None) -> Any:
    return stats_document(container(), now, before)


def test_stats_of_both_versions():
    new = shown(sample(), None)
    assert new["memory_stats"] == {"usage": 10, "stats": {}, "limit": 30}
    assert new["preread"] == "0001-01-01T00:00:00Z"
    assert new["networks"]["eth0"]["tx_dropped"] == 8
    assert "percpu_usage" not in new["cpu_stats"]["cpu_usage"]
    old = shown(sample(unified=False, cpu_each=(2, 3)), sample())
    assert old["memory_stats"]["max_usage"] == 20
    assert old["cpu_stats"]["cpu_usage"]["percpu_usage"] == [2, 3]
    assert old["precpu_stats"]["system_cpu_usage"] == 100
    assert old["blkio_stats"]["io_merged_recursive"] == []


def test_stats_of_what_does_not_run():
    found = shown(None, None)
    assert found["memory_stats"] == {}
    assert found["pids_stats"] == {}
    assert "networks" not in found
    assert "online_cpus" not in found["cpu_stats"]


PROCESS = Process(
    7, 1, 0, "root", "sleep 9", "sleep", "S", "pts/0", 1_700_000_000 * SECOND, 61.5, 4096, 2048,
    session=7,
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "titles", "cells"),
    [
        ("", ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
         ["root", "7", "1", "61", "22:13", "pts/0", "00:01:01", "sleep 9"]),
        ("-eo pid,comm", ["PID", "COMMAND"], ["7", "sleep"]),
        ("-o pid,stat,etime", ["PID", "STAT", "ELAPSED"], ["7", "Ss", "01:40"]),
        ("-A", ["PID", "TTY", "TIME", "CMD"], ["7", "pts/0", "00:01:01", "sleep"]),
    ],
)  # fmt: skip
def test_top(arguments, titles, cells):
    found = top_document([PROCESS], arguments, 1_700_000_100 * SECOND)
    assert found == {"Titles": titles, "Processes": [cells]}


@pytest.mark.parametrize("arguments", ["--forest", "-o comm", "-o pid,odd", "-L"])
def test_top_refuses_what_it_does_not_know(arguments):
    with pytest.raises(EngineError):
        top_document([PROCESS], arguments, 0)


def test_path_headers():
    header = path_stat(PathStat("x", 5, stat.S_IFDIR | 0o1755, SECOND, "/y"))
    assert json.loads(base64.b64decode(header)) == {
        "name": "x", "size": 5, "mode": 1 << 31 | 1 << 20 | 0o755,
        "mtime": "1970-01-01T00:00:01Z", "linkTarget": "/y",
    }  # fmt: skip
    assert go_mode(stat.S_IFLNK | 0o777) == 1 << 27 | 0o777
    assert go_mode(stat.S_IFCHR | 0o4666) == 1 << 26 | 1 << 21 | 1 << 23 | 0o666


def test_durations():
    assert go_duration("1h30m") == 5400 * SECOND
    assert go_duration("1.5s") == 1_500_000_000
    assert go_duration("10") is None
    assert moment_or_ago("10s", "until", 100 * SECOND) == 90 * SECOND
    assert moment_or_ago("7", "until", 100 * SECOND) == 7 * SECOND
