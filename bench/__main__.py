"""Side-by-side measurements: `python -m bench [--host unix:///... --host unix:///...]`.

Without --host, a lab with two hosts is made: this checkout's agent in one, docker.io of Debian
sid (Docker Engine 28.5 or newer) or bookworm (20.10) in the other.  Rounds of all engines are interleaved, so that a busy moment hits all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.client import pull
from bench.engines import Engine, ours
from bench.measures import MEASURES, Measure
from bench.report import Samples, markdown, show
from bench.yardsticks import YARDSTICKS
from tests.lab.host import Host
from tests.lab.lab import open_lab
from tests.lab.settings import from_environment


def measure_all(
    engines: Sequence[Engine], wanted: Sequence[Measure], factor: float
) -> list[tuple[Measure, Samples]]:
    measured: list[tuple[Measure, Samples]] = []
    for measure in wanted:
        samples: dict[str, list[float]] = {engine.name: [] for engine in engines}
        for _ in range(max(1, round(measure.rounds * factor))):
            for engine in engines:
                api = engine.api()
                samples[engine.name].append(measure.work(engine, api))
                api.close()
        measured.append((measure, samples))
        best = {name: show(sorted(v)[len(v) // 2], measure.unit) for name, v in samples.items()}
        print(f"{measure.name}: {best}", file=sys.stderr, flush=True)
    return measured


def floor_of(host: Host) -> str:
    """Median of bare crun + overlay + netns in a lab host."""
    shutil.copy(Path(__file__).with_name("floor.py"), host.data / "floor.py")
    script = "mkdir -p /var/lib/machine/floor/bin; cp /bin/busybox /var/lib/machine/floor/bin/true"
    host.run("sh", "-c", script, check=False)
    if not (host.data / "floor/bin/true").exists():
        shutil.copy("/bin/busybox", host.data / "floor/bin/true")
    # crun refuses hybrid cgroups unless it sees no cgroup2 hierarchy
    alone = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
    floor = ["python3", "/var/lib/machine/floor.py", "/var/lib/machine/floor", "10"]
    done = host.run("unshare", "-m", "sh", "-c", alone, "sh", *floor)
    return show(float(done.stdout), "s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--host", action="append", default=[], help="unix:///path of an engine")
    parser.add_argument("--docker", choices=sorted(YARDSTICKS), default="sid")
    parser.add_argument("--only", default="", help="measures whose name contains this")
    parser.add_argument("--factor", type=float, default=1.0, help="scales the rounds")
    parser.add_argument("--json", default="", help="write all samples to this file")
    options = parser.parse_args()
    wanted = [m for m in MEASURES if options.only in m.name]
    if options.host:
        engines = [Engine(f"host{i + 1}", url) for i, url in enumerate(options.host)]
        return _finish(engines, wanted, options, "")
    lab = open_lab(from_environment(os.environ), f"bench{os.getpid()}", owner=os.getpid())
    engines = []
    try:
        mirror = lab.registry().url
        os.environ.setdefault("BENCH_DOCKER", str(lab.docker_cli()))
        engines = [ours(lab, mirror), YARDSTICKS[options.docker](lab, mirror)]
        floor = floor_of(lab.host("floor", "plain"))
        return _finish(engines, wanted, options, floor)
    finally:
        for engine in engines:
            if engine.stop:
                engine.stop()
        lab.down()


def circumstances(engines: Sequence[Engine], load_before: float) -> str:
    """Date, computer, load and versions in one line."""
    versions = []
    for engine in engines:
        api = engine.api()
        answer = api.send("GET", "/version")
        api.close()
        versions.append(f"{engine.name} {answer['Version']}" if isinstance(answer, dict) else "")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{when}, {os.cpu_count()} cores, {memory:.0f} GiB, kernel {os.uname().release}, load "
        f"{load_before:.1f} before and {os.getloadavg()[0]:.1f} after; {', '.join(versions)}. "
        "Medians."
    )


def _finish(
    engines: Sequence[Engine], wanted: Sequence[Measure], options: argparse.Namespace, floor: str
) -> int:
    for engine in engines:
        api = engine.api()
        pull(api, "busybox", "latest")
        api.close()
    before = os.getloadavg()[0]
    measured = measure_all(engines, wanted, options.factor)
    print(circumstances(engines, before), end="\n\n")
    print(markdown(measured, [engine.name for engine in engines]))
    if floor:
        print(f"\nfloor (bare crun + overlay + netns): {floor}")
    if options.json:
        document = {measure.name: samples for measure, samples in measured}
        Path(options.json).write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
