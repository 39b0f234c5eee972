"""Bounds that the library must keep, and whether it does."""

from __future__ import annotations

from benchmarks.report import Results, significant

HEADS = ["target", "size", "asked", "measured", ""]

_TARGETS = """
draw sqlbuffer-sqlite / torchrl-strings <= 3 at 1000000
draw list / sqlbuffer-sqlite >= 40 at 1000000
draw usual-sqlite / sqlbuffer-sqlite >= 100 at 1000000
draw reverb / sqlbuffer-sqlite >= 20 at 1000000
draw sqlbuffer-sqlite / 10000 <= 2 at 10000000
processes-2 sqlbuffer-postgresql / processes-1 >= 1.5
processes-4 sqlbuffer-postgresql / processes-1 >= 1.5
add-duplicates sqlbuffer-sqlite / add-more <= 1
add-duplicates sqlbuffer-postgresql / add-more <= 1
len sqlbuffer-sqlite ms <= 1
len sqlbuffer-postgresql ms <= 1
stats sqlbuffer-sqlite ms <= 1
stats sqlbuffer-postgresql ms <= 1
iteration list / sqlbuffer-sqlite >= 10 at 1000000
iteration sqlbuffer-sqlite / list <= 6 at 10000
open sqlbuffer-sqlite ms <= 50 at 1000000
open sqlbuffer-postgresql ms <= 50 at 1000000
import sqlbuffer-sqlite ms <= 500 at 0
"""
"""A case, a contender, and what its median is divided by: that of another contender, case or size;
or "ms" for its milliseconds. Behind the bound the size that it is asked for; without one, each.
"""


def _figure(results: Results, figure: list[str], size: int) -> float | None:
    """Return the figure at a size, None if it was not measured."""
    case, contender, *_, other = figure
    value = results.median(case, contender, size)
    if other == "ms" or value is None:
        return None if value is None else value * 1000
    places = {"case": case, "contender": contender, "size": size}
    kind = "size" if other.isdecimal() else "case" if results.contenders(other) else "contender"
    places[kind] = int(other) if kind == "size" else other
    below = results.median(**places)
    return value / below if below else None


def verdicts(results: Results) -> list[list[str]]:
    """Return a row of `HEADS` for every target that was measured, at each size it is asked for."""
    found = []
    for line in _TARGETS.strip().splitlines():
        target, _, at = line.partition(" at ")
        *figure, sign, bound = target.split()
        for size in [int(at)] if at else results.sizes():
            value = _figure(results, figure, size)
            if value is not None:
                is_met = value <= float(bound) if sign == "<=" else value >= float(bound)
                row = [" ".join(figure), f"{size:,}" if size else "", f"{sign} {bound}"]
                found.append([*row, significant(value), "met" if is_met else "missed"])
    return found
