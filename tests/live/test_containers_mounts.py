"""Volumes with the local driver's options, and mounts of type image."""

import json

from tests.support.installed import Installed

_SLEEP = ("busybox", "sleep", "1000")
_BIND = "--mount type=bind,src=/srv/ro,dst=/t,readonly"
_TMPFS = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,mode=750")


def mounted(box: Installed, name: str) -> bool:
    """Whether the volume's folder is a mount point, as the host sees it."""
    table = box.host.run("cat", "/proc/mounts").stdout
    return f"/volumes/{name}/_data " in str(table)


def test_tmpfs_volume_lives_from_the_first_use_to_the_last(box: Installed) -> None:
    box.docker("volume", "create", *_TMPFS, "fast")
    shown = box.docker("volume", "inspect", "-f", "{{json .Options}}", "fast").text
    assert shown == '{"device":"tmpfs","o":"size=1m,mode=750","type":"tmpfs"}'
    assert not mounted(box, "fast")
    box.docker("run", "-d", "--name", "one", "-v", "fast:/data", *_SLEEP)
    assert mounted(box, "fast")
    said = box.docker("exec", "one", "sh", "-c", "echo kept >/data/f; df -k /data | tail -1").text
    assert said.split()[1] == "1024"
    assert box.docker("exec", "one", "stat", "-c", "%a", "/data").text == "750"
    box.docker("run", "-d", "--name", "two", "-v", "fast:/data:ro", *_SLEEP)
    box.docker("rm", "-f", "one")
    assert box.docker("exec", "two", "cat", "/data/f").text == "kept"
    assert mounted(box, "fast")
    box.docker("rm", "-f", "two")
    assert not mounted(box, "fast")
    assert box.docker("run", "--rm", "-v", "fast:/data", "busybox", "ls", "/data").text == ""
    box.docker("volume", "rm", "fast")


def test_mounted_volume_survives_the_agent(box: Installed) -> None:
    box.docker("volume", "create", *_TMPFS, "fast")
    box.docker("run", "-d", "--name", "one", "-v", "fast:/data", *_SLEEP)
    box.docker("run", "-d", "--name", "gone", "-v", "other:/x", *_SLEEP)
    box.docker("exec", "one", "sh", "-c", "echo kept >/data/f")
    before = box.agent_pid()
    box.host.run("kill", "-KILL", str(before))
    box.restart_wait(before)
    said = box.docker("run", "--rm", "-v", "fast:/data", "busybox", "cat", "/data/f")
    assert said.text == "kept"
    assert mounted(box, "fast")
    before = box.agent_pid()
    box.host.run("kill", "-KILL", str(before))
    # Its container ends while nobody looks: the next agent ends the use.
    box.host.run("sh", "-c", "kill -KILL $(pgrep -f '^sleep 1000')")
    box.restart_wait(before)
    box.wait_status("one", "exited")
    box.wait(lambda: not mounted(box, "fast"), "fast is unmounted")


def test_bind_volume_is_the_hosts_folder_and_stays_when_it_is_removed(box: Installed) -> None:
    box.host.run("sh", "-c", "rm -rf /srv/tree; mkdir /srv/tree; echo of-the-host >/srv/tree/f")
    options = ("--opt", "type=none", "--opt", "o=bind", "--opt", "device=/srv/tree")
    box.docker("volume", "create", *options, "tree")
    box.docker("run", "--rm", "-v", "tree:/t", "busybox", "sh", "-c", "cat /t/f; echo new >/t/n")
    box.docker("create", "--name", "still", "-v", "tree:/t", "busybox")
    assert box.docker("cp", "still:/t/f", "-").out.count(b"of-the-host") == 1
    assert not mounted(box, "tree")
    box.docker("rm", "still")
    box.docker("volume", "prune", "-af")  # never takes a volume with options, as docker
    shown = box.docker("system", "df", "-v", "--format", "{{json .Volumes}}").text
    assert "tree" not in shown
    box.docker("volume", "inspect", "tree")
    box.docker("volume", "rm", "tree")
    assert "of-the-host" in str(box.host.run("cat", "/srv/tree/f").stdout)
    assert "new" in str(box.host.run("cat", "/srv/tree/n").stdout)


def test_what_an_operator_mounts_on_a_volume_stays(box: Installed) -> None:
    box.docker("volume", "create", "disk")
    place = box.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "disk").text
    box.host.run("mount", "-t", "tmpfs", "none", place)
    box.host.run("sh", "-c", f"echo kept >{place}/f")
    assert box.docker("run", "--rm", "-v", "disk:/d", "busybox", "cat", "/d/f").text == "kept"
    assert mounted(box, "disk")
    box.host.run("umount", place)
    box.docker("volume", "rm", "disk")


