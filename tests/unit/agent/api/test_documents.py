"""What the API shows: golden documents, fields against the specification, texts."""

import json
from dataclasses import replace

import pytest

from agent.api.schema.events import event_document
from agent.api.schema.execs import exec_document
from agent.api.schema.images import (
    history,
    human_size,
    image_inspect,
    image_summary,
    progress_bar,
    progress_line,
    registry_auth,
)
from agent.api.schema.inspect import Surroundings, inspect_document
from agent.api.schema.listing import ImageNames, command_line, list_entry, status_text
from agent.api.schema.networking import network_document
from agent.api.schema.times import human_duration, parse_rfc3339, rfc3339, timestamp
from agent.api.schema.volumes import volume_document
from agent.api.version import CURRENT
from agent.engine.model import (
    Event,
    ExecConfig,
    ExecInfo,
    HostConfig,
    Phase,
    Progress,
    Resources,
    RestartPolicy,
    State,
    Volume,
)
from agent.errors import EngineError
from tests.unit.agent.api.backend import EXITED, IMAGE, NETWORKS, NOW, RUNNING, SECOND
from tests.unit.agent.api.golden import check_golden
from tests.unit.agent.api.spec import definitions

AROUND = Surroundings("/var/lib/machine", network_ids=tuple((one.name, one.id) for one in NETWORKS))
IDS = dict(AROUND.network_ids)
NAMES = ImageNames.of([IMAGE])


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("inspect-running", inspect_document(RUNNING, AROUND)),
        ("inspect-exited", inspect_document(EXITED, replace(AROUND, size_rw=1, size_root_fs=2))),
        ("list", [list_entry(one, NAMES, IDS, NOW) for one in (RUNNING, EXITED)]),
        ("image-inspect", image_inspect(IMAGE, CURRENT)),
        ("image-list", [image_summary(IMAGE, CURRENT)]),
        ("networks", [network_document(one, [RUNNING]) for one in NETWORKS]),
    ],
)
def test_golden(name, document):
    check_golden(name, document)


# What docker leaves out when it is empty or never has on Linux, and old fields.
ABSENT = {
    "ContainerInspectResponse": {"ImageManifestDescriptor", "SizeRw", "SizeRootFs"},
    "ContainerState": {"Health"},
    "ContainerSummary": {"ImageManifestDescriptor", "SizeRw", "SizeRootFs"},
    "HostConfig": {"KernelMemoryTCP", "Mounts", "Annotations", "Init", "StorageOpt", "Sysctls"},
    "ContainerConfig": {
        "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopTimeout", "Shell"
    },
    "NetworkSettings": set(),
    "ImageInspect": {"Descriptor", "Manifests", "Variant", "OsVersion"},
    "ImageSummary": {"Manifests", "Descriptor"},
    "ImageConfig": {"Healthcheck", "ArgsEscaped", "Shell"},
    "Network": {"Peers"},
    "Volume": {"Status", "ClusterVolume", "UsageData"},
    "ExecInspectResponse": set(),
}  # fmt: skip


def test_all_fields_of_the_specification_are_shown():
    inspected = inspect_document(RUNNING, AROUND)
    shown = {
        "ContainerInspectResponse": inspected,
        "ContainerState": inspected["State"],
        "HostConfig": inspected["HostConfig"],
        "ContainerConfig": inspected["Config"],
        "NetworkSettings": inspected["NetworkSettings"],
        "ContainerSummary": list_entry(RUNNING, NAMES, IDS, NOW),
        "ImageInspect": image_inspect(IMAGE, CURRENT),
        "ImageConfig": image_inspect(IMAGE, CURRENT)["Config"],
        "ImageSummary": image_summary(IMAGE, CURRENT),
        "Network": network_document(NETWORKS[0], ()),
        "Volume": volume_document(Volume("a", "/a", NOW)),
        "ExecInspectResponse": exec_document(ExecInfo("e", "c", ExecConfig(("ls",)))),
    }
    for definition, document in shown.items():
        assert isinstance(document, dict)
        expected = set(definitions()[definition]) - ABSENT[definition]
        assert set(document) == expected, definition


def test_old_clients():
    assert image_inspect(IMAGE, (1, 43))["VirtualSize"] == IMAGE.size
    assert image_summary(IMAGE, (1, 43))["VirtualSize"] == IMAGE.size
    assert "VirtualSize" not in image_summary(IMAGE, (1, 44))
    entry = list_entry(RUNNING, NAMES, IDS, NOW, version=(1, 41))
    assert "DNSNames" not in json.dumps(entry)


def inspect_host(config, given=None, cgroup="2"):
    one = replace(RUNNING, host_config=config, given_host_config=given or {})
    return inspect_document(one, replace(AROUND, cgroup_version=cgroup))["HostConfig"]


