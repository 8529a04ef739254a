"""What fields of the create body do, one row a field: asked for by the API, seen from inside."""

import json

import pytest

from tests.support.installed import Installed

Row = tuple[dict[str, object], str, str]  # the body's fields, a shell command, what it prints


def seen(box: Installed, body: dict[str, object], command: str) -> str:
    """What a container made so prints."""
    made = box.api(
        "POST",
        "/containers/create",
        {"Image": "busybox", "Cmd": ["sh", "-c", f"exec 2>&1; {command}"], **body},
    )
    assert made.status == 201, made.message
    identity = str(made.document["Id"])
    said = box.docker("start", "-a", identity, check=False).text
    box.docker("rm", "-f", identity)
    return said


def check(box: Installed, rows: list[Row]) -> None:
    found = {json.dumps(body): seen(box, body, command) for body, command, _ in rows}
    assert found == {json.dumps(body): wanted for body, _, wanted in rows}


def test_of_the_process(box: Installed) -> None:
    check(
        box,
        [
            ({"User": "33:44"}, "id -u; id -g", "33\n44"),
            ({"Hostname": "h1", "Domainname": "d.e"}, "hostname; hostname -f", "h1\nh1.d.e"),
            ({"Shell": ["/bin/false"]}, "echo runs", "runs"),
            ({"OnBuild": ["RUN false"]}, "echo runs", "runs"),
            ({"Env": ["A=b", "EMPTY="]}, "echo $A-${EMPTY-unset}-", "b--"),
            ({"HostConfig": {"GroupAdd": ["7"]}}, "id -G", "0 7"),
            ({"HostConfig": {"OomScoreAdj": 321}}, "cat /proc/self/oom_score_adj", "321"),
            ({"HostConfig": {"SecurityOpt": ["no-new-privileges"]}},
             "grep NoNewPrivs /proc/self/status | cut -f2", "1"),
            ({"HostConfig": {"SecurityOpt": ["seccomp=unconfined"]}},
             "grep Seccomp: /proc/self/status | cut -f2", "0"),
            ({"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 99, "Hard": 111}]}},
             "ulimit -Sn; ulimit -Hn", "99\n111"),
            ({"HostConfig": {"Annotations": {"own.note": "x"}}}, "echo runs", "runs"),
            ({"HostConfig": {"ContainerIDFile": "/nowhere/id"}}, "echo runs", "runs"),
        ],
    )  # fmt: skip


def test_of_names(box: Installed) -> None:
    check(
        box,
        [
            ({"HostConfig": {"Dns": ["192.0.2.1"]}}, "grep nameserver /etc/resolv.conf",
             "nameserver 192.0.2.1"),
            ({"HostConfig": {"DnsSearch": ["a.example"]}}, "grep search /etc/resolv.conf",
             "search a.example"),
            ({"HostConfig": {"DnsOptions": ["ndots:3"]}}, "grep options /etc/resolv.conf",
             "options ndots:3"),
            ({"HostConfig": {"ExtraHosts": ["name:192.0.2.9", "gate:host-gateway"]}},
             "grep -e name -e gate /etc/hosts | tr '\\t' ' '", "192.0.2.9 name\n172.17.0.1 gate"),
            ({"HostConfig": {"UTSMode": "host"}}, "hostname", box.host.name),
        ],
    )  # fmt: skip


def test_of_the_kernel(box: Installed) -> None:
    check(
        box,
        [
            ({"HostConfig": {"Sysctls": {"net.ipv4.ip_default_ttl": "77"}}},
             "cat /proc/sys/net/ipv4/ip_default_ttl", "77"),
            ({"HostConfig": {"MaskedPaths": ["/etc/passwd"]}}, "wc -c </etc/passwd", "0"),
            ({"HostConfig": {"ReadonlyPaths": ["/etc"]}}, "touch /etc/x; ls /etc/x 2>/dev/null",
             "touch: /etc/x: Read-only file system"),
            ({"HostConfig": {"ShmSize": 1 << 20}}, "df -k /dev/shm | tail -1 | awk '{print $2}'",
             "1024"),
            ({"HostConfig": {"IpcMode": "none"}}, "mount | grep -c /dev/shm", "0"),
            ({"HostConfig": {"DeviceCgroupRules": ["c 1:8 rwm"]}},
             "mknod /r c 1 8 && head -c 1 /r | wc -c", "1"),
            ({"HostConfig": {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine",
                                          "CgroupPermissions": "r"}]}},
             "test -c /dev/mine && echo there", "there"),
            ({"HostConfig": {"PublishAllPorts": True}, "ExposedPorts": {"81/tcp": {}}},
             "echo runs", "runs"),
        ],
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["bind", "volume", "tmpfs"])
def test_options_of_mounts(box: Installed, kind: str) -> None:
    box.host.run("sh", "-c", "rm -rf /srv/opt; mkdir -p /srv/opt/sub; echo x >/srv/opt/sub/file")
    rows: dict[str, list[Row]] = {
        "bind": [
            ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/srv/opt/new", "Target": "/t",
                                         "BindOptions": {"CreateMountpoint": True}}]}},
             "ls -d /t", "/t"),
            ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/srv/opt", "Target": "/t",
                                         "BindOptions": {"Propagation": "rslave"}}]}},
             "grep ' /t ' /proc/self/mountinfo | grep -c master:", "1"),
            ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/srv/opt", "Target": "/t",
                                         "BindOptions": {"NonRecursive": True}}]}},
             "cat /t/sub/file", "x"),
        ],
        "volume": [
            ({"HostConfig": {"Mounts": [{"Type": "volume", "Source": "vv", "Target": "/etc",
                                         "VolumeOptions": {"NoCopy": True}}]}},
             "ls /etc/passwd", "ls: /etc/passwd: No such file or directory"),
            ({"HostConfig": {"Mounts": [{"Type": "volume", "Source": "ww", "Target": "/etc"}]}},
             "mkdir /etc/part; echo in >/etc/part/f; ls /etc/passwd", "/etc/passwd"),
            ({"HostConfig": {"Mounts": [{"Type": "volume", "Source": "ww", "Target": "/t",
                                         "VolumeOptions": {"Subpath": "part"}}]}},
             "cat /t/f", "in"),
        ],
        "tmpfs": [
            ({"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/t",
                                         "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700,
                                                          "Options": [["exec"]]}}]}},
             "df -k /t | tail -1 | awk '{print $2}'; stat -c %a /t; mount | grep ' /t ' | grep -c noexec",
             "1024\n700\n0"),
        ],
    }  # fmt: skip
    check(box, rows[kind])


