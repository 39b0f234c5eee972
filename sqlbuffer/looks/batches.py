"""The newest batches of a buffer, each with its measurements in numbers."""

from __future__ import annotations

from typing import Any

from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries


def newest_batches(tx: Transaction, n: int, *, is_open: bool = False) -> list[dict[str, Any]]:
    """Return the n newest batches, or the newest that are open."""
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


def count_batches(tx: Transaction, *, is_open: bool = False) -> int:
    """Return how many batches a buffer has, or how many that are open."""
    return int(tx.execute(queries.looks.count_batches(is_open=is_open)).scalar_one())


def state_of(batch: Any) -> str:
    """Return the state of a batch: settled, released, leased or open."""
    if batch.settled_at is not None:
        return "settled"
    if batch.released_at is not None:
        return "released"
    return "open" if batch.lease_until is None else "leased"
