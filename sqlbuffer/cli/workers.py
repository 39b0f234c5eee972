"""`sqlbuffer workers`: the processes that use a buffer, and their states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import AnyBuffer, Grace, Url, rows_of
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import GRACE_S, LEDGER, fold, silent_workers, stale_workers, worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.database import DEFAULT_URL

_COLUMNS = (
    *("buffer", "worker", "pid", "state", "heartbeat_at"),
    *("claims", "added", "drawn", "settled"),
)


@reading("sqlbuffer workers", "sqlbuffer workers --name qed --json")
def workers(url: Url = DEFAULT_URL, name: AnyBuffer = None, grace: Grace = GRACE_S) -> Answer:
    """Show the workers of buffers, with their states and counters.

    A worker is a process that has written to a buffer. "claims" counts the batches that it has
    drawn and neither settled nor released; "added", "drawn" and "settled" count samples. States:

    - running: the process is alive, as far as can be seen.
    - finished: the process has closed the buffer or exited.
    - died: the process is gone, and has not closed the buffer.
    - silent: the last heartbeat from another host is older than --grace seconds by the clock of
      the database. The worker may have died, or a clock was set: `claims release --dead` finds out.

    Finished and dead workers leave the list when a process that writes next opens the buffer, as
    `sqlbuffer measure` does; to look at a buffer, as this command does, changes nothing in it.
    """
    return Answer(_COLUMNS, rows_of(find_workers, url=url, name=name, grace=grace))


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


def unregister(tx: Transaction) -> None:
    """Remove this process from the workers: a command has ended and works no longer."""
    fold(tx, worker=worker_id())
