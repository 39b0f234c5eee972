"""Take samples out of a pool that has become too large."""

from __future__ import annotations

from typing import Any

from sqlbuffer.core import pool
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Lock

MOST_UNSCORED = 100_000
"""Number of samples that may always wait for a score, even if `max_size` is smaller."""


def evict(tx: Transaction, state: RaceState, *, scored: int = 0, unscored: int = 0) -> None:
    """Remove the lightest or the oldest samples beyond the buffer's `max_size`, and 1 % more.

    Samples without a score are not compared with scored samples. As many of them may wait as
    `max_size`, and at least `MOST_UNSCORED`; beyond that, the oldest of them are removed.

    It is called before the transaction counts its own changes, and locks draws: until the end of
    this transaction no other one adds, draws or evicts, so each sees the counts of those before.

    Args:
        tx: A writing transaction that has locked the race.
        state: The state of the race.
        scored: Number of scored samples that this transaction has added and not yet counted.
        unscored: Number of samples without a score that it has added and not yet counted.
    """
    if state.max_size is None:
        return
    dialect = tx.backend
    dialect.lock(tx.connection, tx.buffer.buffer_id, {Lock.DRAWS: True})
    totals = tx.execute(queries.buffers.totals()).one()
    unscored += int(totals.unscored)
    scored += pool.size(tx.buffer, totals) - int(totals.unscored)
    going: list[Any] = []
    if (excess := scored - state.max_size) > 0:
        excess += state.max_size // 100  # finding them reads the whole pool: make it rare
        build = queries.scores.oldest if state.evict == "oldest" else queries.scores.lightest
        going += _free(tx, build(dialect), excess)
    if (excess := unscored - max(state.max_size, MOST_UNSCORED)) > 0:
        going += _free(tx, queries.scores.oldest_unscored(dialect), excess)
    if going:
        pool.remove(tx, going, clock=tx.race_state().clock, evicted=True)


def _free(tx: Transaction, statement: Any, n: int) -> list[Any]:
    """Return the first n samples of a statement that no other transaction writes; lock them.

    To wait for them could deadlock: a transaction that has locked samples may wait for this one.
    """
    dialect = tx.backend
    n_passed = 0
    while True:
        going = tx.execute(statement, limit=n + n_passed).all()
        if not dialect.has_concurrent_writers:
            return list(going)
        columns = {"sample_id": sorted(row.sample_id for row in going)}
        found = tx.execute_with(
            queries.samples.free_samples(dialect), queries.params.INCOMING_IDS, columns
        )
        is_free = set(found.scalars())
        free = [row for row in going if row.sample_id in is_free]
        if len(free) >= n or len(going) < n + n_passed:
            return free[:n]
        n_passed = len(going) - len(free)
