"""stats, top, update, prune, logs with limits, and the fields of create that need a kernel."""

import json

from tests.support.installed import Installed

_SLEEP = ("busybox", "sleep", "1000")


def test_stats(box: Installed) -> None:
    box.docker(
        "run", "-d", "--name", "one", "-m", "64m", "busybox", "sh", "-c", "while :; do :; done"
    )
    line = json.loads(box.docker("stats", "--no-stream", "--format", "json", "one").text)
    assert line["Name"] == "one"
    assert line["MemUsage"].endswith("/ 64MiB")
    assert float(line["CPUPerc"].rstrip("%")) > 5
    found = box.api("GET", "/containers/one/stats", stream="false", **{"one-shot": "true"}).document
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] > 0  # type: ignore[index]
    assert "eth0" in found["networks"]  # type: ignore[operator]
    box.docker("stop", "-t", "0", "one")
    empty = box.api("GET", "/containers/one/stats", stream="false").document
    assert empty["memory_stats"] == {}
    assert empty["read"] == "0001-01-01T00:00:00Z"


def test_top(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", *_SLEEP)
    lines = box.docker("top", "one").lines
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert lines[1].endswith("sleep 1000")
    assert lines[1].startswith("root")
    assert box.docker("top", "one", "-o", "pid,comm").lines[1].split()[1] == "sleep"
    assert "VSZ" in box.docker("top", "one", "aux").lines[0]
    box.docker("stop", "-t", "0", "one")
    box.fails("top", "one", says="is not running")


def test_update(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "-m", "64m", *_SLEEP)
    box.fails("update", "-m", "256m", "one", says="memoryswap")
    box.docker("update", "-m", "128m", "--memory-swap", "256m", "--restart", "always", "one")
    host = box.inspect("one")["HostConfig"]
    assert isinstance(host, dict)
    assert (host["Memory"], host["MemorySwap"]) == (128 << 20, 256 << 20)
    assert host["RestartPolicy"]["Name"] == "always"
    stats = box.api("GET", "/containers/one/stats", stream="false", **{"one-shot": "1"}).document
    assert stats["memory_stats"]["limit"] == 128 << 20  # type: ignore[index]


def test_prune(box: Installed) -> None:
    box.docker("run", "--name", "kept", "--label", "keep", "busybox", "true")
    box.docker("run", "--name", "gone", "-v", "/anonymous", "-v", "named:/n", "busybox", "true")
    box.docker("run", "-d", "--name", "busy", *_SLEEP)
    box.docker("container", "prune", "-f", "--filter", "label!=keep")
    assert sorted(box.docker("ps", "-a", "--format", "{{.Names}}").lines) == ["busy", "kept"]
    box.docker("container", "prune", "-f", "--filter", "until=1h")
    assert "kept" in box.docker("ps", "-a", "--format", "{{.Names}}").lines
    box.docker("volume", "prune", "-f")
    assert box.docker("volume", "ls", "-q").lines == ["named"]
    box.docker("volume", "prune", "-af")
    assert box.docker("volume", "ls", "-q").lines == []


def test_case_172_log_limits(box: Installed) -> None:
    """Followers lose nothing in a rotation; whole lines; never more than was configured."""
    script = (
        "i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i+1)); usleep 1000; done; sleep 1000"
    )
    limits = ["--log-opt", "max-size=20k", "--log-opt", "max-file=4"]
    box.docker("run", "-d", "--name", "one", *limits, "busybox", "sh", "-c", script)
    before = box.agent_pid()
    box.host.run("kill", "-9", str(before))  # the next agent goes on with the rotation
    box.restart_wait(before)  # what was written meanwhile has been rotated away at the end
    box.wait(lambda: "line 3999" in box.docker("logs", "--tail", "1", "one").text, "the last line")
    lines = box.docker("logs", "one").lines
    first = int(lines[0].split()[1])
    assert lines == [f"line {number}" for number in range(first, 4000)]
    assert box.docker("logs", "--tail", "600", "one").lines == lines[-600:]
    folder = f"/var/lib/machine/containers/{box.inspect('one')['Id']}"
    sizes = box.host.run("sh", "-c", f"cat {folder}/ctr.log* | wc -c").stdout
    assert int(sizes) <= 4 * 20 * 1024
    # how many depends on how long the agent was away: nothing is rotated meanwhile
    assert len(box.host.run("sh", "-c", f"ls {folder}/ctr.log*").stdout.split()) > 1


def test_log_drivers(box: Installed) -> None:
    box.docker("run", "--name", "one", "--log-driver", "local", "busybox", "echo", "kept")
    assert box.docker("logs", "one").text == "kept"
    box.docker("run", "--name", "two", "--log-driver", "none", "busybox", "echo", "gone")
    box.fails("logs", "two", says="configured logging driver does not support reading")
    box.fails("create", "--log-driver", "syslog", "busybox", says="syslog")


def test_sharing_with_another_container(box: Installed) -> None:
    start = "mkdir -p /data/sub; echo s > /data/sub/f; echo m > /dev/shm/m; sleep 1000"
    options = ["-v", "vol:/data", "--ipc", "shareable"]
    box.docker("run", "-d", "--name", "donor", *options, "busybox", "sh", "-c", start)
    box.wait(lambda: box.docker("exec", "donor", "ls", "/dev/shm").text == "m", "started")
    run = ("run", "--rm")
    assert box.docker(*run, "--volumes-from", "donor", "busybox", "cat", "/data/sub/f").text == "s"
    assert box.docker(*run, "--ipc", "container:donor", "busybox", "cat", "/dev/shm/m").text == "m"
    assert "sleep 1000" in box.docker(*run, "--pid", "container:donor", "busybox", "ps").text
    mount = "type=volume,src=vol,dst=/s,volume-subpath=sub"
    assert box.docker(*run, "--mount", mount, "busybox", "cat", "/s/f").text == "s"
    outside = "type=volume,src=vol,dst=/s,volume-subpath=up"
    box.docker("exec", "donor", "ln", "-s", "/../../..", "/data/up")
    assert "etc" not in box.docker(*run, "--mount", outside, "busybox", "ls", "/s").text  # case 69
    box.docker("run", "-d", "--name", "private", *_SLEEP)
    box.fails(
        *run, "--ipc", "container:private", "busybox", "true", status=125, says="non-shareable"
    )
    box.fails(
        *run, "--volumes-from", "nobody", "busybox", "true", status=125, says="No such container"
    )


def test_cgroup_parent(box: Installed) -> None:
    box.docker("run", "-d", "--name", "one", "--cgroup-parent", "/mine", "-m", "64m", *_SLEEP)
    assert "/mine/" in box.host.run("cat", f"/proc/{box.state('one')['Pid']}/cgroup").stdout
    box.docker("pause", "one")
    box.docker("unpause", "one")
    box.docker("rm", "-f", "one")


def test_shared_propagation(box: Installed) -> None:
    shell = box.host.run
    shell("sh", "-c", "mkdir -p /sh && mount -t tmpfs t /sh && mount --make-shared /sh")
    try:
        script = "mkdir -p /sh/in && mount -t tmpfs x /sh/in && touch /sh/in/seen"
        box.docker(
            "run", "--rm", "--privileged", "-v", "/sh:/sh:shared", "busybox", "sh", "-c", script
        )
        assert shell("ls", "/sh/in").stdout == "seen\n"
    finally:
        shell("sh", "-c", "umount /sh/in; mount --make-private /sh")
        run = ("run", "--rm", "-v", "/sh:/sh:shared", "busybox", "true")
        box.fails(*run, status=125, says="is not a shared mount")
        shell("umount", "/sh")
