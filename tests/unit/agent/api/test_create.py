"""POST /containers/create: what is decoded, defaulted, refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.api.schema.create import create_request, valid_name
from agent.engine.model import (
    DeviceMapping,
    MountRequest,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from agent.errors import EngineError, Kind
from tests.unit.agent.api.golden import FOLDER


def decode(**parts):
    return create_request({"Image": "x", **parts}, "", "")


def host(**parts):
    return decode(HostConfig=parts).host_config


def refused(kind=Kind.INVALID, **parts):
    with pytest.raises(EngineError) as caught:
        decode(**parts)
    assert caught.value.kind is kind
    return caught.value.message


def test_what_the_docker_cli_sends():
    body = json.loads((FOLDER / "create-docker-28.json").read_text())
    request = create_request(body, "web", "linux/amd64")
    assert (request.name, request.platform) == ("web", "linux/amd64")
    config, limits = request.config, request.host_config.resources
    assert config.image == "httpd"
    assert config.cmd == ("ls",)
    assert config.entrypoint is None
    assert config.tty
    assert config.stdin_once
    assert config.exposed_ports == ("90/tcp", "91/tcp")
    assert config.volumes == ("/b",)
    assert request.host_config.port_bindings == (
        PortBinding(90, "tcp", "", "80"),
        PortBinding(91, "tcp", "", "81"),
    )
    assert request.host_config.restart_policy == RestartPolicy("always")
    assert request.host_config.network_mode == "default"
    assert request.host_config.tmpfs == {"/x": ""}
    assert request.host_config.masked_paths is None
    assert limits.memory == 10 * 1024 * 1024
    assert limits.memory_swappiness is None
    assert limits.pids_limit is None
    assert request.given_host_config["Memory"] == limits.memory
    assert "MaskedPaths" not in request.given_host_config


def test_nothing_but_an_image():
    request = decode()
    assert request.name == ""
    assert request.config.cmd is None
    assert request.host_config == type(request.host_config)()


def test_keys_are_matched_as_go_does():
    request = create_request({"image": "a", "CMD": "ls", "hostconfig": {"memory": 0}}, "", "")
    assert request.config.image == "a"
    assert request.config.cmd == ("ls",)
    assert decode(cmd=["a"], Cmd=["b"]).config.cmd == ("b",)


def test_unknown_fields_of_newer_clients_are_ignored():
    assert decode(FromTheFuture=1, HostConfig={"Newer": [1]}).config.image == "x"


def test_null_is_the_zero_value():
    assert decode(Cmd=None, Env=None, HostConfig=None, NetworkingConfig=None).config.env == ()


def test_command_words():
    assert decode(Cmd="ls -l", Entrypoint=[]).config.cmd == ("ls -l",)
    assert decode(Entrypoint=[]).config.entrypoint == ()
    assert decode(Entrypoint=[""]).config.entrypoint == ("",)


def test_mounts():
    mounts = host(
        Mounts=[
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True,
             "BindOptions": {"Propagation": "rslave"}, "Consistency": "cached"},
            {"Type": "volume", "Source": "v", "Target": "/c",
             "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"},
                               "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}}}},
            {"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o700}},
        ]
    ).mounts  # fmt: skip
    assert mounts == (
        MountRequest("bind", "/b", "/a", read_only=True, propagation="rslave"),
        MountRequest(
            "volume", "/c", "v", no_copy=True, labels={"a": "b"}, driver="local",
            driver_options={"type": "tmpfs"},
        ),
        MountRequest("tmpfs", "/d", tmpfs_size=5, tmpfs_mode=0o700),
    )  # fmt: skip


def test_devices_ulimits_log_and_modes():
    config = host(
        Devices=[{"PathOnHost": "/dev/fuse"}],
        Ulimits=[{"Name": "nofile", "Soft": 10, "Hard": 20}],
        LogConfig={"Type": "json-file", "Config": {}},
        IpcMode="host",
        NetworkMode="container:abc",
        Runtime="runc",
        UsernsMode="host",
        Isolation="default",
        VolumeDriver="local",
        ConsoleSize=[24, 80],
    )
    assert config.resources.devices == (DeviceMapping("/dev/fuse", "/dev/fuse", "rwm"),)
    assert config.resources.ulimits == (Ulimit("nofile", 10, 20),)
    assert config.log_driver == "json-file"
    assert (config.ipc_mode, config.network_mode) == ("host", "container:abc")


def test_ports():
    config = host(
        PortBindings={
            "80/tcp": [{"HostPort": "8080"}, {"HostIp": "::1", "HostPort": "8000-8010"}],
            "53/udp": [{}],
            "99": None,
        }
    )
    assert config.port_bindings == (
        PortBinding(80, "tcp", "", "8080"),
        PortBinding(80, "tcp", "::1", "8000-8010"),
        PortBinding(53, "udp"),
    )
    assert decode(ExposedPorts={"80": {}, "8000-8002/udp": {}}).config.exposed_ports == (
        "80/tcp",
        "8000-8002/udp",
    )


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"Image": ""}, "no image specified"),
        ({"Image": 5}, ("invalid JSON: json: cannot unmarshal number into Go struct field "
                       "ContainerConfig.Image of type string")),
        ({"Tty": "yes"}, "ContainerConfig.Tty of type bool"),
        ({"Env": "A=b"}, "ContainerConfig.Env"),
        ({"Env": [None]}, "null element"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"Hostname": "a b"}, "invalid hostname format: a b"),
        ({"WorkingDir": "rel"}, "needs to be an absolute path"),
        ({"ExposedPorts": {"0/tcp": {}}}, "invalid port specification"),
        ({"ExposedPorts": {"80/icmp": {}}}, "invalid proto: icmp"),
        ({"ExposedPorts": {"80/tcp": 1}}, "cannot unmarshal number"),
        ({"Volumes": {"/": {}}}, "destination can't be '/'"),
        ({"Labels": ["a"]}, "ContainerConfig.Labels"),
        ({"HostConfig": []}, "cannot unmarshal array"),
        ({"HostConfig": {"Memory": "1g"}}, "HostConfig.Memory of type int64"),
        ({"HostConfig": {"Memory": 2**63}}, "HostConfig.Memory of type int64"),
        ({"HostConfig": {"Memory": 1000}}, "Minimum memory limit allowed is 6MB"),
        ({"HostConfig": {"MemorySwap": 5}}, "You should always set the Memory limit"),
        ({"HostConfig": {"Memory": 2**24, "MemorySwap": 2**23}}, "Minimum memoryswap limit"),
        ({"HostConfig": {"NanoCpus": 1, "CpuQuota": 1000}}, "Nano CPUs and CPU Quota"),
        ({"HostConfig": {"MemorySwappiness": 101}}, "valid memory swappiness range is 0-100"),
        ({"HostConfig": {"OomScoreAdj": 1001}}, "range for oom score adj"),
        ({"HostConfig": {"ShmSize": -1}}, "SHM size can not be less than 0"),
        ({"HostConfig": {"RestartPolicy": {"Name": "often"}}}, "unknown policy 'often'"),
        ({"HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}}},
         "maximum retry count can only be used with 'on-failure'"),
        ({"HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}},
         "can't create 'AutoRemove' container with restart policy"),
        ({"HostConfig": {"PortBindings": {"x/tcp": []}}}, "invalid port specification"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "70000"}]}}},
         'invalid port specification: "70000"'),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "9-8"}]}}}, '"9-8"'),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "localhost"}]}}},
         "invalid IP address: localhost"),
        ({"HostConfig": {"Mounts": [{"Type": "bind", "Target": "/a"}]}},
         'invalid mount config for type "bind": field Source must not be empty'),
        ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "x", "Target": "/a"}]}},
         "mount path must be absolute"),
        ({"HostConfig": {"Mounts": [{"Type": "tmpfs", "Source": "x", "Target": "/a"}]}},
         "field Source must not be specified"),
        ({"HostConfig": {"Mounts": [{"Type": "volume", "Target": "/"}]}}, "can't be '/'"),
        ({"HostConfig": {"Mounts": [{"Type": "odd", "Target": "/a"}]}}, "mount type unknown"),
        ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/a",
                                     "TmpfsOptions": {"SizeBytes": 4}}]}},
         "field TmpfsOptions must not be specified"),
        ({"HostConfig": {"Ulimits": [{"Name": "wind", "Soft": 1, "Hard": 1}]}},
         "invalid ulimit type: wind"),
        ({"HostConfig": {"Ulimits": [{"Name": "core", "Soft": 2, "Hard": 1}]}},
         "soft limit must be less than or equal"),
        ({"HostConfig": {"Devices": [{"PathOnHost": "fuse"}]}}, "invalid device path"),
        ({"HostConfig": {"LogConfig": {"Config": {"max-size": "big"}}}}, "invalid size: 'big'"),
        ({"HostConfig": {"IpcMode": "odd"}}, "invalid IpcMode: odd"),
        ({"HostConfig": {"PidMode": "container:"}}, "invalid PidMode"),
        ({"HostConfig": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}},
            'could not select device driver "" with capabilities: [[gpu]]'),
        ({"HostConfig": {"CgroupParent": "/a/../b"}}, "invalid cgroup parent"),
        ({"HostConfig": {"BlkioWeight": 5}}, "Range of blkio weight is from 10 to 1000"),
        ({"HostConfig": {"DeviceCgroupRules": ["x"]}}, "invalid device cgroup rule format: 'x'"),
        ({"HostConfig": {"StorageOpt": {"size": "1G"}}}, "--storage-opt is supported only"),
        ({"HostConfig": {"ExtraHosts": ["x"]}}, 'bad format for add-host: "x"'),
    ],
)  # fmt: skip
def test_mistakes_are_refused(parts, says):
    assert says in refused(**parts)


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"NetworkDisabled": True}, "ContainerConfig.NetworkDisabled"),
        ({"HostConfig": {"LogConfig": {"Type": "syslog"}}}, "HostConfig.LogConfig.Type syslog"),
        ({"HostConfig": {"LogConfig": {"Config": {"mode": "non-blocking"}}}}, "mode=non-blocking"),
        ({"HostConfig": {"LogConfig": {"Config": {"compress": "true"}}}}, "compress"),
        ({"HostConfig": {"Mounts": [{"Type": "npipe", "Target": "/a"}]}}, "npipe"),
        ({"NetworkingConfig": {"EndpointsConfig": {"mine": {"DriverOpts": {"x": "y"}}}}},
         "EndpointsConfig.mine.DriverOpts x"),
        ({"NetworkingConfig": {"EndpointsConfig": {"mine": {"IPAMConfig":
            {"LinkLocalIPs": ["169.254.1.1"]}}}}}, "IPAMConfig.LinkLocalIPs"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_by_name(parts, names):
    message = refused(**parts)
    assert names in message
    assert message.endswith("is not served by this engine yet")


def test_zero_values_of_what_is_not_served_pass():
    decode(
        Healthcheck={"Test": ["NONE"]},
        NetworkDisabled=False,
        HostConfig={
            "Links": [],
            "BlkioWeightDevice": [],
            "CpuCount": 0,
            "StorageOpt": {},
            "DeviceRequests": None,
        },
        NetworkingConfig={"EndpointsConfig": {"bridge": {"Aliases": []}, "default": None}},
    )


def test_no_body():
    with pytest.raises(EngineError, match="EOF"):
        create_request(None, "", "")


@pytest.mark.parametrize("name", ["a", "-ab", "a b", "é1", "/", "//ab", "ab\n", "a" * 256])
def test_bad_names(name):
    with pytest.raises(EngineError, match="Invalid container name"):
        valid_name(name)


def test_good_names():
    assert valid_name("/ab") == valid_name("ab") == "ab"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["HostConfig", "Mounts", "Type", "Target", "PortBindings", "80/tcp", "Env", "Image",
             "Ulimits", "Name", "LogConfig", "Config", "NetworkingConfig", "EndpointsConfig",
             "Devices", "Cmd", "Volumes", "RestartPolicy", "Binds", "Memory", "PidsLimit"]
        )
        | st.text(max_size=6),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_any_document_is_decoded_or_refused(document):
    kind = Kind.INVALID
    try:
        create_request(document, "", "")
    except EngineError as error:
        kind = error.kind
    assert kind in {Kind.INVALID, Kind.NOT_IMPLEMENTED}
