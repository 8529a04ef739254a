import select
import time

from agent.engine.events import QUEUE


def drain(subscription):
    found = []
    while (event := subscription.next()) is not None:
        found.append(event.action)
    return found


def everything(_event):
    return True


def publish(world, action):
    world.engine._core.bus.publish("container", action, "id", {})


def test_live_and_since(world):
    publish(world, "one")
    since = world.clock.now() + 1_000_000
    world.clock.advance(1)
    publish(world, "two")
    late = world.engine.subscribe(since, None, everything)
    live = world.engine.subscribe(None, None, lambda event: event.action != "three")
    publish(world, "three")
    publish(world, "four")
    assert drain(late) == ["two", "three", "four"]
    assert select.select([live], [], [], 0)[0]
    assert drain(live) == ["four"]
    assert not select.select([live], [], [], 0)[0]
    late.close()
    live.close()
    publish(world, "five")


def test_until(world):
    publish(world, "one")
    past = world.engine.subscribe(0, world.clock.now() + 1, everything)
    world.clock.advance(1)
    over = world.engine.subscribe(0, world.clock.now() - 1, everything)
    assert (drain(over), over.done) == (["one"], True)
    coming = world.engine.subscribe(None, world.clock.now() + 5_000_000_000, everything)
    publish(world, "two")
    assert (drain(coming), coming.done) == (["two"], False)
    world.advance(6)
    world.wait_until(lambda: coming.done)
    assert select.select([coming], [], [], 1)[0]
    publish(world, "late")
    assert drain(coming) == []
    for one in (past, over, coming):
        one.close()


def test_a_slow_subscriber_is_dropped(world):
    slow = world.engine.subscribe(None, None, everything)
    for _ in range(QUEUE + 1):
        publish(world, "x")
    assert slow.done
    slow.close()


def test_order_survives_a_clock_that_jumps_back(world):
    found = world.engine.subscribe(None, None, everything)
    publish(world, "one")
    world.clock.wall -= 86400 * 1_000_000_000
    publish(world, "two")
    first, second = found.next(), found.next()
    assert first.time_ns < second.time_ns
    found.close()


def test_an_event_arrives_fast(world):
    found = world.engine.subscribe(None, None, everything)
    started = time.monotonic()
    publish(world, "x")
    assert select.select([found], [], [], 1)[0]
    assert time.monotonic() - started < 0.005
    found.close()


def test_closing_the_engine_ends_subscriptions(world):
    found = world.engine.subscribe(None, None, everything)
    world.engine.close()
    assert found.done
    found.close()


def test_image_and_volume_events(world):
    found = world.engine.subscribe(None, None, lambda event: event.type in {"image", "volume"})
    images, volumes = world.engine.images, world.engine.volumes
    images.pull(
        "h:5000/x:y", platform="", auth=None, progress=lambda _: None, cancelled=lambda: False
    )
    images.tag("busybox", "other", "v1")
    images.remove("busybox", force=False)
    volumes.create("data", "", {}, {})
    volumes.create("data", "", {}, {})
    volumes.remove("data", force=False)
    volumes.remove("data", force=True)
    got = []
    while (event := found.next()) is not None:
        got.append((event.type, event.action, event.attributes.get("name", "")))
    assert got[:2] == [("image", "pull", "h:5000/x"), ("image", "tag", "other:v1")]
    assert got[-3][:2] == ("image", "delete")
    assert [one[:2] for one in got[-2:]] == [("volume", "create"), ("volume", "destroy")]
    found.close()
