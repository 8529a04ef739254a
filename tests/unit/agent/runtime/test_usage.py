"""Parsers of control groups, /proc and log files: text in, values out."""

import os

import pytest

from agent.engine.inside import BlockAmount, Process, Traffic
from agent.runtime import logfiles, usage
from agent.runtime.processes import family, parse_stat, terminal


def test_interfaces():
    text = (
        "Inter-|   Receive |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes ...\n"
        "    lo:  100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n"
        "  eth0: 1296 16 1 2 0 0 0 0 656 8 3 4 0 0 0 0\n"
    )  # fmt: skip
    assert usage.interfaces(text) == {"eth0": Traffic(1296, 16, 1, 2, 656, 8, 3, 4)}


def test_host_cpu():
    assert usage.host_cpu("cpu  1 2 3 4 5 6 7 8 9 9\ncpu0 1\ncpu1 1\nintr 5\n") == (280_000_000, 2)


def test_blocks():
    v1 = "8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nTotal 4096\n"
    assert usage.block_v1(v1)[0] == BlockAmount(8, 0, "read", 4096)
    v2 = "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:0\n"
    assert usage.block_v2(v2, ("rbytes", "wbytes")) == (
        BlockAmount(8, 16, "read", 1),
        BlockAmount(8, 16, "write", 2),
    )


def test_numbers():
    assert usage.number("max\n", 7) == 7
    assert usage.number("12\n") == 12
    assert usage.key_values("a 1\nb two\nc 3\n") == {"a": 1, "c": 3}


def test_a_process_name_may_hold_anything():
    name, fields = parse_stat("12 (a) b (c) S 1 12 12 0 -1")
    assert name == "a) b (c"
    assert fields[:2] == ["S", "1"]


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "?"), (34816, "pts/0"), (34821, "pts/5"), (1025, "tty1")]
)
def test_terminals(number, shown):
    assert terminal(number) == shown


def process(pid: int, parent: int, session: int = 1) -> Process:
    return Process(pid, parent, 0, "root", "x", "x", "S", "?", 0, 0.0, 0, 0, session=session)


def test_a_family_is_descent_and_session():
    everyone = [
        process(1, 0),
        process(10, 1, 10),  # the check
        process(11, 10, 10),
        process(12, 11, 12),  # a session of its own, still a descendant
        process(13, 1, 10),  # its parent has gone
        process(20, 1, 20),  # somebody else's
    ]
    assert family(everyone, 10) == {10, 11, 12, 13}


def test_rotation(tmp_path):
    folder = str(tmp_path)
    limits = logfiles.Limits(size=100, files=3)
    assert not logfiles.rotate(folder, limits)
    for number in range(4):
        (tmp_path / "ctr.log").write_text(f"{number}" * 40)
        assert logfiles.rotate(folder, limits)
    assert [os.path.basename(one) for one in logfiles.names(folder)] == [
        "ctr.log.2", "ctr.log.1", "ctr.log",
    ]  # fmt: skip
    assert (tmp_path / "ctr.log.1").read_text() == "3" * 40
    (tmp_path / "ctr.log").write_text("4" * 180)  # a burst: the sum is what counts
    logfiles.rotate(folder, limits)
    assert sorted(os.listdir(folder)) == ["ctr.log.1"]
