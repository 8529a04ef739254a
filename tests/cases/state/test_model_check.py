"""Case 132 in small, on fakes: many threads, few containers, everything at once."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agent.engine.lifecycle import live
from agent.engine.model import ExecConfig, HostConfig, Phase, RestartPolicy
from agent.errors import EngineError, Kind
from tests.support.fakes import World, world

THREADS = 32
SECONDS = 3.0
EXPECTED = {Kind.CONFLICT, Kind.NOT_FOUND, Kind.INVALID}
HOSTS = (
    HostConfig(),
    HostConfig(auto_remove=True),
    HostConfig(restart_policy=RestartPolicy("always")),
    HostConfig(binds=("/anon", "shared:/s")),
)


def test_case_132_random_calls_from_many_threads():
    with world() as made:
        deadline = time.monotonic() + SECONDS
        unexpected: list[BaseException] = []
        slowest = [0.0]

        def work(seed: int) -> None:
            dice = random.Random(seed)
            while time.monotonic() < deadline and not unexpected:
                started = time.monotonic()
                try:
                    _one(made, dice)
                except EngineError as error:
                    if error.kind not in EXPECTED:
                        unexpected.append(error)
                except BaseException as error:
                    unexpected.append(error)
                slowest[0] = max(slowest[0], time.monotonic() - started)

        ticking = threading.Event()
        ticker = threading.Thread(target=_tick, args=(made, ticking))
        ticker.start()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))
        ticking.set()
        ticker.join()
        assert unexpected == []
        assert slowest[0] < 30
        _consistent(made)
        for container in made.engine.containers.all():
            made.engine.containers.remove(container.id, force=True, volumes=True)
        made.engine.volumes.remove("shared", force=True)
        _empty(made)


def _tick(made: World, stop: threading.Event) -> None:
    while not stop.wait(0.01):
        made.advance(1.0)


def _one(made: World, dice: random.Random) -> None:
    containers, name = made.engine.containers, f"name{dice.randrange(8)}"
    other = f"name{dice.randrange(8)}"
    acts: list[Callable[[], object]] = [
        lambda: made.make("x", name=name, host=dice.choice(HOSTS)),
        lambda: containers.start(name),
        lambda: containers.start(name),
        lambda: containers.stop(name, timeout=0, signal=""),
        lambda: containers.kill(name, dice.choice(["KILL", "TERM", "HUP"])),
        lambda: containers.pause(name),
        lambda: containers.unpause(name),
        lambda: containers.rename(name, other),
        lambda: containers.remove(name, force=dice.random() < 0.5, volumes=True),
        lambda: containers.restart(name, timeout=1, signal=""),
        lambda: made.runtime.end(containers.get(name).id, dice.randrange(3)),
        lambda: containers.wait(name, "next-exit").close(),
        lambda: made.engine.execs.create(name, ExecConfig(cmd=("x",))),
    ]
    dice.choice(acts)()


def _consistent(made: World) -> None:
    """When it is quiet: memory, records, processes, network and layers say the same."""

    def quiet() -> bool:
        known = {one.id: one for one in made.engine.containers.all()}
        alive = {one for one, found in known.items() if live(found.state.phase)}
        waiting = {one for one, found in known.items() if found.state.phase is Phase.RESTARTING}
        running = {one for one, found in made.runtime.inits.items() if found.exit is None}
        return (
            running == alive
            and set(made.network.endpoints) == alive
            and set(made.records.saved) == set(known) == set(made.snapshots.layers)
            and not waiting
        )

    for _ in range(50):
        made.advance(1.0)
        try:
            made.wait_until(quiet, timeout=0.1)
        except AssertionError:
            continue
        return
    raise AssertionError("it does not settle")


def _empty(made: World) -> None:
    # a --rm removal that was faster than ours may still be cleaning up
    made.wait_until(lambda: not made.records.intents)
    assert made.runtime.inits == {}
    assert made.network.endpoints == {}
    assert made.network.host_ports == {}
    assert made.snapshots.layers == {}
    assert made.volumes.volumes == {}
    assert (made.records.saved, made.records.intents) == ({}, {})
    assert made.engine.execs.of("x") == []
