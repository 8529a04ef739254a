"""openat2: what a symlink means inside a root."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.host import openat


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/x").write_text("inside")
    (root / "absolute").symlink_to("/etc/x")
    (root / "climbing").symlink_to("../../../../etc/x")
    (root / "dir").symlink_to("/etc")
    (root / "loop").symlink_to("loop")
    return root


@pytest.mark.parametrize(
    "path",
    [b"etc/x", b"/etc/x", b"absolute", b"climbing", b"dir/x", b"../../etc/x", b"/dir/../etc/x"],
)
def test_symlinks_mean_what_they_mean_inside(root: Path, path: bytes) -> None:
    root_fd = os.open(root, openat.DIRECTORY)
    try:
        fd = openat.open_in_root(root_fd, path, os.O_RDONLY)
        with open(fd) as file:
            assert file.read() == "inside"
        assert not os.get_inheritable(root_fd)
    finally:
        os.close(root_fd)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"absolute", errno.ELOOP),
        (b"dir/x", errno.ELOOP),
        (b"../x", errno.EXDEV),
        (b"missing", errno.ENOENT),
        (b"etc/x/y", errno.ENOTDIR),
    ],
)
def test_open_real_follows_nothing(root: Path, path: bytes, number: int) -> None:
    root_fd = os.open(root, openat.DIRECTORY)
    try:
        with pytest.raises(OSError, match=r".") as caught:
            openat.open_real(root_fd, path, os.O_RDONLY)
        assert caught.value.errno == number
        assert caught.value.filename == path
    finally:
        os.close(root_fd)


def test_no_magic_links_no_nul(root: Path) -> None:
    proc = os.open("/proc", openat.DIRECTORY)
    try:
        with pytest.raises(OSError, match=r".") as caught:
            openat.open_in_root(proc, b"self/root/etc/passwd", os.O_RDONLY)
        assert caught.value.errno in (errno.ELOOP, errno.EXDEV)
        with pytest.raises(OSError, match="null byte"):
            openat.open_in_root(proc, b"self\0x", os.O_RDONLY)
    finally:
        os.close(proc)
