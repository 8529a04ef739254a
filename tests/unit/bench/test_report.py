"""The table that `python -m bench` prints."""

import math

import pytest

from bench.measures import MEASURES, Measure
from bench.report import markdown, reached, show, wanted

COST = Measure("cost", lambda *_: 0.0, target=0.5)
RATE = Measure("rate", lambda *_: 0.0, "MB/s", "higher", target=2)
LIMIT = Measure("size", lambda *_: 0.0, "MiB", limit=64)
FREE = Measure("free", lambda *_: 0.0)


@pytest.mark.parametrize(
    ("measure", "ours", "theirs", "expected"),
    [
        (COST, 1.0, 2.0, "yes"),
        (COST, 1.1, 2.0, "no"),
        (COST, math.nan, 2.0, ""),
        (COST, 1.0, math.nan, ""),
        (RATE, 4.0, 2.0, "yes"),
        (RATE, 3.9, 2.0, "no"),
        (LIMIT, 64.0, math.nan, "yes"),
        (LIMIT, 64.1, 100.0, "no"),
        (FREE, 9.0, 1.0, ""),
    ],
)
def test_reached(measure, ours, theirs, expected):
    assert reached(measure, ours, theirs) == expected


def test_the_table_has_medians_ratios_and_targets():
    samples = [
        (COST, {"machine": [0.3, 0.1, 0.2], "docker": [0.4]}),
        (RATE, {"machine": [3.0], "docker": [2.0]}),
        (FREE, {"machine": [0.0005], "docker": [math.nan]}),
    ]
    assert markdown(samples, ["machine", "docker"]).splitlines() == [
        "| measure | machine | docker | machine / docker | target | reached |",
        "| --- | --- | --- | --- | --- | --- |",
        "| cost | 200.0 ms | 400.0 ms | 0.50x | at most 0.5x | yes |",
        "| rate | 3 MB/s | 2 MB/s | 1.50x | at least 2x | no |",
        "| free | 500 us | - | - |  |  |",
    ]


def test_words():
    assert wanted(LIMIT) == "at most 64 MiB"
    assert show(1234.0, "/s") == "1,234 /s"
    assert len({one.name for one in MEASURES}) == len(MEASURES)
