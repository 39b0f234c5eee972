"""Late rewards: those of a batch whose claim has ended, and whose samples wait again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlbuffer.core import pool
from sqlbuffer.core.transaction import Transaction


def stop_waiting(tx: Transaction, ids: Sequence[int], requeues: Mapping[bytes, int]) -> None:
    """Take samples that have got a late reward out of the pool, which would measure them again.

    A sample stays if it has been added again since its draw, because the user asks for another
    measurement.

    Args:
        tx: A writing transaction that has locked the race, and then the rows of the samples.
        ids: Ids of the samples.
        requeues: How often each sample had been added again when it was drawn, by hash.
    """
    if tx.buffer.consumes and requeues:
        tx.lock_race_to_join(tx.race_state())
        rows = pool.standing(tx, ids)
        pool.take_out(tx, [row for row in rows if requeues.get(row.hash) == row.requeues])
