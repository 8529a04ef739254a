"""Case 004 in a running container and in a build: files through a symlink of a lower layer."""

from __future__ import annotations

import io
import json
import tarfile

from tests.cases.build.engine import Engine
from tests.support.evilregistry import config_for, layer, member, tar


def archive(layers: list[bytes], config: bytes, name: str) -> bytes:
    """A docker archive of an image."""
    buffer = io.BytesIO()
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": names}])
    with tarfile.open(fileobj=buffer, mode="w") as out:
        files = {"config.json": config, "manifest.json": manifest.encode()}
        for path, data in {**files, **dict(zip(names, layers, strict=True))}.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_case_004_in_containers_and_builds(engine: Engine) -> None:
    with open("/bin/busybox", "rb") as file:
        busybox = file.read()
    base = layer(
        tar(
            [
                member("bin/busybox", busybox, mode=0o755),
                member("bin/sh", kind=b"2", link="busybox"),
                member("run/", kind=b"5", mode=0o750),
                member("var/", kind=b"5", mode=0o755),
                member("var/run", kind=b"2", link="/run"),
            ]
        )
    )
    top = layer(tar([member("var/run/x/y", b"through the link\n")]))
    data = archive([base.tar, top.tar], config_for([base, top]), "implicit:1")
    assert engine.ask("POST", "/images/load", data)[0] == 200
    shown = engine.run(
        "implicit:1", "/bin/sh", "-c", "/bin/busybox cat /run/x/y; busybox readlink /var/run"
    )
    assert shown == "through the link\n/run\n"
    said = engine.build(
        "FROM implicit:1\nRUN busybox cat /run/x/y && busybox rm /var/run/x/y && echo new > /var/run/z\n"
        "FROM busybox\nCOPY --from=0 /run /got\nCOPY --from=implicit:1 /var/run/x /also\n"
        "RUN ls -R /got; cat /also/y\n"
    )
    assert said.error == "", said.lines
    assert said.text.count("through the link\n") == 2
    assert "/got:\nx\nz\n" in said.text
    saved = engine.ask("GET", "/images/implicit:1/get")[1]
    with tarfile.open(fileobj=io.BytesIO(saved)) as found:
        kept = [found.extractfile(one) for one in found.getmembers() if one.size == len(top.tar)]
        assert top.tar in [file.read() for file in kept if file is not None]