def test_volume_of_a_mount_request(box: Installed) -> None:
    """`--mount type=volume,volume-opt=...`, named and anonymous; copy-up into it."""
    options = "volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=2m"
    for source in ("source=made,", ""):
        mount = f"type=volume,{source}target=/etc/x,{options}"
        said = box.docker(
            "run", "--rm", "--mount", mount, "busybox", "sh", "-c", "df -k /etc/x | tail -1"
        )
        assert said.text.split()[1] == "2048", said
    box.docker("volume", "rm", "made")
    mount = f"type=volume,source=made,target=/etc,{options}"
    said = box.docker(
        "run", "--rm", "--mount", mount, "busybox", "grep", "-c", "^root:", "/etc/passwd"
    )
    assert said.text == "1"


def test_what_cannot_be_mounted_is_told(box: Installed) -> None:
    box.fails(
        "volume", "create", "--opt", "type=tmpfs", "bad", says='missing required option: "device"'
    )
    box.fails("volume", "create", "-d", "nfs", "bad", says='plugin "nfs" not found')
    box.fails("volume", "create", "--opt", "nonsense=1", "bad", says='invalid option: "nonsense"')
    for name, options, says in (
        ("gone", ("type=none", "o=bind", "device=/srv/nowhere"), "no such file or directory"),
        ("strange", ("type=nosuchfs", "device=x"), "no file system 'nosuchfs'"),
        ("far", ("type=nfs", "device=:/x", "o=addr=nosuch.invalid"), "nosuch.invalid"),
    ):
        words = [word for option in options for word in ("--opt", option)]
        box.docker("volume", "create", *words, name)
        # The client's status for a start that failed depends on words of the message.
        found = box.docker("run", "--rm", "-v", f"{name}:/x", "busybox", "true", check=False)
        assert found.status in {125, 127}
        assert "error while mounting volume" in found.complaint
        assert says in found.complaint.lower()
        box.docker("volume", "rm", name)


def test_image_mounts(box: Installed) -> None:
    mount = "type=image,source=busybox,target=/img"
    script = "cat /img/etc/passwd | head -1; touch /img/x 2>&1; ls /img/.dockerenv 2>&1; true"
    said = box.docker("run", "--rm", "--mount", mount, "busybox", "sh", "-c", script)
    assert said.lines[0].startswith("root:")
    assert "Read-only file system" in said.lines[1]
    assert "No such file" in said.lines[2]  # the image as it is, without the engine's files
    part = f"{mount},image-subpath=etc"
    said = box.docker("run", "-d", "--name", "part", "--mount", part, *_SLEEP)
    assert "passwd" in box.docker("exec", "part", "ls", "/img").lines
    (shown,) = json.loads(box.docker("inspect", "-f", "{{json .Mounts}}", "part").out)
    assert (shown["Name"], shown["RW"], shown["Destination"]) == ("busybox", False, "/img")
    box.docker("restart", "-t", "0", "part")
    assert "passwd" in box.docker("exec", "part", "ls", "/img").lines
    box.docker("stop", "-t", "0", "part")
    assert b"root:" in box.docker("cp", "part:/img/passwd", "-").out
    box.docker("build", "-q", "-t", "other", "-", data=b"FROM busybox\nRUN echo in >/only\n")
    box.docker("create", "--name", "of-other", "--mount", "type=image,source=other,target=/o", "busybox",
               "cat", "/o/only")  # fmt: skip
    box.fails("rmi", "other", says="is using its referenced image")
    box.docker("image", "prune", "-af")
    assert box.docker("start", "-a", "of-other").text == "in"
    box.docker("rm", "of-other")
    box.docker("rmi", "other")
    before = box.agent_pid()
    box.host.run("kill", "-KILL", str(before))
    box.restart_wait(before)
    box.docker("start", "part")
    assert "passwd" in box.docker("exec", "part", "ls", "/img").lines
    box.docker("rm", "-f", "part")
    box.fails(
        "run", "--rm", "--mount", "type=image,source=busybox,target=/i,image-subpath=../x",
        "busybox", "true", status=125, says="subpath",
    )  # fmt: skip
    answer = box.api(
        "POST",
        "/containers/create",
        {
            "Image": "busybox",
            "HostConfig": {"Mounts": [{"Type": "image", "Target": "/i", "Source": "nosuch:1"}]},
        },
    )
    assert answer.status == 404
    assert answer.message == "No such image: nosuch:1"


def test_read_only_goes_down_the_tree(box: Installed) -> None:
    """As Docker Engine since 25: what is mounted below a read-only bind is read-only too."""
    box.host.run("sh", "-c", "mkdir -p /srv/ro/below; mount -t tmpfs none /srv/ro/below")
    try:
        wanted = {
            "-v /srv/ro:/t:ro": False,
            _BIND: False,
            f"{_BIND},bind-recursive=writable": True,
            f"{_BIND},bind-propagation=rprivate,bind-recursive=readonly": False,
            "-v /srv/ro:/t": True,
        }
        for words, writable in wanted.items():
            said = box.docker(
                "run", "--rm", *words.split(), "busybox", "touch", "/t/below/x", check=False
            )
            assert (said.status == 0) is writable, (words, said)
    finally:
        box.host.run("umount", "/srv/ro/below")
