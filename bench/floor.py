"""The floor: what crun, an overlay and a network namespace cost with nothing around them.

Runs inside a lab host: `python3 floor.py ROOTFS ROUNDS`; prints the median in seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def quiet(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def spec() -> str:
    quiet("runc", "spec")
    with open("config.json") as file:
        document = json.load(file)
    document["process"].update(terminal=False, args=["/bin/true"], rlimits=[])
    document["linux"]["namespaces"] = [
        {**row, **({"path": "/run/netns/floor"} if row["type"] == "network" else {})}
        for row in document["linux"]["namespaces"]
    ]
    document["linux"]["namespaces"].append({"type": "network", "path": "/run/netns/floor"})
    kept = {row["type"]: row for row in document["linux"]["namespaces"]}
    document["linux"]["namespaces"] = list(kept.values())
    return json.dumps(document)


def once(place: str, lower: str, config: str) -> float:
    start = time.perf_counter()
    for name in ("upper", "work", "rootfs"):
        os.mkdir(f"{place}/{name}")
    options = f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work"
    quiet("mount", "-t", "overlay", "overlay", "-o", options, f"{place}/rootfs")
    quiet("ip", "netns", "add", "floor")
    with open(f"{place}/config.json", "w") as file:
        file.write(config)
    quiet("crun", "run", "--bundle", place, "floor")
    quiet("umount", f"{place}/rootfs")
    quiet("ip", "netns", "del", "floor")
    spent = time.perf_counter() - start
    for name in ("upper", "work", "rootfs"):
        shutil.rmtree(f"{place}/{name}")
    return spent


def main() -> None:
    lower, rounds = sys.argv[1], int(sys.argv[2])
    place = tempfile.mkdtemp(dir="/var/lib/machine")
    os.chdir(place)
    config = spec()
    print(statistics.median(once(place, lower, config) for _ in range(rounds)))
    os.chdir("/")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