def test_engine_defaults_of_host_config():
    assert inspect_host(HostConfig(), cgroup="1")["CgroupnsMode"] == "host"
    assert inspect_host(HostConfig(), cgroup="2")["CgroupnsMode"] == "private"
    privileged = inspect_host(HostConfig(privileged=True))
    assert privileged["MaskedPaths"] is privileged["ReadonlyPaths"] is None
    limited = inspect_host(HostConfig(resources=Resources(memory=2**24)), {"Memory": 2**24})
    assert limited["MemorySwap"] == 2**25
    restarting = inspect_host(HostConfig(restart_policy=RestartPolicy("on-failure", 3)))
    assert restarting["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert inspect_host(HostConfig(init=True), {"Init": True})["Init"] is True
    given = {"Mounts": [{"Type": "tmpfs", "Target": "/a"}], "Sysctls": {"a": "b"}}
    shown = inspect_host(HostConfig(), given)
    assert shown["Mounts"] == given["Mounts"]
    assert shown["Sysctls"] == {"a": "b"}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(Phase.RUNNING, started_at=NOW - SECOND // 2), "Up Less than a second"),
        (State(Phase.RUNNING, started_at=NOW - 300 * SECOND), "Up 5 minutes"),
        (State(Phase.PAUSED, started_at=NOW - 2 * SECOND), "Up 2 seconds (Paused)"),
        (State(Phase.EXITED, exit_code=137, finished_at=NOW - 3 * SECOND),
         "Exited (137) 3 seconds ago"),
        (State(Phase.RESTARTING, exit_code=1, finished_at=NOW - 60 * SECOND),
         "Restarting (1) About a minute ago"),
        (State(Phase.REMOVING), "Removal In Progress"),
        (State(Phase.DEAD), "Dead"),
    ],
)  # fmt: skip
def test_status(state, text):
    assert status_text(replace(RUNNING, state=state), NOW) == text


def test_every_phase_has_a_status_text():
    for phase in Phase:
        assert status_text(replace(RUNNING, state=State(phase)), NOW)


def test_image_names():
    assert NAMES.shown(RUNNING) == "httpd"
    assert NAMES.shown(EXITED) == IMAGE.id
    assert NAMES.shown(replace(RUNNING, image_ref="1111")) == "1111"
    assert NAMES.shown(replace(RUNNING, image_ref="docker.io/library/httpd")).startswith("docker")
    moved = ImageNames({"httpd:latest": "sha256:other"})
    assert moved.shown(RUNNING) == IMAGE.id


def test_command_line():
    assert command_line(RUNNING) == "httpd-foreground -D 'FOREGROUND now'"
    assert command_line(replace(RUNNING, args=())) == "httpd-foreground"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (5399, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"),
        (13 * 86400, "13 days"), (14 * 86400, "2 weeks"), (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years"), (-5, "Less than a second"),
    ],
)  # fmt: skip
def test_human_duration(seconds, text):
    assert human_duration(seconds * SECOND) == text


def test_times():
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    assert rfc3339(NOW) == "2023-11-14T22:13:20Z"
    assert rfc3339(NOW + 120_000_000) == "2023-11-14T22:13:20.12Z"
    assert parse_rfc3339(rfc3339(NOW + 1)) == NOW + 1
    assert parse_rfc3339("2023-11-14T23:13:20+01:00") == NOW
    assert parse_rfc3339("nonsense") is None
    assert parse_rfc3339("2023-99-14T23:13:20Z") is None
    assert timestamp("1700000000.000000001", "since") == NOW + 1
    assert timestamp("1700000000.5", "since") == NOW + SECOND // 2
    assert timestamp("", "since") is timestamp("0", "since") is None
    assert timestamp("2023-11-14T22:13:20Z", "since") == NOW
    with pytest.raises(EngineError, match="not a timestamp"):
        timestamp("soon", "since")


def test_progress():
    line = progress_line(Progress("Downloading", "abc", 1500, 3000))
    assert line == {
        "status": "Downloading",
        "progressDetail": {"current": 1500, "total": 3000},
        "progress": "[" + "=" * 25 + ">" + " " * 24 + "]    1.5kB/3kB",
        "id": "abc",
    }
    assert progress_line(Progress("Pulling fs layer", "abc")) == {
        "status": "Pulling fs layer", "progressDetail": {}, "id": "abc",
    }  # fmt: skip
    assert progress_line(Progress("Pulling from library/x", "latest")) == {
        "status": "Pulling from library/x", "id": "latest",
    }  # fmt: skip
    assert progress_line(Progress("Status: done")) == {"status": "Status: done"}
    assert progress_bar(10, 10).startswith("[" + "=" * 50 + "]")
    assert progress_bar(10, 0) == "     10B"
    assert [human_size(n) for n in (0, 999, 1000, 12345, 10**6, 999 * 10**15)] == [
        "0B", "999B", "1kB", "12.35kB", "1MB", "999PB",
    ]  # fmt: skip


def test_history():
    lines = history(IMAGE)
    assert [line["CreatedBy"] for line in lines] == ["CMD httpd", "ADD rootfs"]
    assert [line["Id"] for line in lines] == [IMAGE.id, "<missing>"]


def test_event_document():
    event = Event("container", "start", "a1", {"image": "x", "name": "n"}, NOW + 5)
    assert event_document(event) == {
        "status": "start", "id": "a1", "from": "x", "Type": "container", "Action": "start",
        "Actor": {"ID": "a1", "Attributes": {"image": "x", "name": "n"}},
        "scope": "local", "time": NOW // SECOND, "timeNano": NOW + 5,
    }  # fmt: skip
    assert "status" not in event_document(replace(event, type="volume"))


def test_registry_auth():
    auth = registry_auth("eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZWNyZXQifQ")
    assert auth is not None
    assert (auth.username, auth.password) == ("me", "secret")
    assert "secret" not in repr(auth)
    for text in ("", "e30", "e30=", "!!", "W10", "bnVsbA", "eyJ1c2VybmFtZSI6NX0", "A" * 20000):
        assert registry_auth(text) is None
