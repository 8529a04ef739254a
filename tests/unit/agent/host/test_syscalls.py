import errno
import os
import select
import threading
from pathlib import Path

import pytest

from agent.host import syscalls


def test_inotify_names_what_was_moved_in(tmp_path: Path):
    fd = syscalls.inotify_init()
    try:
        watch = syscalls.inotify_add_watch(fd, str(tmp_path), syscalls.IN_MOVED_TO)
        assert syscalls.inotify_read(fd) == []
        (tmp_path / "x.tmp").write_text("1")
        os.rename(tmp_path / "x.tmp", tmp_path / "x")
        events = syscalls.inotify_read(fd)
        assert [(event.watch, event.name) for event in events] == [(watch, b"x")]
        syscalls.inotify_rm_watch(fd, watch)
    finally:
        os.close(fd)


def test_errors_carry_errno():
    with pytest.raises(OSError) as caught:
        syscalls.umount("/definitely/not/here")
    assert caught.value.errno in {errno.ENOENT, errno.EPERM}
    with pytest.raises(ValueError, match="null"):
        syscalls.mount("x", "a\0b")
    with pytest.raises(ValueError, match="page"):
        syscalls.mount("x", "/", data="x" * 5000)


def test_filesystem_type(tmp_path: Path):
    assert syscalls.filesystem_type("/proc") == 0x9FA0
    with pytest.raises(FileNotFoundError):
        syscalls.filesystem_type(str(tmp_path / "no"))


def test_renameat2_noreplace(tmp_path: Path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    at = syscalls.AT_FDCWD
    with pytest.raises(FileExistsError):
        syscalls.renameat2(
            at, str(tmp_path / "a"), at, str(tmp_path / "b"), syscalls.RENAME_NOREPLACE
        )
    syscalls.renameat2(at, str(tmp_path / "a"), at, str(tmp_path / "b"), syscalls.RENAME_EXCHANGE)
    assert (tmp_path / "a").read_text() == "b"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_mount_namespace_is_the_threads_own(tmp_path: Path):
    seen: list[bool] = []

    def work() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
        syscalls.mount("tmpfs", str(tmp_path), "tmpfs")
        seen.append(syscalls.filesystem_type(str(tmp_path)) == syscalls.TMPFS_MAGIC)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_an_interval_timer_is_readable_again_and_again() -> None:
    fd = syscalls.interval_timer(0.01)
    try:
        for _ in range(3):
            assert select.select([fd], [], [], 5)[0], "it never fired"
            assert syscalls.inotify_read(fd) == []  # what reads events takes it for none
            assert not select.select([fd], [], [], 0)[0] or syscalls.inotify_read(fd) == []
    finally:
        os.close(fd)
