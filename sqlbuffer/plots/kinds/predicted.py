"""Predicted against measured: scores and rewards by the version of the predictor."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.plots.kinds.common import (
    floats,
    objective_of,
    reward_label,
    side_by_side,
    step_of,
    why_no_reward,
)
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Data, Line, Mark, Panel, Picture, Points
from sqlbuffer.predictor.metrics import rank_correlation
from sqlbuffer.records import LEAST_ROWS

MOST_VERSIONS = 500
MOST_POINTS = 4000


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted(Data):
    """Scores of measured samples next to their rewards.

    Attributes:
        name: The buffer.
        direction: "maximize" or "minimize".
        objective: Name of the reward function.
        predicted: (n,) scores as predictions of the reward: negated if the buffer minimizes.
        measured: (n,) rewards.
        version: (n,) the predictor that made the score; -1 if none was stored by then.
        versions: (m,) the versions with scores or an own measure, ascending.
        correlation: (m,) rank correlation of predicted and measured; NaN below ten samples.
        held_out: (m,) the predictor's own measure on the rows held out from its training; NaN below
            ten rows.
        samples: (m,) measured samples with its scores, among those that were read.
        step: Each so many rewards one was read.
        total: All rewards.
        failed: All failed measurements.
        rows_held_out: (m,) rows held out; NaN if they are not known.
    """

    name: str
    direction: str
    objective: str
    predicted: Floats
    measured: Floats
    version: Ints
    versions: Ints
    correlation: Floats
    held_out: Floats
    samples: Ints
    step: int
    total: int
    failed: int
    rows_held_out: Floats


def read(
    tx: Transaction, *, objective: str | None = None, most: int = MOST_ROWS - MOST_VERSIONS
) -> Predicted:
    """Read the scores and rewards of up to `most` measurements, evenly by their age."""
    objective = objective_of(tx, objective)
    total = tx.execute(queries.pictures.numbers_of_measurements(), objective=objective).one()
    step = step_of(total.measured, most)
    rows = tx.rows(queries.pictures.predictions(), objective=objective, step=step)
    trained = tx.rows(queries.pictures.correlations(), limit=MOST_VERSIONS)[::-1]
    score, reward = floats(rows, "score"), floats(rows, "reward")
    predicted = -score if tx.buffer.minimizes else score
    version = _made_by([row.score_version for row in rows], [row.version for row in trained])
    versions = np.union1d(version, np.array([row.version for row in trained], dtype=np.int64))
    held_out = {row.version: row for row in trained}
    groups = [version == each for each in versions]
    return Predicted(
        name=tx.buffer.name,
        direction=tx.buffer.direction,
        objective=objective,
        predicted=predicted,
        measured=reward,
        version=version,
        versions=versions,
        correlation=np.array([_correlation(predicted[own], reward[own]) for own in groups]),
        held_out=_of_versions(versions, held_out, _held_out),
        samples=np.array([own.sum() for own in groups], dtype=np.int64),
        step=step,
        total=total.measured,
        failed=total.failed,
        rows_held_out=_of_versions(versions, held_out, lambda row: row.rows_held_out or None),
    )


def _made_by(score_versions: Sequence[Any], predictors: Sequence[int]) -> Ints:
    """Return the newest predictor of each score: its version is that of the score, or lower."""
    places = [
        -1 if version is None else bisect.bisect_right(predictors, version) - 1
        for version in score_versions
    ]
    made = [predictors[place] if place >= 0 else -1 for place in places]
    return np.array(made, dtype=np.int64)


def _of_versions(
    versions: Ints, trained: dict[int, Any], number: Callable[[Any], float | None]
) -> Floats:
    """Return a number of each version, NaN where there is none."""
    rows = [trained.get(int(each)) for each in versions]
    numbers = [None if row is None else number(row) for row in rows]
    return np.array([math.nan if each is None else each for each in numbers], dtype=np.float64)


def _held_out(row: Any) -> float | None:
    rows = row.rows_held_out  # 0: its user did not tell
    return row.rank_correlation if not rows or rows >= LEAST_ROWS else None


def _correlation(predicted: Floats, measured: Floats) -> float:
    return rank_correlation(predicted, measured) if len(measured) >= LEAST_ROWS else math.nan


def picture(found: Sequence[Predicted]) -> Picture:
    """Return the picture of one or several buffers."""
    return side_by_side(found, _picture)


def _picture(data: Predicted) -> Picture:
    sign = "-score" if data.direction == "minimize" else "score"
    panels = [
        Panel(
            Axis(f"predicted ({sign})"),
            Axis(reward_label(data.objective, data.direction)),
            _points(data),
            title="Each measured sample",
            empty="No measured sample has a score." if data.total else why_no_reward(data.failed),
        )
    ]
    if (data.versions >= 0).any():
        panels.append(
            Panel(
                Axis("version of the predictor", "whole"),
                Axis("rank correlation"),
                _quality(data),
                title="By predictor",
                empty=f"A rank correlation needs {LEAST_ROWS} measured samples with scores of one "
                f"version, or {LEAST_ROWS} rows held out from its training.",
            )
        )
    notes = [f"from one in {data.step:,} measurements"] if data.step > 1 else []
    if (every := _thinning(data)) > 1:
        notes.append(f"one of {every:,} points is drawn")
    notes += _numbers_of_samples(data)
    return Picture("predicted", "Predicted against measured", panels, "; ".join(notes))


def _numbers_of_samples(data: Predicted) -> list[str]:
    """Return of how many samples the rank correlations are, and which versions have too few."""
    own, notes = data.versions >= 0, []
    for what, numbers, values in (
        ("drawn samples", data.samples, data.correlation),
        ("rows held out", data.rows_held_out, data.held_out),
    ):
        used = numbers[own & np.isfinite(values) & np.isfinite(numbers)]
        if len(used):
            least, most = int(used.min()), int(used.max())
            span = f"{most:,}" if least == most else f"{least:,} to {most:,}"
            notes.append(f"rank correlations of {span} {what}")
    few = own & (data.samples > 0) & (data.samples < LEAST_ROWS)
    if few.any():
        newest, n = int(data.versions[few][-1]), int(data.samples[few][-1])
        notes.append(f"none below {LEAST_ROWS}, such as of version {newest} with {n}")
    return notes


def _points(data: Predicted) -> list[Mark]:
    """Return the points of the newest version with samples, in front of those of earlier ones."""
    if not len(data.version):
        return []
    newest = int(data.version.max())
    marks: list[Mark] = []
    names = {"older": "earlier versions", "newest": f"version {newest}"}
    if newest == -1:
        names["newest"] = "measured samples"
    for role, own in (("older", data.version < newest), ("newest", data.version == newest)):
        if n := int(own.sum()):
            every = slice(None, None, _thinning(data))
            x, y = data.predicted[own][every], data.measured[own][every]
            marks.append(Points(f"{names[role]} ({n:,})", role, x, y))
    return marks


def _thinning(data: Predicted) -> int:
    """Return which share of the points is drawn: each second, third and so on."""
    return -(-len(data.version) // MOST_POINTS) or 1


def _quality(data: Predicted) -> list[Mark]:
    own = data.versions >= 0
    marks: list[Mark] = []
    for name, role, values in (
        ("samples that were drawn", "drawn", data.correlation[own]),
        ("rows held out from training", "out", data.held_out[own]),
    ):
        is_known = np.isfinite(values)
        if is_known.any():
            marks.append(Line(name, role, data.versions[own][is_known], values[is_known]))
    return marks
