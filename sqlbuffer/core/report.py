"""Rewards as they come: a batch is reported in parts, and settled by the last of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sqlbuffer._integrity import numbers_of
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_ids, as_rewards
from sqlbuffer.core.add import Known, store_measured
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument, InvalidReward


class Closed(NamedTuple):
    """A batch that was just settled or released."""

    size: int
    clock_before: float
    """Clock of the race before its draw."""
    clock: float
    """Clock of the race after its draw."""


class Claim(NamedTuple):
    """A batch as one draw made it.

    Its number alone would not do: where the database has gone back to an earlier state, another draw may have it.
    """

    batch: int
    drawn_by: str
    drawn_at: dt.datetime

    def parameters(self) -> dict[str, Any]:
        """Return what finds it in statements."""
        return {"batch": self.batch, "drawn_by": self.drawn_by, "drawn_at_time": self.drawn_at}

    def close(self, tx: Transaction, column: str) -> Closed | None:
        """Settle or release it; None where it is closed already, or not there any more."""
        return close(tx, queries.close_claim(column), **self.parameters())

    def find(self, tx: Transaction) -> bool:
        """Tell whether it is in the database, open or closed."""
        return tx.execute(queries.find_claim(), **self.parameters()).one_or_none() is not None


def close(tx: Transaction, statement: Any, **batch: Any) -> Closed | None:
    """Settle or release a batch; None if that was done before."""
    closed = tx.execute(statement, **batch).one_or_none()
    if closed is None:
        return None
    tx.reach(closed.closed_tick)
    with numbers_of("a batch"):
        return Closed(int(closed.size), float(closed.clock_before), float(closed.clock))


@dataclasses.dataclass(frozen=True)
class Reported:
    """Rewards of some samples of a batch, each sample once."""

    known: Known
    places: Ints
    """Where in the batch they are."""
    rewards: Floats

    @property
    def ids(self) -> Ints:
        """Their numbers."""
        return self.known.ids[self.places]

    @classmethod
    def prepare(cls, known: Known, ids: Sequence[int], rewards: Any) -> Reported:
        """Check them; where an id comes twice the later reward counts, unless it is NaN."""
        given = as_ids(ids)
        values = as_rewards(rewards, len(given))
        if None in values:
            raise InvalidReward(
                "a sample cannot be reported with the reward None: give a number, or NaN for a failed measurement."
            )
        place = {number: i for i, number in enumerate(known.ids.tolist())}
        if strangers := set(given) - set(place):
            raise InvalidArgument(
                f"sample {min(strangers)} is not in this batch: give ids of batch.ids."
            )
        last = _last_of_each(given, values)
        places = np.array([place[number] for number in last], dtype=np.int64)
        return cls(known, places, np.array(list(last.values()), dtype=np.float64))


def _last_of_each(ids: Sequence[int], rewards: Sequence[float | None]) -> dict[int, float]:
    """Return the last reward of each sample; a measurement that failed takes the place of none."""
    failed = dict.fromkeys(ids, math.nan)
    pairs = zip(ids, rewards, strict=True)
    return failed | {
        i: reward for i, reward in pairs if reward is not None and not math.isnan(reward)
    }


def report(
    tx: Transaction, *, claim: Claim | None, reported: Reported, may_close: bool = True
) -> int | None:
    """Store rewards of a batch; return how many are still to come, None where the batch was closed before.

    A process that `may_close` nothing, for the claim is another one's, stores the rewards alone.

    What has been reported is no longer queued, so that adding it again requeues it: its further rewards leave that be.
    """
    batch = None if claim is None else claim.batch
    is_ours = may_close and (claim is None or _is_open(tx, claim))
    if not is_ours:
        tx.race_state()  # or say that the buffer is another one by now
    new = _mark(tx, batch, reported.ids) if is_ours and len(reported.places) else []
    is_new = np.isin(reported.ids, new)
    deltas = Counter(settled=len(new))
    for part, stay_queued in ((is_new, not tx.buffer.consumes), (~is_new, True)):
        places, rewards = reported.places[part], reported.rewards[part]
        deltas.update(store_measured(tx, reported.known, places, rewards, stay_queued=stay_queued))
    left = int(tx.execute(queries.unreported(), batch=batch).scalar_one()) if is_ours else None
    if new and not left:
        close(tx, queries.close_batch("settled_at"), batch=batch)
        deltas["iterations"] = 1
    tx.count(**deltas)
    return left


def _is_open(tx: Transaction, claim: Claim) -> bool:
    statement = queries.open_batch(tx.backend)
    return tx.execute(statement, **claim.parameters()).one_or_none() is not None


def _mark(tx: Transaction, batch: int | None, ids: Ints) -> list[int]:
    statement = queries.report_draws(tx.backend)
    columns = {"sample_id": ids.tolist()}
    return list(tx.execute_with(statement, queries.INCOMING_IDS, columns, batch=batch).scalars())
