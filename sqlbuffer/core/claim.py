"""The claim of one draw on its samples: what it has drawn; find it, and close it."""

from __future__ import annotations

import datetime as dt
import os
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlbuffer._integrity import numbers_of
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import ClaimLost

MOST_WIDENINGS = 100
"""Most attempts of one draw; an attempt fails if others draw all samples that it has marked."""


class TooFewMarked(Exception):
    """Too few samples are marked as top; raised, so that the transaction is rolled back."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.n = n


class Drawn(NamedTuple):
    """Drawn samples, as columns of n values each.

    To split 512 rows into columns once takes half the time of ten loops over the rows.
    """

    sample_id: Sequence[int] = ()
    race_key: Sequence[float] = ()
    weight: Sequence[float | None] = ()
    entries: Sequence[int] = ()
    source: Sequence[str] = ()
    score: Sequence[float | None] = ()
    reward: Sequence[float | None] = ()
    hash: Sequence[bytes] = ()
    requeues: Sequence[int] = ()
    text: Sequence[str] = ()
    payload: Sequence[bytes | None] = ()
    codec: Sequence[str] = ()


class Closed(NamedTuple):
    """A batch that was just settled or released."""

    size: int
    clock_before: float
    """Clock of the race before its draw."""
    clock: float
    """Clock of the race after its draw."""


class Claim(NamedTuple):
    """A batch as one draw made it.

    The id of the batch alone is not enough: if the database has returned to an earlier state,
    another draw may have the same id.
    """

    batch: int
    drawn_by: str
    drawn_at: dt.datetime

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of statements that find this batch."""
        return {"batch": self.batch, "drawn_by": self.drawn_by, "drawn_at_time": self.drawn_at}

    def close(self, tx: Transaction, column: str) -> Closed | None:
        """Settle or release the batch; return None if it is closed or no longer in the database.

        Args:
            tx: A writing transaction.
            column: "settled_at" or "released_at".
        """
        return close(tx, queries.batches.close_claim(column), **self.parameters())

    def settle_at_once(self, tx: Transaction, n: int) -> None:
        """Settle n samples in the transaction of their draw, which has counted the draw."""
        self.close(tx, "settled_at")
        tx.count(settled=n)  # a logical time of its own, later than that of the draw

    def is_open(self, tx: Transaction) -> bool:
        """Tell whether the batch is open."""
        statement = queries.batches.find_claim().where(queries.params.IS_OPEN)
        return tx.execute(statement, **self.parameters()).one_or_none() is not None

    def is_settled(self, tx: Transaction) -> bool:
        """Tell whether the batch is settled."""
        statement = queries.batches.find_settled_claim()
        return tx.execute(statement, **self.parameters()).one_or_none() is not None

    def lock(self, tx: Transaction) -> bool:
        """Lock the batch, and tell whether it is open."""
        statement = queries.batches.open_batch(tx.backend)
        return tx.execute(statement, **self.parameters()).one_or_none() is not None

    def find(self, tx: Transaction) -> bool:
        """Tell whether the batch is in the database, open or closed."""
        return (
            tx.execute(queries.batches.find_claim(), **self.parameters()).one_or_none() is not None
        )


def new_token() -> str:
    """Return text that no other batch has."""
    return secrets.token_hex(16)


def detach(tx: Transaction, *, claim: Claim, token: str) -> str | None:
    """Give a token to a batch, and return the first that it got; None without a lease."""
    found = tx.execute(queries.batches.set_token(), new_token=token, **claim.parameters())
    row = found.one_or_none()
    return None if row is None else str(row.token)


def lost(number: int | None, what: str, *, owner: int | None, is_stored: bool) -> ClaimLost:
    """Return the error for a batch that this process cannot end.

    Args:
        number: Id of the batch.
        what: What becomes of the samples.
        owner: Id of the process that the claim belongs to; None for this process.
        is_stored: True if the database has the batch.
    """
    if owner is not None:
        return ClaimLost(
            f"batch {number} belongs to process {owner}, and this process is its forked child "
            f"{os.getpid()}: {what}; settle the batch in process {owner}, or send it pickled to "
            "another process."
        )
    if is_stored:
        return ClaimLost(f"batch {number} was already settled or released: {what}.")
    return ClaimLost(
        f"batch {number} is no longer in the database, which has returned to an earlier state "
        f"(failover to a lagging standby, restore): {what}; draw again."
    )


def close(tx: Transaction, statement: Any, **batch: Any) -> Closed | None:
    """Settle or release a batch by a statement; return None if it was closed before."""
    closed = tx.execute(statement, **batch).one_or_none()
    if closed is None:
        return None
    tx.reach(closed.closed_tick)
    with numbers_of("a batch"):
        return Closed(int(closed.size), float(closed.clock_before), float(closed.clock))


class Terms(NamedTuple):
    """How a batch is claimed."""

    counts_attempts: bool = False
    """The death of its worker is an attempt at each sample that was started."""
    lease_s: float | None = None
    """Seconds for which it stays claimed without its worker; None: while the worker lives."""
    settles: bool = False
    """It is settled by the transaction of its draw, without rewards; in mode "replay" alone."""

    def columns(self) -> dict[str, Any]:
        """Return what is stored with the batch."""
        return {"counts_attempts": self.counts_attempts, "lease_s": self.lease_s}


WHILE_ALIVE = Terms()
"""The batch stays claimed while its worker lives, whose death counts nothing."""
