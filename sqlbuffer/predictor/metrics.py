"""Measures of predictions against rewards. Arithmetic only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10
"""Groups of equal size in which predictions are compared with rewards."""


def measures(predictions: ArrayLike, rewards: ArrayLike) -> dict[str, Any]:
    """Measure predictions against rewards.

    Args:
        predictions: (n,) floats; if one is not finite, every measure is NaN.
        rewards: (n,) finite floats.

    Returns:
        `rank_correlation`, `r2`, and `calibration`.
    """
    predicted, measured = (
        np.asarray(values, dtype=np.float64) for values in (predictions, rewards)
    )
    if not np.isfinite(predicted).all():
        return {"rank_correlation": math.nan, "r2": math.nan, "calibration": []}
    return {
        "rank_correlation": rank_correlation(predicted, measured),
        "r2": r2(predicted, measured),
        "calibration": calibration(predicted, measured),
    }


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Return Spearman's rank correlation of two (n,) arrays; NaN if all values of one are equal.

    Ties share their mean rank.
    """
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    if _are_equal(ranks_a) or _are_equal(ranks_b):
        return math.nan
    spread = float(ranks_a.std() * ranks_b.std())
    return float(((ranks_a - ranks_a.mean()) * (ranks_b - ranks_b.mean())).mean() / spread)


def r2(predictions: ArrayLike, rewards: ArrayLike) -> float:
    """Return the coefficient of determination of predictions (n,); NaN if all rewards are equal.

    It is 1 - residual sum of squares / total sum of squares.
    """
    predicted, measured = (
        np.asarray(values, dtype=np.float64) for values in (predictions, rewards)
    )
    if _are_equal(measured):
        return math.nan
    scale = _scale(predicted, measured)
    predicted, measured = predicted / scale, measured / scale
    # Without the division the squares of the smallest numbers would be 0.
    spread = float(np.abs(measured - measured.mean()).max())
    with np.errstate(over="ignore"):
        residual = float((((measured - predicted) / spread) ** 2).sum())
        total = float((((measured - measured.mean()) / spread) ** 2).sum())
    return 1.0 - residual / total


def _are_equal(values: NDArray[np.float64]) -> bool:
    """Tell whether all values are equal; their deviation may exceed 0 by rounding."""
    return len(values) == 0 or bool((values == values[0]).all())


def calibration(predictions: ArrayLike, rewards: ArrayLike) -> list[dict[str, float]]:
    """Compare predictions (n,) with rewards (n,) in at most ten groups of equal size.

    Returns:
        For each group, in ascending order of predictions: the means of predictions (`predicted`)
        and rewards (`measured`), and the number of `rows`. The two means agree if the predictor is
        calibrated.
    """
    predicted, measured = (
        np.asarray(values, dtype=np.float64) for values in (predictions, rewards)
    )
    groups = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    return [
        {"predicted": _mean(predicted[rows]), "measured": _mean(measured[rows]), "rows": len(rows)}
        for rows in groups
        if len(rows)
    ]


def _scale(*values: NDArray[np.float64]) -> float:
    """Return a divisor with which sums of squares stay finite: 1 except for huge numbers."""
    return (
        2.0**600
        if max((float(np.abs(each).max(initial=0.0)) for each in values), default=0.0) > 1e120
        else 1.0
    )


def _mean(values: NDArray[np.float64]) -> float:
    scale = _scale(values)
    return float((values / scale).mean()) * scale


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=np.float64)
