"""The workers of a buffer, each with its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import LEDGER, silent_workers, stale_workers
from sqlbuffer.db import queries


def find_workers(tx: Transaction) -> list[dict[str, Any]]:
    """Return the workers of a buffer, each with its state and counters.

    The state is "running"; "finished" after the worker has closed the buffer; "died" if its
    process is gone without that; "silent" if it is on another host and has sent no heartbeat for
    the grace period by the database's clock. One look cannot tell a dead worker from a clock that
    was set.
    """
    return with_state(
        tx, tx.execute(queries.workers.workers_with_claims(), ledger=LEDGER).mappings().all()
    )


def with_state(tx: Transaction, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return rows that have a `worker`, with the buffer's name and the state of that worker."""
    state = dict.fromkeys(silent_workers(tx), "silent")
    state |= dict.fromkeys(stale_workers(tx), "died")
    state |= dict.fromkeys(tx.execute(queries.workers.finished_workers()).scalars(), "finished")
    return [
        {"buffer": tx.buffer.name, **row, "state": state.get(row["worker"], "running")}
        for row in rows
    ]
