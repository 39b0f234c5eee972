"""`sqlbuffer batches`: the batches of a buffer."""

from __future__ import annotations

import contextlib
import functools
from typing import Annotated

import typer

from sqlbuffer.cli.answers import Answer, reading, tell_of_more
from sqlbuffer.cli.common import OneBuffer, Url, handles, open_existing
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.batches import count_batches, newest_batches

_COLUMNS = (
    *("batch", "iteration", "state", "size", "measured", "failed", "mean_reward", "best_reward"),
    *("worker", "drawn_at", "closed_at"),
)


@reading("sqlbuffer batches", "sqlbuffer batches --open --name qed", "sqlbuffer batches -n 5 --csv")
def batches(
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    n: Annotated[int, typer.Option("-n", min=1, help="Number of batches.")] = 20,
    is_open: Annotated[
        bool, typer.Option("--open", help="Only batches that are neither settled nor released.")
    ] = False,
) -> Answer:
    """Show the batches of a buffer, the newest first.

    "measured" and "failed" count the measurements of the batch's samples that were stored for this
    batch, without tries that others followed; "mean_reward" and "best_reward" are of these. A batch
    is open until it is settled (all its rewards are there) or released (its samples wait again). Of
    a batch whose draws `sqlbuffer prune` has dropped nothing is counted.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        rows = buffer.read(newest_batches, n, is_open=is_open)
        count = functools.partial(buffer.read, count_batches, is_open=is_open)
        tell_of_more(len(rows), n, count, "open batches" if is_open else "batches")
    return Answer(_COLUMNS, rows)
