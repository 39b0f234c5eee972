"""`sqlbuffer plot`: the metrics of a run as a picture."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Annotated

import typer

from sqlbuffer._plotting import draw_metrics
from sqlbuffer.cli import output
from sqlbuffer.cli.common import OneBuffer, Url, command, handles, open_existing
from sqlbuffer.core import metrics_and_checkpoints
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument


@command("sqlbuffer plot --out metrics.png", "sqlbuffer plot rewards loss --out metrics.svg")
def plot(
    metrics: Annotated[
        list[str] | None,
        typer.Argument(metavar="METRIC...", help="Names of metrics; all metrics if none is given."),
    ] = None,
    out: Annotated[
        pathlib.Path, typer.Option(help="File to write: .png, .svg or .pdf.")
    ] = pathlib.Path("metrics.png"),
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
) -> None:
    r"""Plot the metrics of a run over its iterations into a file.

    Metrics are the numbers that a training loop logs, such as the mean reward of each batch.
    Plotting needs matplotlib: pip install "sqlbuffer\[plots]".
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        output.line(f"{plot_metrics(buffer, metrics or None, out)} metrics in {out}")


def plot_metrics(buffer: BufferHandle, metrics: Sequence[str] | None, out: pathlib.Path) -> int:
    """Write a plot of a buffer's metrics over its iterations; return the number of metrics in it.

    Args:
        buffer: The buffer.
        metrics: Names of metrics; None for all.
        out: The file. Its suffix is the format.

    Raises:
        InvalidArgument: If the buffer has no metrics or lacks one, or the file cannot be written.
        MissingExtra: If matplotlib is not installed.
    """
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
    except (ValueError, OSError) as exc:  # ValueError: the suffix is no format of matplotlib
        raise InvalidArgument(f"{out} cannot be written: {exc}.") from exc
    return len(figure.axes)
