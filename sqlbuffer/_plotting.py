"""Plots of metrics; matplotlib is imported when a plot is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlbuffer._messages import listed, printable, shown
from sqlbuffer._validation import as_list, require_count, require_flag
from sqlbuffer.errors import InvalidArgument, MissingExtra

Series = tuple[Sequence[int], Sequence[Any]]
"""(n,) iterations, and the (n,) values."""


def draw_metrics(
    metrics: Mapping[str, Series],
    names: Sequence[str] | None = None,
    *,
    cols: int = 4,
    smooth: bool = True,
) -> Any:
    """Draw metrics over the iterations.

    Args:
        metrics: Iterations and values of each metric.
        names: Metrics to draw, one plot for each; None for all metrics that are numbers.
        cols: Plots in a row.
        smooth: Draw a running mean over the values.

    Returns:
        A matplotlib Figure without a window, which a notebook shows without `%matplotlib`.

    Raises:
        InvalidArgument: If no metric has one of the names.
        MissingExtra: If matplotlib is not installed.
    """
    cols = require_count(cols, "cols must be 1 or more", least=1)
    smooth = require_flag(smooth, "smooth")
    names = None if names is None else as_list(names, "names")
    numbers = {name: series for name, series in metrics.items() if _is_drawable(series[1])}
    chosen = list(numbers if names is None else names)
    if unknown := [name for name in chosen if not isinstance(name, str) or name not in numbers]:
        raise InvalidArgument(
            f"no numbers are logged as {shown(unknown[0])}: the metrics are {listed(numbers)}."
        )
    try:
        from sqlbuffer._figure import NotebookFigure
    except ImportError as exc:
        raise MissingExtra("plots need matplotlib: pip install 'sqlbuffer[plots]'.") from exc
    n_cols = max(min(cols, len(chosen)), 1)
    n_rows = max(math.ceil(len(chosen) / n_cols), 1)
    figure = NotebookFigure(figsize=(4.0 * n_cols, 2.8 * n_rows), layout="constrained")
    for place, name in enumerate(chosen, start=1):
        iterations, values = numbers[name]
        floats = np.asarray(values, dtype=np.float64)
        axes = figure.add_subplot(n_rows, n_cols, place, xlabel="iteration")
        axes.set_title(printable(name), parse_math=False)  # a $ in a name is text
        axes.plot(
            iterations, floats, marker="." if len(floats) == 1 else "", alpha=0.4 if smooth else 1.0
        )
        if smooth:
            axes.plot(iterations, running_mean(floats), color="C0")
    return figure


def running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the running mean (n,) of finite values (n,), over a window of a tenth of them."""
    half = len(values) // 20
    finite = np.isfinite(values)
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(each)]) for each in (np.where(finite, values, 0.0), finite)
    )
    low = np.clip(np.arange(len(values)) - half, 0, None)
    high = np.clip(np.arange(len(values)) + half + 1, None, len(values))
    n = counts[high] - counts[low]
    mean = np.full(len(values), np.nan)
    np.divide(sums[high] - sums[low], n, out=mean, where=n > 0)
    return mean


def _is_drawable(values: Sequence[Any]) -> bool:
    return len(values) > 0 and not any(isinstance(value, str) for value in values)
