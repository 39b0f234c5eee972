"""Pictures of metrics over the iterations of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlbuffer._messages import listed, shown
from sqlbuffer._validation import as_list, require_count, require_flag
from sqlbuffer.core import metrics_and_checkpoints
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.plots import draw
from sqlbuffer.plots.kinds.common import cut, labels_of
from sqlbuffer.plots.picture import Axis, Line, Panel, Picture, within

Series = tuple[Sequence[int], Sequence[Any]]
"""(n,) iterations, and the (n,) values."""

_PER_HALF = 20
"""A running mean has a value of as many on each side."""


def draw_metrics(
    metrics: Mapping[str, Series],
    names: Sequence[str] | None = None,
    *,
    cols: int = 4,
    smooth: bool = True,
) -> Any:
    """Draw the metrics of one run over its iterations, see `draw_runs`."""
    return draw_runs({"": metrics}, names, cols=cols, smooth=smooth)


def draw_runs(
    runs: Mapping[str, Mapping[str, Series]],
    names: Sequence[str] | None = None,
    *,
    cols: int = 4,
    smooth: bool = True,
    theme: str = "light",
) -> Any:
    """Draw the metrics of runs over their iterations.

    Args:
        runs: Iterations and values of each metric, by the label of the run.
        names: Metrics to draw, one plot for each; None for all metrics that are numbers.
        cols: Plots in a row.
        smooth: Draw a running mean over the values; of several runs the means alone.
        theme: "light" or "dark".

    Returns:
        A matplotlib Figure without a window, which a notebook shows without `%matplotlib`.

    Raises:
        InvalidArgument: If no metric has one of the names.
        MissingExtra: If matplotlib is not installed.
    """
    cols = require_count(cols, "cols must be 1 or more", least=1)
    smooth = require_flag(smooth, "smooth")
    names = None if names is None else as_list(names, "names")
    numbers: dict[str, dict[str, Series]] = {}
    for label, metrics in runs.items():
        for name, series in metrics.items():
            if _is_drawable(series[1]):
                numbers.setdefault(name, {})[label] = series
    chosen = list(numbers if names is None else names)
    if unknown := [name for name in chosen if not isinstance(name, str) or name not in numbers]:
        raise InvalidArgument(
            f"no numbers are logged as {shown(unknown[0])}: the metrics are {listed(numbers)}."
        )
    places = {label: place for place, label in enumerate(runs)}
    panels = [
        _panel(name, _lines(numbers[name], places, smooth), has_legend=len(runs) > 1)
        for name in chosen
    ]
    is_mean = smooth and len(runs) > 1 and any(_is_smoothed(each) for each in numbers.values())
    note = "running means over a tenth of the iterations" if is_mean else ""
    return draw(Picture("metrics", "", panels, note, columns=cols, inches=(4.0, 2.8)), theme)


def _is_smoothed(runs: Mapping[str, Series]) -> bool:
    return any(len(values) // _PER_HALF for _, values in runs.values())


def read(tx: Transaction) -> dict[str, Series]:
    """Return the iterations and values of each metric of a buffer."""
    found: dict[str, tuple[list[int], list[Any]]] = {}
    for row in metrics_and_checkpoints.history(tx):
        iterations, values = found.setdefault(row["name"], ([], []))
        iterations.append(row["iteration"])
        values.append(row["value"])
    return dict(found)


def read_runs(buffers: Sequence[BufferHandle]) -> dict[str, dict[str, Series]]:
    """Return the metrics of buffers by their labels.

    Raises:
        InvalidArgument: If none has a metric.
    """
    runs = [each.read(read) for each in buffers]
    if not any(runs):
        named = ", ".join(shown(each.name) for each in buffers)
        raise InvalidArgument(
            f"{'buffers' if len(buffers) > 1 else 'buffer'} {named} "
            f"{'have' if len(buffers) > 1 else 'has'} no logged metrics to draw yet: run the loop "
            "first."
        )
    return dict(zip(labels_of([each.name for each in buffers]), runs, strict=True))


def _panel(name: str, lines: Sequence[Line], *, has_legend: bool) -> Panel:
    return Panel(Axis("iteration"), Axis(""), lines, name, has_legend=has_legend)


def _lines(runs: Mapping[str, Series], places: Mapping[str, int], smooth: bool) -> list[Line]:
    """Return the line of each run, of a single one its values and their running mean."""
    if len(places) > 1:
        return [
            Line(cut(label, 24), f"series-{places[label]}", iterations, _smooth(values, smooth))
            for label, (iterations, values) in runs.items()
        ]
    ((iterations, values),) = runs.values()
    lines = [Line("value", "top", iterations, _smooth(values, False), is_faint=smooth)]
    if smooth:
        lines.append(Line("running mean", "top", iterations, _smooth(values, True)))
    return lines


def _smooth(values: Sequence[Any], smooth: bool) -> NDArray[np.float64]:
    """Return values as floats, or their running mean."""
    floats = within(np.asarray(values, dtype=np.float64))
    return running_mean(floats) if smooth else floats


def running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the running mean (n,) of finite values (n,), over a window of a tenth of them."""
    half = len(values) // _PER_HALF
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
