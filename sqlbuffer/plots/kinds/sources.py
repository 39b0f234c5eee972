"""Sources: which generator's samples are measured, fail, and are among the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.plots.kinds.common import (
    cut,
    floats,
    objective_of,
    reward_label,
    side_by_side,
    step_of,
    why_no_reward,
)
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Bars, Data, Mark, Panel, Picture, Points, Spans

MOST_SOURCES = 1000
MOST_SHOWN = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Sources(Data):
    """Measurements by the source of their sample, most measurements first.

    Attributes:
        name: The buffer.
        direction: "maximize" or "minimize".
        objective: Name of the reward function.
        sources: (n,) names.
        measured: (n,) measurements with a reward.
        failed: (n,) failed measurements.
        low: (n,) first quartile of the rewards, NaN without rewards.
        median: (n,) median.
        high: (n,) third quartile.
        best: (n,) the best reward.
        among_best: (n,) measurements among the best tenth of all.
        total: All sources with a measurement, among those that were read.
        step: Each so many measurements one was read.
        measurements: All measurements.
    """

    name: str
    direction: str
    objective: str
    sources: list[str]
    measured: Ints
    failed: Ints
    low: Floats
    median: Floats
    high: Floats
    best: Floats
    among_best: Ints
    total: int
    step: int = 1
    measurements: int = 0


def read(
    tx: Transaction,
    *,
    objective: str | None = None,
    most: int = MOST_SOURCES,
    most_rows: int = MOST_ROWS,
) -> Sources:
    """Read up to `most_rows` measurements, evenly by their age, and their most frequent sources."""
    objective = objective_of(tx, objective)
    total = tx.execute(queries.pictures.numbers_of_measurements(), objective=objective).one()
    statement = queries.pictures.rewards_by_source(tx.buffer.direction)
    n = total.measured + total.failed
    step = step_of(n, most_rows)
    rows = tx.rows(statement, objective=objective, step=step, limit=most)
    return Sources(
        name=tx.buffer.name,
        direction=tx.buffer.direction,
        objective=objective,
        sources=[row.source for row in rows],
        measured=_whole(rows, "measured"),
        failed=_whole(rows, "failed"),
        low=floats(rows, "low"),
        median=floats(rows, "median"),
        high=floats(rows, "high"),
        best=floats(rows, "best"),
        among_best=_whole(rows, "among_best"),
        total=rows[0].sources if rows else 0,
        step=step,
        measurements=n,
    )


def _whole(rows: Sequence[Any], column: str) -> Ints:
    return np.array([getattr(row, column) for row in rows], dtype=np.int64)


def picture(found: Sequence[Sources]) -> Picture:
    """Return the picture of one or several buffers."""
    return side_by_side(found, _picture)


def _picture(data: Sources) -> Picture:
    n = min(len(data.sources), MOST_SHOWN)
    order = np.arange(n)[::-1]
    names = Axis("", "names", [cut(data.sources[place], 24) for place in order])
    panels = [
        Panel(Axis("measurements", "count"), names, _counts(data, order), "Measurements"),
        Panel(
            Axis(reward_label(data.objective, data.direction)),
            names,
            _rewards(data, order),
            "Rewards",
            why_no_reward(int(data.failed.sum())),
        ),
    ]
    notes = []
    if data.step > 1:
        notes.append(f"from one in {data.step:,} of {data.measurements:,} measurements")
    if data.total > n:
        notes.append(f"the {n} sources with most measurements, of {data.total:,}")
    return Picture("sources", "Success by source", panels, "; ".join(notes))


def _counts(data: Sources, order: Ints) -> list[Mark]:
    if not len(order):
        return []
    places = np.arange(len(order))
    among, measured, failed = data.among_best[order], data.measured[order], data.failed[order]
    bars = [
        Bars("among the best 10 %", "best", places, among, 0.7),
        Bars("other rewards", "older", places, measured - among, 0.7, on=among),
        Bars("failed", "failed", places, failed, 0.7, on=measured),
    ]
    return [each for each in bars if np.any(each.lengths)]


def _rewards(data: Sources, order: Ints) -> list[Mark]:
    own = [(place, at) for place, at in enumerate(order) if data.measured[at]]
    if not own:
        return []
    places, at = ([each[i] for each in own] for i in (0, 1))
    return [
        Spans("middle half", "older", places, data.low[at], data.high[at]),
        Points("median", "text", data.median[at], places, "line"),
        Points("best", "best", data.best[at], places, "star"),
    ]
