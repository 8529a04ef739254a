"""`logs -f` where the kernel gives no more inotify instances (128 a user by default)."""

import subprocess
import sys
import textwrap
from pathlib import Path

_PROGRAM = """
    import os, select, sys
    from pathlib import Path
    import ctypes
    assert ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0  # a user namespace: own limits
    Path("/proc/sys/user/max_inotify_instances").write_text("0")
    from agent.engine.model import LogQuery
    from agent.host import syscalls
    from agent.runtime.logs import open_logs
    from agent.runtime.settings import Paths, RuntimeSettings

    try:
        syscalls.inotify_init()
    except OSError:
        print("none to be had")
    paths = Paths(RuntimeSettings(run=f"{sys.argv[1]}/run", root=f"{sys.argv[1]}/root"))
    log = Path(paths.log_dir("c")) / "ctr.log"
    Path(paths.record("c")).parent.mkdir(parents=True)
    Path(paths.record("c")).write_text("{}")
    Path(paths.exits).mkdir(parents=True)
    log.parent.mkdir(parents=True)
    log.write_bytes(b"2026-11-23T00:00:00.000000000+00:00 stdout F one\\n")
    stream = open_logs(paths, "c", LogQuery(follow=True, framed=False), tty=True)
    for line in ("one", "two", "three"):
        while (data := stream.read()) is None:
            assert select.select([stream.fileno()], [], [], 5)[0]
        print(data.decode(), end="")
        with log.open("ab") as file:
            word = {"one": "two", "two": "three", "three": "-"}[line].encode()
            file.write(b"2026-11-23T00:00:01.000000000+00:00 stdout F " + word + b"\\n")
"""


def test_case_094_followers_beyond_the_kernels_limit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM), str(tmp_path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split("\n") == ["none to be had", "one", "two", "three", ""]
