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


def wanted(measure: Measure) -> str:
    """The target as text."""
    if measure.limit is not None:
        return f"at most {show(measure.limit, measure.unit)}"
    if measure.target is None:
        return ""
    return f"at {'least' if measure.better == 'higher' else 'most'} {measure.target:g}x"


def reached(measure: Measure, ours: float, theirs: float) -> str:
    """Whether the target is reached; "" = there is none, or nothing to compare with."""
    if measure.limit is not None:
        return "yes" if ours <= measure.limit else "no"
    if measure.target is None or math.isnan(ours) or math.isnan(theirs) or not theirs:
        return ""
    found = ours / theirs
    good = found >= measure.target if measure.better == "higher" else found <= measure.target
    return "yes" if good else "no"


def rows(measured: Sequence[tuple[Measure, Samples]], names: Sequence[str]) -> list[list[str]]:
    """One row a measure: name, medians, ratios of all engines to the last one, the target, and
    whether the first engine reaches it."""
    out = []
    for measure, samples in measured:
        medians = [statistics.median(samples[name] or [math.nan]) for name in names]
        ratios = [ratio(measure, value, medians[-1]) for value in medians[:-1]]
        verdict = reached(measure, medians[0], medians[-1])
        shown = [show(v, measure.unit) for v in medians]
        out.append([measure.name.strip(), *shown, *ratios, wanted(measure), verdict])
    return out


def markdown(measured: Sequence[tuple[Measure, Samples]], names: Sequence[str]) -> str:
    ratios = [f"{name} / {names[-1]}" for name in names[:-1]]
    head = ["measure", *names, *ratios, "target", "reached"]
    lines = [head, ["---"] * len(head), *rows(measured, names)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