def test_limits(box: Installed) -> None:
    """Written to the container's group; which file that is depends on the host's cgroups."""
    v2 = (
        box.host.run("test", "-e", "/sys/fs/cgroup/cgroup.controllers", check=False).returncode == 0
    )
    group = "/sys/fs/cgroup" if v2 else "/sys/fs/cgroup/{}"

    def of(controller: str, old: str, new: str) -> str:
        return f"cat {group.format(controller)}/{new if v2 else old}"

    rows: list[Row] = [
        ({"HostConfig": {"CpuPeriod": 50000, "CpuQuota": 25000}},
         of("cpu", "cpu.cfs_quota_us", "cpu.max"), "25000 50000" if v2 else "25000"),
        ({"HostConfig": {"CpusetMems": "0", "CpusetCpus": "0"}},
         of("cpuset", "cpuset.mems", "cpuset.mems"), "0"),
        ({"HostConfig": {"MemoryReservation": 16 << 20}},
         of("memory", "memory.soft_limit_in_bytes", "memory.low"), str(16 << 20)),
        ({"HostConfig": {"Memory": 32 << 20, "MemorySwap": 64 << 20}},
         of("memory", "memory.limit_in_bytes", "memory.max"), str(32 << 20)),
        ({"HostConfig": {"PidsLimit": 55}}, of("pids", "pids.max", "pids.max"), "55"),
    ]  # fmt: skip
    if not v2:
        rows += [
            ({"HostConfig": {"MemorySwappiness": 11}},
             "cat /sys/fs/cgroup/memory/memory.swappiness", "11"),
            ({"HostConfig": {"Memory": 32 << 20, "OomKillDisable": True}},
             "grep oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 1"),
        ]  # fmt: skip
    check(box, rows)


def test_healthcheck_times_out(box: Installed) -> None:
    second = 1_000_000_000
    test = {"Test": ["CMD-SHELL", "sleep 30"], "Interval": second, "Timeout": second, "Retries": 1}
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": test}
    assert box.api("POST", "/containers/create", body, name="slow").status == 201
    box.docker("start", "slow")

    def unhealthy() -> bool:
        health = box.state("slow")["Health"]
        assert isinstance(health, dict)
        return bool(health["Status"] == "unhealthy")

    box.wait(unhealthy, "the check has timed out")
    assert "exceeded timeout" in json.dumps(box.state("slow")["Health"])


def test_published_by_itself(box: Installed) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": {"81/tcp": {}, "82/udp": {}},
            "HostConfig": {"PublishAllPorts": True}}  # fmt: skip
    assert box.api("POST", "/containers/create", body, name="open").status == 201
    box.docker("start", "open")
    shown = {line.split(" -> ")[0] for line in box.docker("port", "open").lines}
    assert shown == {"81/tcp", "82/udp"}
