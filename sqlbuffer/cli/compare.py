"""`sqlbuffer compare`: two buffers side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import Url, handles, open_existing
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks import compare as looks
from sqlbuffer.looks.words import rounded


@reading("sqlbuffer compare default qed", "sqlbuffer compare default qed --json")
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Name of a buffer.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name of another buffer.")],
    url: Url = DEFAULT_URL,
) -> Answer:
    """Show two buffers side by side.

    "mean_of_top_10" is the mean of the ten best rewards. "seconds" is the time that all
    measurements took together, failed ones and those of earlier objectives too, if they tell it.
    "measurements" counts the rewards of the objective, without failures, "common_measurements" is
    the smaller of both, and "best_by_then" the best of the first so many. "shared_samples" are in
    both buffers, "shared_measured" have a reward in both. `sqlbuffer plot --kind best --name A
    --name B` draws the best by then.
    """
    if first == second:
        raise typer.BadParameter(f"{first} is both A and B: give two buffers.")
    with contextlib.closing(open_existing(url)) as database:
        (a,), (b,) = handles(database, first), handles(database, second)
        rows = looks.compare(a, b)
    if a.direction != b.direction:
        output.line(
            f"{first} is to {a.direction}, {second} to {b.direction}: their rewards do not compare",
            stderr=True,
        )
    named = [{"field": row["field"], first: row["a"], second: row["b"]} for row in rows]
    return Answer(
        ["field", first, second], named, shown={name: _shown(name) for name in (first, second)}
    )


def _shown(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda row: rounded(row[name]) if row["field"] == "seconds" else row[name]
