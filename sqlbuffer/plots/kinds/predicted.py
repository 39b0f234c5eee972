"""Predicted against measured: scores and rewards by the version of the predictor."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence
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
)
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Data, Line, Mark, Panel, Picture, Points
from sqlbuffer.predictor.metrics import rank_correlation

MOST_VERSIONS = 500
MOST_POINTS = 4000
LEAST = 5
"""Fewer samples than this have no rank correlation."""


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
        correlation: (m,) rank correlation of predicted and measured; NaN below five samples.
        held_out: (m,) the predictor's own measure on the rows held out from its training.
        samples: (m,) measured samples with its scores, among those that were read.
        step: Each so many rewards one was read.
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
    held_out = {row.version: row.rank_correlation for row in trained}
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
        held_out=np.array(
            [_number(held_out.get(int(each))) for each in versions], dtype=np.float64
        ),
        samples=np.array([own.sum() for own in groups], dtype=np.int64),
        step=step,
    )


def _made_by(score_versions: Sequence[Any], predictors: Sequence[int]) -> Ints:
    """Return the newest predictor of each score: its version is that of the score, or lower."""
    places = [
        -1 if version is None else bisect.bisect_right(predictors, version) - 1
        for version in score_versions
    ]
    made = [predictors[place] if place >= 0 else -1 for place in places]
    return np.array(made, dtype=np.int64)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _correlation(predicted: Floats, measured: Floats) -> float:
    return rank_correlation(predicted, measured) if len(measured) >= LEAST else math.nan


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
            empty="nothing predicted and measured yet",
        )
    ]
    if (data.versions >= 0).any():
        panels.append(
            Panel(
                Axis("version of the predictor", "whole"),
                Axis("rank correlation"),
                _quality(data),
                title="By predictor",
                empty="too few measurements of each version",
            )
        )
    notes = [f"from one of {data.step:,} measurements"] if data.step > 1 else []
    if (every := _thinning(data)) > 1:
        notes.append(f"one of {every:,} points is drawn")
    return Picture("predicted", "Predicted against measured", panels, "; ".join(notes))


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
