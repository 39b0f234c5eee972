"""`sqlbuffer batches`: the batches of a buffer."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer

from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import OneBuffer, Url, handles, open_existing
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.database import DEFAULT_URL

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
        return Answer(_COLUMNS, buffer.read(lambda tx: _newest(tx, n, is_open)))


def _newest(tx: Transaction, n: int, is_open: bool) -> list[dict[str, Any]]:
    looks = queries.looks
    statement = looks.newest_open_batches() if is_open else looks.newest_batches()
    minimizes = tx.buffer.direction == "minimize"
    return [
        {
            "batch": row.id,
            "iteration": row.iteration,
            "state": state_of(row),
            "size": row.size,
            "measured": row.measured if row.drawn or not row.size else None,
            "failed": row.failed if row.drawn or not row.size else None,
            "mean_reward": row.mean_reward,
            "best_reward": row.lowest_reward if minimizes else row.highest_reward,
            "worker": row.worker_id,
            "drawn_at": row.drawn_at,
            "closed_at": row.settled_at or row.released_at,
            "lease_until": row.lease_until,
        }
        for row in tx.execute(statement, limit=n)
    ]


def state_of(batch: Any) -> str:
    """Return the state of a batch: settled, released, leased or open."""
    if batch.settled_at is not None:
        return "settled"
    if batch.released_at is not None:
        return "released"
    return "open" if batch.lease_until is None else "leased"
