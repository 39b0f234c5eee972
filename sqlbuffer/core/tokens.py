"""Claims that outlive their process: detached with a token, and taken up in any process."""

from __future__ import annotations

from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._validation import as_name
from sqlbuffer.core import pool
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.claim import Claim, Drawn
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import ClaimLost, InvalidArgument
from sqlbuffer.records import SampleInfo


def take_up(tx: Transaction, token: str) -> Batch:
    """Return the batch of a token, with the samples as they are now.

    Raises:
        InvalidArgument: If no batch of this buffer has the token.
        ClaimLost: If the batch was settled or released, or if its lease is over.
    """
    token = as_name(token, "a token")
    row = tx.execute(queries.batches.batch_of_token(), token=token).one_or_none()
    if row is None:
        raise InvalidArgument(
            f"{shown(token)} is not the token of a batch in {tx.buffer.database.url}: give a token "
            "that `Batch.detach` has returned."
        )
    if row.buffer_id != tx.buffer.buffer_id:
        raise InvalidArgument(
            f"the token is of a batch of buffer {row.name!r}, not of {tx.buffer.name!r}: open "
            f"{row.name!r}."
        )
    if not row.is_open:
        raise ClaimLost(
            f"batch {row.id} was settled or released, or its lease is over: draw another batch."
        )
    tx.note_ids()
    rows = tx.execute(queries.batches.drawn_samples(), batch=row.id).all()
    drawn = Drawn(*zip(*rows, strict=True))
    n, rewards = len(rows), pool.as_floats(drawn.reward)
    info = SampleInfo(np.full(n, np.nan), np.arange(n) < row.n_argmax, rewards)
    return Batch(
        tx.buffer,
        drawn,
        claim=Claim(int(row.id), row.worker_id, row.drawn_at),
        iteration=int(row.iteration),
        clock=float(row.clock),
        info=info,
        objective=row.objective,
        outlives=True,
    )
