import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import EngineError
from agent.runtime import users

PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n4294967296:x:0:0::/:\nbad\n"
)
GROUP = "root:x:0:\nbob:x:1001:\nwheel:x:10:root,bob\nextra:x:2000:bob\nbroken:x:y:bob\n"


def resolve(text: str, add=()):
    found = users.resolve(text, add, PASSWD, GROUP)
    return found.uid, found.gid, found.groups, found.home


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, (0, 10), "/root")),
        ("root", (0, 0, (0, 10), "/root")),
        ("bob", (1000, 1001, (1001, 10, 2000), "/home/bob")),
        ("1000", (1000, 1001, (1001, 10, 2000), "/home/bob")),
        ("bob:wheel", (1000, 10, (10,), "/home/bob")),
        ("7", (7, 0, (0,), "/")),
        ("7:9", (7, 9, (9,), "/")),
        ("4294967294", (4294967294, 0, (0,), "/")),
    ],
)
def test_resolution(text, expected):
    assert resolve(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "4294967296", "4294967295", "-1", "0x0", " 0", "0 ", "1_000", "\uff11", "+1", "0:4294967296",
        "root:", ":0", "nosuch", "root:nosuch", "a" * (1 << 20), "0\n", "99999999999",
    ],
)  # fmt: skip
def test_case_048_users_that_are_none(text):
    with pytest.raises(EngineError, match="no matching entries in"):
        resolve(text)


def test_case_052_group_add():
    assert resolve("bob", ("extra", "5"))[2] == (1001, 10, 2000, 5)
    with pytest.raises(EngineError, match="Unable to find group nosuch"):
        resolve("bob", ("nosuch",))


@given(st.text(max_size=20), st.text(max_size=200), st.text(max_size=200))
def test_never_root_by_accident(text, passwd, group):
    try:
        found = users.resolve(text, (), passwd, group)
    except EngineError:
        return
    listed = any(line.split(":")[0] == text for line in passwd.split("\n"))
    numeric = users.number(text.partition(":")[0])
    assert text == "" or numeric == found.uid or listed or ":" in text


def read(root: Path) -> str:
    fd = os.open(root, os.O_PATH)
    try:
        return users.read_file(fd, b"etc/passwd")
    finally:
        os.close(fd)


def test_case_049_files_that_are_none(tmp_path: Path):
    etc = tmp_path / "etc"
    etc.mkdir()
    assert read(tmp_path) == ""
    os.mkfifo(etc / "passwd")
    assert read(tmp_path) == ""
    (etc / "passwd").unlink()
    (etc / "passwd").mkdir()
    assert read(tmp_path) == ""
    (etc / "passwd").rmdir()
    (etc / "passwd").symlink_to("/etc/passwd")  # itself, in the root
    assert read(tmp_path) == ""
    (etc / "passwd").unlink()
    (etc / "passwd").symlink_to("/real")
    (tmp_path / "real").write_text("x:x:1:1::/:\n")
    assert read(tmp_path) == "x:x:1:1::/:\n"


def test_case_050_files_are_bounded(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("abcdefg:x:1:1::/:\n" * 100_000)
    text = read(tmp_path)
    assert len(text) <= 1 << 20
    assert text.endswith(":/:")
