"""Medians and ratios as a table.  Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from bench.measures import Measure

Samples = Mapping[str, Sequence[float]]  # engine name -> values


def show(value: float, unit: str) -> str:
    if math.isnan(value):
        return "-"
    if unit != "s":
        return f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    if value < 0.001:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def ratio(measure: Measure, ours: float, theirs: float) -> str:
    """Cost ratio to the last engine for times and memory, rate ratio for rates."""
    if math.isnan(ours) or math.isnan(theirs) or not theirs:
        return "-"
    return f"{ours / theirs:.2f}x"


def rows(measured: Sequence[tuple[Measure, Samples]], names: Sequence[str]) -> list[list[str]]:
    """One row a measure: name, medians, ratios of all engines to the last one."""
    out = []
    for measure, samples in measured:
        medians = [statistics.median(samples[name] or [math.nan]) for name in names]
        ratios = [ratio(measure, value, medians[-1]) for value in medians[:-1]]
        note = "higher is better" if measure.better == "higher" else ""
        out.append([measure.name, *(show(v, measure.unit) for v in medians), *ratios, note])
    return out


def markdown(measured: Sequence[tuple[Measure, Samples]], names: Sequence[str]) -> str:
    head = ["measure", *names, *(f"{name} / {names[-1]}" for name in names[:-1]), ""]
    lines = [head, ["---"] * len(head), *rows(measured, names)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
