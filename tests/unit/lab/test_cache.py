import threading
from pathlib import Path

import pytest

from tests.lab.cache import Cache, key_of


def test_the_key_follows_the_recipe() -> None:
    assert key_of("a", ["b"]) == key_of("a", ["b"])
    assert key_of("a", ["b"]) != key_of("a", ["c"])


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    cache, built = Cache(tmp_path), []

    def build(place: Path) -> None:
        built.append(place)
        (place / "x").write_text("y")

    threads = [threading.Thread(target=cache.entry, args=("n", "k", build)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (cache.entry("n", "k", build) / "x").read_text() == "y"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def build(place: Path) -> None:
        (place / "half").write_text("")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.entry("n", "k", build)
    assert [p.name for p in tmp_path.iterdir()] == [".lock-n-k"]


def test_what_a_killed_build_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".tmp-n-k-999999").mkdir()
    Cache(tmp_path).entry("n", "k", lambda place: (place / "x").touch())
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock-n-k", "n-k"]
