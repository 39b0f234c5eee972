"""`sqlbuffer history`: the metrics of a run by iteration."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from sqlbuffer.cli.answers import Answer, reading, tell_of_more
from sqlbuffer.cli.common import OneBuffer, Url, handles, open_existing
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.history import count_iterations, metrics_by_iteration


@reading("sqlbuffer history", "sqlbuffer history rewards -n 100 --out metrics.csv")
def history(
    metrics: Annotated[
        list[str] | None,
        typer.Argument(metavar="METRIC...", help="Names of metrics; all metrics if none is given."),
    ] = None,
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    n: Annotated[int, typer.Option("-n", min=1, help="Number of the newest iterations.")] = 20,
) -> Answer:
    """Show the metrics of a run by iteration.

    Metrics are the numbers that a training loop logs, such as the mean reward of each batch. The
    newest iteration comes last.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        rows = buffer.read(metrics_by_iteration, n)
        tell_of_more(len(rows), n, lambda: buffer.read(count_iterations), "iterations")
    known = list(dict.fromkeys(metric for row in rows for metric in row if metric != "iteration"))
    if unknown := [each for each in metrics or [] if each not in known]:
        raise typer.BadParameter(
            f"there is no metric {unknown[0]!r} in these iterations: give one of "
            f"{', '.join(known) or 'none'}."
        )
    columns = ["iteration", *(metrics or known)]
    return Answer(columns, [{column: row.get(column) for column in columns} for row in rows])
