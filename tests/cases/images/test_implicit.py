"""security.md case 4: directories that a layer does not describe mean what they mean below."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine.ports import Rootfs
from agent.host import tree
from agent.images.settings import RegistrySettings
from tests.cases.images.test_registry import QUICK, Host
from tests.support.evilregistry import EvilRegistry, Layer, layer, member, tar

_LIST = (
    'mount -t overlay overlay -o "$0" "$1" && cd "$1" && '
    "find . -mindepth 1 \\( -path ./dev -o -path ./proc -o -path ./sys -o -path ./etc "
    "-o -name .dockerenv \\) -prune -o -printf '%P %y %m %U %l\\n' | LC_ALL=C sort"
)


@pytest.fixture(name="host")
def _host() -> Iterator[Host]:
    root = Path(tempfile.mkdtemp(prefix="images-implicit-"))
    host = Host(root, RegistrySettings(timeouts=QUICK, certificates=()))
    try:
        yield host
    finally:
        host.store.close()
        with tree.opened(str(root.parent)) as parent:
            tree.remove_tree(parent, root.name)


@pytest.fixture(name="evil")
def _evil() -> Iterator[EvilRegistry]:
    with EvilRegistry() as found:
        yield found


def folder(name: str, mode: int = 0o755, uid: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    return member(f"{name}/", kind=b"5", mode=mode, uid=uid)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=b"2", link=target)


def seen(host: Host, evil: EvilRegistry, layers: list[Layer], name: str = "x") -> list[str]:
    """path, kind, mode, uid, link of all that a container of these layers would see."""
    evil.image(name, "latest", layers)
    image = host.pull(f"{evil.address}/{name}")
    return merged(host, host.snapshots.prepare(name, image.id))


def merged(host: Host, rootfs: Rootfs) -> list[str]:
    where = host.root / "merged"
    where.mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(rootfs.lower)},upperdir={rootfs.upper},workdir={rootfs.work}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", _LIST, options, str(where)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines()]


BASE = layer(
    tar(
        [
            folder("run", 0o711, 5),
            folder("var"),
            link("var/run", "/run"),
            folder("tmp", 0o1777),
            member("run/old", b"old"),
        ]
    )
)


def test_case_004_legal_file_through_a_symlink_of_a_lower_layer(
    host: Host, evil: EvilRegistry
) -> None:
    top = layer(tar([member("var/run/x", b"x", mode=0o640), member("tmp/t", b"t")]))
    assert seen(host, evil, [BASE, top]) == [
        "run d 711 5",
        "run/old f 644 0",
        "run/x f 640 0",
        "tmp d 1777 0",
        "tmp/t f 644 0",
        "var d 755 0",
        "var/run l 777 0 /run",
    ]


def test_case_004_hostile_link_stays_in_the_root(
    host: Host, evil: EvilRegistry, tmp_path: Path
) -> None:
    bottom = layer(tar([link("d", str(tmp_path)), link("up", "../../../../.."), folder("run")]))
    top = layer(tar([member("d/f", b"evil"), member("up/g", b"evil")]))
    found = seen(host, evil, [bottom, top])
    assert f"{str(tmp_path)[1:]}/f f 644 0" in found
    assert "g f 644 0" in found
    assert f"d l 777 0 {tmp_path}" in found
    assert list(tmp_path.iterdir()) == []


def test_case_004_the_same_layer_on_another_base(host: Host, evil: EvilRegistry) -> None:
    top = layer(
        tar([member("var/run/a/b", b"1"), member("var/run/.wh.old"), link("var/run/l", "z")])
    )
    plain = layer(tar([folder("var", 0o700), folder("var/run", 0o1770, 7)]))
    other = layer(tar([folder("var"), link("var/run", "../data"), member("data/old", b"1")]))
    assert seen(host, evil, [plain, top], "plain") == [
        "var d 700 0",
        "var/run d 1770 7",
        "var/run/a d 755 0",
        "var/run/a/b f 644 0",
        "var/run/l l 777 0 z",
    ]
    assert seen(host, evil, [other, top], "other") == [
        "data d 755 0",
        "data/a d 755 0",
        "data/a/b f 644 0",
        "data/l l 777 0 z",
        "var d 755 0",
        "var/run l 777 0 ../data",
    ]
    assert seen(host, evil, [top], "alone")[0] == "var d 755 0"


def test_case_004_layers_between_decide(host: Host, evil: EvilRegistry) -> None:
    """Removed, replaced and hidden links are none; a link through a link is followed."""
    top = layer(tar([member("a/x", b"1"), member("b/x", b"2"), member("c/x", b"3")]))
    bottom = layer(tar([link("a", "/t"), link("b", "/t"), link("c", "m"), link("m", "/t/u")]))
    middle = layer(tar([member(".wh.a"), folder("b", 0o750)]))
    assert seen(host, evil, [bottom, middle, top]) == [
        "a d 755 0",
        "a/x f 644 0",
        "b d 750 0",
        "b/x f 644 0",
        "c l 777 0 m",
        "m l 777 0 /t/u",
        "t d 755 0",
        "t/u d 755 0",
        "t/u/x f 644 0",
    ]


@pytest.mark.parametrize(
    ("lower", "upper", "kept"),
    [
        ([link("d", "d")], [member("d/f", b"1")], "d/f f 644 0"),  # a loop leads nowhere
        ([member("d", b"file")], [member("d/f", b"1")], "d/f f 644 0"),
        ([link("d", "/e"), member("e", b"")], [member("d/f", b"1")], "d/f f 644 0"),
        ([link("d", "/e")], [member("e", b"mine"), member("d/f", b"1")], "d/f f 644 0"),
        ([link("d", "/e")], [folder("d"), member("d/f", b"1")], "d/f f 644 0"),
        ([link("d", "/e")], [member(".wh.d"), member("d/f", b"1")], "d/f f 644 0"),
    ],
)
def test_case_004_where_there_is_nothing_to_follow(
    host: Host,
    evil: EvilRegistry,
    lower: list[tuple[tarfile.TarInfo, bytes]],
    upper: list[tuple[tarfile.TarInfo, bytes]],
    kept: str,
) -> None:
    assert kept in seen(host, evil, [layer(tar(lower)), layer(tar(upper))])


def test_case_004_deep_and_many(host: Host, evil: EvilRegistry) -> None:
    deep = "/".join(["s"] * 900)
    bottom = layer(tar([link("s", "/run"), folder("run")]))
    many = [member(f"n{number}/f", b"") for number in range(2000)]
    found = seen(host, evil, [bottom, layer(tar([member(f"{deep}/f", b"1"), *many]))])
    assert f"run/{'/'.join(['s'] * 899)}/f f 644 0" in found


def test_case_004_layers_that_contradict_themselves_are_left_as_they_are(
    host: Host, evil: EvilRegistry
) -> None:
    base = layer(tar([folder("a"), folder("target"), link("a/c", "/target"), link("z", "/a")]))
    # a/c would have to be a symlink for one of its files, and a directory for the other.
    odd = layer(tar([member("a/c/f", b"1"), folder("z/c"), member("z/c/g", b"2")]))
    found = seen(host, evil, [base, odd])
    assert "a/c/f f 644 0" in found
    assert "z/c/g f 644 0" in found


def test_fits_go_with_their_layers(host: Host, evil: EvilRegistry) -> None:
    top = layer(tar([member("var/run/x", b"x")]))
    assert "run/x f 644 0" in seen(host, evil, [BASE, top])
    host.store.close()
    host.reopen()  # nothing is made anew, and what is pinned stays
    rootfs = host.snapshots.rootfs("x")
    assert "run/x f 644 0" in merged(host, rootfs)
    host.snapshots.remove("x")
    host.store.remove(f"{evil.address}/x", force=False, users=lambda _: ())
    host.store.close()
    assert [name for name in os.listdir(host.root / "layers") if name[0] != "."] == []
    host.reopen()
