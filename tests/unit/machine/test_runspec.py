"""docker's flags to the create body: a table a spelling."""

from __future__ import annotations

import pytest

from machine.runspec import FlagError, RunFlags, create_body, device, mount, ports, size, ulimit


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        ("8080:80", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        ("127.0.0.1:8080:80", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        ("127.0.0.1::80", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        ("53:53/udp", {"53/udp": [{"HostIp": "", "HostPort": "53"}]}),
        ("[::1]:8080:80", {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
        ("8000-8010:80", {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}),
        (
            "8000-8001:80-81/tcp",
            {
                "80/tcp": [{"HostIp": "", "HostPort": "8000"}],
                "81/tcp": [{"HostIp": "", "HostPort": "8001"}],
            },
        ),
    ],
)
def test_publish(spec: str, expected: object) -> None:
    assert ports([spec]) == expected


@pytest.mark.parametrize(
    "spec", ["x", "80:x", "80-70", "1-2:80-82", "80/icmp", "70000:80:9:x", "0"]
)
def test_publish_refused(spec: str) -> None:
    with pytest.raises(FlagError):
        ports([spec])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("10b", 10),
        ("1k", 1024),
        ("512m", 512 << 20),
        ("1.5g", 3 << 29),
        ("1GiB", 1 << 30),
    ],
)
def test_size(text: str, expected: int) -> None:
    assert size(text) == expected


def test_size_refused() -> None:
    with pytest.raises(FlagError, match="invalid size"):
        size("lots")


def test_mounts() -> None:
    assert mount("type=bind,src=/a,dst=/b,readonly") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
    }
    assert mount("target=/b,volume-nocopy") == {
        "Type": "volume",
        "Target": "/b",
        "VolumeOptions": {"NoCopy": True},
    }
    assert mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770") == {
        "Type": "tmpfs",
        "Target": "/t",
        "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770},
    }
    for wrong in ("type=bind,src=/a", "target=/b,colour=red"):
        with pytest.raises(FlagError):
            mount(wrong)


def test_ulimits_and_devices() -> None:
    assert ulimit("nofile=10:20") == {"Name": "nofile", "Soft": 10, "Hard": 20}
    assert ulimit("core=-1") == {"Name": "core", "Soft": -1, "Hard": -1}
    assert device("/dev/fuse") == {
        "PathOnHost": "/dev/fuse",
        "PathInContainer": "/dev/fuse",
        "CgroupPermissions": "rwm",
    }
    assert device("/dev/a:/dev/b:r")["CgroupPermissions"] == "r"
    assert device("/dev/a:rw")["PathInContainer"] == "/dev/a"
    with pytest.raises(FlagError):
        device("/dev/a:/dev/b:xyz")
    with pytest.raises(FlagError):
        ulimit("nofile=many")


def test_environment_takes_the_callers_values() -> None:
    flags = RunFlags(
        image="x",
        env=("A=1", "HOME", "MISSING"),
        env_file_lines=("# comment", "", "B=2"),
        environ={"HOME": "/h"},
    )
    assert create_body(flags)["Env"] == ["B=2", "A=1", "HOME=/h"]


def test_body_of_a_plain_run() -> None:
    body = create_body(RunFlags(image="debian", command=("true",)))
    assert body["Cmd"] == ["true"]
    assert body["AttachStdout"] is True
    assert body["AttachStdin"] is False
    assert body["HostConfig"] == {}


def test_body_of_a_rich_run() -> None:
    body = create_body(
        RunFlags(
            image="httpd",
            detach=True,
            restart="on-failure:3",
            memory="64m",
            cpus="1.5",
            volume=("/host:/in:ro", "named:/data", "/anonymous"),
            tmpfs=("/run:size=1m", "/tmp"),
            publish=("8080:80",),
            label=("a=b", "c"),
            entrypoint="",
        )
    )
    assert body["HostConfig"] == {
        "Binds": ["/host:/in:ro", "named:/data"],
        "Tmpfs": {"/run": "size=1m", "/tmp": ""},
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "Memory": 64 << 20,
        "NanoCpus": 1_500_000_000,
    }
    assert body["Volumes"] == {"/anonymous": {}}
    assert body["ExposedPorts"] == {"80/tcp": {}}
    assert body["Labels"] == {"a": "b", "c": ""}
    assert body["Entrypoint"] == [""]
    assert body["AttachStdout"] is False


@pytest.mark.parametrize("policy", ["always:3", "on-failure:x"])
def test_restart_policy_refused(policy: str) -> None:
    with pytest.raises(FlagError, match="invalid restart policy format"):
        create_body(RunFlags(image="x", restart=policy))
