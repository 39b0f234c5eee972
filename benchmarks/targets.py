"""What the library must reach, and whether it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from benchmarks.report import Results, significant

Measure: TypeAlias = Callable[[Results, int], "float | None"]

SQLITE, POSTGRESQL = "sqlbuffer-sqlite", "sqlbuffer-postgresql"
RAW_SQLITE, RAW_POSTGRESQL = "raw-sqlite", "raw-postgresql"


@dataclasses.dataclass(frozen=True)
class Target:
    """A bound on a figure.

    Attributes:
        title: What is asked for.
        measure: Takes results and a size; returns the figure, None where it was not measured.
        bound: The figure may not be above it, or below it.
        is_ceiling: True where it may not be above.
        size: The size at which it is asked for; None: at every size.
        unit: Behind the figure.
    """

    title: str
    measure: Measure
    bound: float
    is_ceiling: bool = True
    size: int | None = None
    unit: str = "x"

    def is_met(self, value: float) -> bool:
        """Tell whether a figure is good enough."""
        return value <= self.bound if self.is_ceiling else value >= self.bound


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target at a size, and what was measured."""

    target: Target
    size: int
    value: float

    @property
    def cells(self) -> list[str]:
        """The row that shows it."""
        target = self.target
        sign = "≤" if target.is_ceiling else "≥"
        verdict = "met" if target.is_met(self.value) else "missed"
        size = f"{self.size:,}" if self.size else ""
        asked, measured = f"{sign} {target.bound:g} {target.unit}", f"{significant(self.value)} {target.unit}"
        return [target.title, size, asked, measured, verdict]


HEADS = ["target", "size", "asked", "measured", ""]


def _quotient(upper: float | None, lower: float | None) -> float | None:
    return None if upper is None or not lower else upper / lower


def _ratio(case: str, contender: str, other: str) -> Measure:
    """How many times as long a contender takes as another."""
    return lambda results, n: _quotient(results.median(case, contender, n), results.median(case, other, n))


def _growth(case: str, contender: str, start: int) -> Measure:
    """How many times as long it takes as at another size."""
    return lambda results, n: _quotient(results.median(case, contender, n), results.median(case, contender, start))


def _between(contender: str, case: str, other: str) -> Measure:
    """The ratio of two cases of one contender."""
    return lambda results, n: _quotient(results.median(case, contender, n), results.median(other, contender, n))


def _milliseconds(case: str, contender: str) -> Measure:
    def measure(results: Results, n: int) -> float | None:
        seconds = results.median(case, contender, n)
        return None if seconds is None else seconds * 1000

    return measure


def _torch_imported(results: Results, n: int) -> float | None:
    record = results.record("import", SQLITE, n)
    return None if record is None else float(record.facts["torch"])


_MILLION, _TEN_MILLION = 1_000_000, 10_000_000
_PAIRS = ((SQLITE, RAW_SQLITE), (POSTGRESQL, RAW_POSTGRESQL))

TARGETS = [
    Target("draw, SQLite: the time of raw SQL", _ratio("draw", SQLITE, RAW_SQLITE), 2, size=_MILLION),
    Target("draw, SQLite: the time of TorchRL's strings", _ratio("draw", SQLITE, "torchrl-strings"), 3, size=_MILLION),
    Target("draw, SQLite: faster than lists", _ratio("draw", "list", SQLITE), 40, False, _MILLION),
    Target("draw, SQLite: faster than the usual SQL", _ratio("draw", "usual-sqlite", SQLITE), 100, False, _MILLION),
    Target("draw, SQLite: faster than Reverb", _ratio("draw", "reverb", SQLITE), 20, False, _MILLION),
    Target("draw, SQLite: the time at 10,000", _growth("draw", SQLITE, 10_000), 2, size=_TEN_MILLION),
    Target("draw, PostgreSQL: the time of raw SQL", _ratio("draw", POSTGRESQL, RAW_POSTGRESQL), 1.5),
    *(
        Target(
            f"draws per second, PostgreSQL: {number} processes over one",
            _between(POSTGRESQL, f"processes-{number}", "processes-1"),
            1.5,
            is_ceiling=False,
        )
        for number in (2, 4)
    ),
    *(Target(f"add, {ours}: the rate of raw SQL", _ratio("add", raw, ours), 0.7, False) for ours, raw in _PAIRS),
    *(
        Target(f"add half duplicates, {ours}: the time of new ones", _between(ours, "add-duplicates", "add-more"), 1)
        for ours, _ in _PAIRS
    ),
    *(
        Target(f"refresh, {ours}: the rate of raw SQL", _ratio("refresh", raw, ours), 0.7, False)
        for ours, raw in _PAIRS
    ),
    *(
        Target(f"{case}, {ours}", _milliseconds(case, ours), 1, unit="ms")
        for case in ("len", "stats")
        for ours, _ in _PAIRS
    ),
    Target("iteration, SQLite: faster than lists", _ratio("iteration", "list", SQLITE), 10, False, _MILLION),
    Target("iteration, SQLite: the time of lists", _ratio("iteration", SQLITE, "list"), 6, size=10_000),
    *(Target(f"replay, {ours}: the time of raw SQL", _ratio("replay", ours, raw), 1.5) for ours, raw in _PAIRS),
    *(Target(f"open, {ours}", _milliseconds("open", ours), 50, size=_MILLION, unit="ms") for ours, _ in _PAIRS),
    Target("import", _milliseconds("import", SQLITE), 500, size=0, unit="ms"),
    Target("import: torch comes along (1) or not (0)", _torch_imported, 0, size=0, unit=""),
]


def verdicts(results: Results) -> list[Verdict]:
    """Return every target that was measured, at each size that it is asked for."""
    found = []
    for target in TARGETS:
        for size in results.sizes() if target.size is None else [target.size]:
            value = target.measure(results, size)
            if value is not None:
                found.append(Verdict(target, size, value))
    return found


def table(results: Results) -> str:
    """Return the targets as a Markdown table."""
    rows = [HEADS, ["---"] * len(HEADS), *(verdict.cells for verdict in verdicts(results))]
    return "## Targets\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)
