import itertools

import pytest

from agent.engine.model import HostConfig, MountPoint, MountRequest
from agent.engine.mountspec import parse_bind, plan
from agent.errors import EngineError, Kind


def names():
    counter = itertools.count()
    return lambda: f"anon{next(counter)}"


def error_of(function, *arguments):
    with pytest.raises(EngineError) as caught:
        function(*arguments)
    assert caught.value.kind is Kind.INVALID
    return caught.value.message


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("/a:/b", MountPoint("bind", "/b", "/a", propagation="rprivate")),
        (
            "/a:/b:ro",
            MountPoint("bind", "/b", "/a", mode="ro", read_write=False, propagation="rprivate"),
        ),
        ("/a/../c/:/b/", MountPoint("bind", "/b", "/c", propagation="rprivate")),
        ("//a:/b:z,rslave", MountPoint("bind", "/b", "/a", mode="z,rslave", propagation="rslave")),
        (
            "data:/b",
            MountPoint("volume", "/b", name="data", driver="local", mode="z", copy_up=True),
        ),
        (
            "data:/b:ro,nocopy",
            MountPoint(
                "volume", "/b", name="data", driver="local", mode="ro,nocopy", read_write=False
            ),
        ),
        (
            "/b",
            MountPoint("volume", "/b", name="anon0", driver="local", copy_up=True, anonymous=True),
        ),
    ],
)
def test_binds(spec, wanted):
    assert parse_bind(spec, names()) == wanted


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("", "invalid volume specification: ''"),
        (":/b", "invalid volume specification: ':/b'"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:/b:rx", "invalid mode: rx"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:nocopy", "invalid mode: nocopy"),
        ("data:/b:rslave", "invalid mode: rslave"),
        ("/a:b", "invalid mount path: 'b' mount path must be absolute"),
        ("x:b", "invalid mount path: 'b' mount path must be absolute"),
        (
            "./x:/b",
            (
                '"./x" includes invalid characters for a local volume name, only'
                ' "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory,'
                " use absolute path"
            ),
        ),
    ],
)
def test_refused_binds(spec, text):
    assert error_of(parse_bind, spec, names()) == text


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//",
        "/.",
        "/..",
        "..",
        "/a/../..",
        "/a/..",
        "a",
        "/proc",
        "/proc/self/attr",
        "/sys/fs/cgroup",
    ],
)
def test_case_054_mount_destinations(target):
    for host in (
        HostConfig(binds=(f"/x:{target}",)),
        HostConfig(mounts=(MountRequest("bind", target, "/x"),)),
        HostConfig(tmpfs={target: ""}),
    ):
        assert error_of(plan, host, (), names())
    assert error_of(plan, HostConfig(), (target,), names())


def test_case_054_kernel_paths_are_for_the_privileged():
    host = HostConfig(binds=("/sys/fs/cgroup:/sys/fs/cgroup",), privileged=True)
    assert plan(host, (), names())[0].target == "/sys/fs/cgroup"
    assert plan(HostConfig(binds=("/x:/proc/cpuinfo",)), (), names())[0].target == "/proc/cpuinfo"
    assert plan(HostConfig(binds=("/x:/procs",)), (), names())


def test_duplicates():
    host = HostConfig(binds=("/a:/x", "/b:/x/"))
    assert error_of(plan, host, (), names()) == "Duplicate mount point: /x"
    host = HostConfig(binds=("/a:/x",), tmpfs={"/x": ""})
    assert error_of(plan, host, (), names()) == "Duplicate mount point: /x"


def test_image_volumes_yield_and_parents_come_first():
    host = HostConfig(binds=("/a:/data/sub/deep", "v1:/data"))
    found = plan(host, ("/data/", "/other"), names())
    assert [(one.target, one.type, one.name) for one in found] == [
        ("/data", "volume", "v1"),
        ("/other", "volume", "anon0"),
        ("/data/sub/deep", "bind", ""),
    ]


def test_mount_requests():
    volume = MountRequest("volume", "/v", "", read_only=True, no_copy=True)
    tmpfs = MountRequest("tmpfs", "/t", tmpfs_size=1024, tmpfs_mode=0o700)
    found = plan(HostConfig(mounts=(volume, tmpfs)), (), names())
    assert found[0].tmpfs_options == "size=1024,mode=700"
    assert (found[1].anonymous, found[1].copy_up, found[1].read_write) == (True, False, False)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            MountRequest("bind", "/b"),
            'invalid mount config for type "bind": field Source must not be empty',
        ),
        (
            MountRequest("bind", "/b", "x"),
            "invalid mount config for type \"bind\": invalid mount path: 'x' mount path must be absolute",
        ),
        (
            MountRequest("bind", "", "/x"),
            'invalid mount config for type "bind": field Target must not be empty',
        ),
    ],
)
def test_refused_requests(request_, text):
    assert error_of(plan, HostConfig(mounts=(request_,)), (), names()) == text


def test_tmpfs_options():
    assert plan(HostConfig(tmpfs={"/t": "size=1m,ro"}), (), names())[0].read_write is False
    assert error_of(plan, HostConfig(tmpfs={"/t": "evil=1"}), (), names()) == (
        'Invalid tmpfs option ["evil=1"]'
    )
