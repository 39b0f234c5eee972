"""`sqlbuffer workers`: the processes that use a buffer, and their states."""

from __future__ import annotations

from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import AnyBuffer, Grace, Url, rows_of
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import GRACE_S, fold, worker_id
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.workers import find_workers

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


def unregister(tx: Transaction) -> None:
    """Remove this process from the workers: a command has ended and works no longer."""
    fold(tx, worker=worker_id())
