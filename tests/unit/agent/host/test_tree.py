"""File tree operations: deletion of any shape, atomic writes, bounded reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.host import tree


def remove(parent: Path, name: str) -> None:
    with tree.opened(str(parent)) as fd:
        tree.remove_tree(fd, name)


def test_remove_does_not_follow_symlinks(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("1")
    victim = tmp_path / "victim"
    (victim / "a/b").mkdir(parents=True)
    (victim / "a/link").symlink_to(tmp_path / "outside")
    (victim / ".up-1").mkdir()
    os.mkfifo(victim / "a/fifo")
    (victim / os.fsdecode(b"\xff\n")).write_text("odd")
    remove(tmp_path, "victim")
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside/kept").exists()
    remove(tmp_path, "victim")  # idempotent
    (tmp_path / "link").symlink_to("outside")
    remove(tmp_path, "link")
    assert (tmp_path / "outside/kept").exists()


def test_remove_a_very_deep_tree(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for number in range(3000):
        os.mkdir("d" if number else "top", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd)) if number else None
        below = os.open("d" if number else "top", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove(tmp_path, "top")
    assert os.listdir(tmp_path) == []


def test_write_atomic(tmp_path: Path) -> None:
    tree.write_atomic(str(tmp_path), "x", b"one")
    tree.write_atomic(str(tmp_path), "x", b"two", 0o640)
    assert (tmp_path / "x").read_bytes() == b"two"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["x"]


def test_read_regular_is_bounded_and_never_blocks(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/x")
    with tree.opened(str(tmp_path)) as fd:
        assert tree.read_regular(fd, b"link", 5) == b"12345"
        with pytest.raises(OSError, match="too large"):
            tree.read_regular(fd, b"x", 4)
        with pytest.raises(OSError, match="not a regular file"):
            tree.read_regular(fd, b"fifo", 10)


def test_make_private(tmp_path: Path) -> None:
    tree.make_private(str(tmp_path / "a/b"), 0o710)
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o710
    tree.make_private(str(tmp_path / "a/b"), 0o700)
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
