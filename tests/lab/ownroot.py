"""Runs a program where the root of the mount namespace is the root directory that we see.

python -m tests.lab.ownroot --needed      status 0 in a chroot, 1 where they are the same already
python -m tests.lab.ownroot PROGRAM ...
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.lab import syscalls as sc
from tests.lab.enter import make_root


def needed() -> bool:
    """Whether joining our own mount namespace would lead to another root directory."""
    before = os.stat("/")
    child = os.fork()
    if child == 0:
        sc.unshare(sc.CLONE_NEWNS)
        sc.join_namespace("/proc/self/ns/mnt", sc.CLONE_NEWNS)
        after = os.stat("/")
        os._exit((after.st_dev, after.st_ino) != (before.st_dev, before.st_ino))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def main(argv: list[str]) -> int:
    if argv == ["--needed"]:
        return 0 if needed() else 1
    folder = Path.cwd()
    place = Path(tempfile.mkdtemp(prefix="own-root-"))
    sc.unshare(sc.CLONE_NEWNS)
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)  # one of the new namespace
    # A chroot's top need not be a mount point: only from the real root can all be made private.
    sc.join_namespace("/proc/self/ns/mnt", sc.CLONE_NEWNS)
    sc.mount("", "/", "", sc.MS_REC | sc.MS_PRIVATE)
    os.chdir(top)
    os.close(top)
    inside = place.relative_to("/")
    sc.mount(".", str(inside), "", sc.MS_BIND | sc.MS_REC)
    make_root(inside)
    place.rmdir()
    os.chdir(folder)
    return os.execv(argv[0], argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
