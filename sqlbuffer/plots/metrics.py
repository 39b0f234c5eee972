"""Pictures of metrics over the iterations of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlbuffer._messages import listed, shown
from sqlbuffer._validation import as_list, require_count, require_flag
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.plots import draw
from sqlbuffer.plots.picture import Axis, Line, Panel, Picture, within

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
    panels = [_panel(name, numbers[name], smooth) for name in chosen]
    return draw(Picture("metrics", "", panels, columns=cols, inches=(4.0, 2.8)))


def _panel(name: str, series: Series, smooth: bool) -> Panel:
    iterations, values = series
    floats = within(np.asarray(values, dtype=np.float64))
    lines = [Line("value", "top", iterations, floats, is_faint=smooth)]
    if smooth:
        lines.append(Line("running mean", "top", iterations, running_mean(floats)))
    return Panel(Axis("iteration"), Axis(""), lines, name, has_legend=False)


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
