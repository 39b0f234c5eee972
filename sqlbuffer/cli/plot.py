"""Plots of what a buffer has stored, as files."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from sqlbuffer._plotting import draw_metrics
from sqlbuffer.core import metrics_and_checkpoints
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.errors import InvalidArgument


def plot_metrics(buffer: BufferHandle, metrics: Sequence[str] | None, out: pathlib.Path) -> int:
    """Write a plot of a buffer's metrics over its iterations to a file; return how many metrics it shows."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for row in buffer.read(metrics_and_checkpoints.history):
        iterations, values = series.setdefault(row["name"], ([], []))
        iterations.append(row["iteration"])
        values.append(row["value"])
    if not series:
        raise InvalidArgument(
            f"buffer {buffer.name!r} has no logged metrics to draw yet: run its loop first."
        )
    figure = draw_metrics(series, metrics)
    try:
        figure.savefig(out)
    except (
        ValueError,
        OSError,
    ) as exc:  # a suffix that is no kind of picture, a folder that is not there
        raise InvalidArgument(f"{out} cannot be written: {exc}.") from exc
    return len(figure.axes)
