"""Report rewards of a batch one by one or in parts; the last one settles the batch."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_ids, as_rewards
from sqlbuffer.core.claim import Claim, close
from sqlbuffer.core.rewards import Known, store_measured
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument, InvalidReward


@dataclasses.dataclass(frozen=True)
class Reported:
    """Rewards of m samples of a batch, each sample once."""

    known: Known
    places: Ints
    """(m,) positions of the samples in the batch."""
    rewards: Floats
    """(m,) rewards; NaN for a failed measurement."""

    @property
    def ids(self) -> Ints:
        """(m,) ids of the samples."""
        return self.known.ids[self.places]

    @classmethod
    def prepare(cls, known: Known, ids: Sequence[int], rewards: Any) -> Reported:
        """Check ids and rewards; if an id is given twice, the later reward that is not NaN counts.

        Args:
            known: The samples of the batch.
            ids: Ids of samples of the batch.
            rewards: One reward for each id.

        Raises:
            InvalidArgument: If an id is not in the batch.
            InvalidReward: If a reward is infinite or None, or there is not one for each id.
        """
        given = as_ids(ids)
        values = as_rewards(rewards, len(given))
        if None in values:
            raise InvalidReward(
                "a sample cannot be reported with the reward None: give a number, or NaN for a "
                "failed measurement."
            )
        place = {number: i for i, number in enumerate(known.ids.tolist())}
        if unknown := set(given) - set(place):
            raise InvalidArgument(
                f"sample {min(unknown)} is not in this batch: give ids of batch.ids."
            )
        last = _last_of_each(given, values)
        places = np.array([place[number] for number in last], dtype=np.int64)
        return cls(known, places, np.array(list(last.values()), dtype=np.float64))


def _last_of_each(ids: Sequence[int], rewards: Sequence[float | None]) -> dict[int, float]:
    """Return the last reward of each sample, NaN if all of its measurements failed."""
    failed = dict.fromkeys(ids, math.nan)
    pairs = zip(ids, rewards, strict=True)
    return failed | {
        i: reward for i, reward in pairs if reward is not None and not math.isnan(reward)
    }


def report(
    tx: Transaction, *, claim: Claim | None, reported: Reported, may_close: bool = True
) -> int | None:
    """Store rewards of a batch, and settle it with the last one.

    A sample leaves the queue with its first report, so that adding it again requeues it. Its later
    reports leave the queue as it is.

    Args:
        tx: A writing transaction.
        claim: The claim of the batch; None for an empty batch.
        reported: The rewards.
        may_close: False if the claim belongs to another process: only store the rewards.

    Returns:
        The number of samples without a report; None if the batch was closed before.
    """
    batch = None if claim is None else claim.batch
    is_ours = may_close and (claim is None or _is_open(tx, claim))
    if not is_ours:
        tx.race_state()  # raises if the buffer is gone
    new = _mark(tx, batch, reported.ids) if is_ours and len(reported.places) else []
    is_new = np.isin(reported.ids, new)
    deltas = Counter(settled=len(new))
    for part, stay_queued in ((is_new, not tx.buffer.consumes), (~is_new, True)):
        places, rewards = reported.places[part], reported.rewards[part]
        deltas.update(store_measured(tx, reported.known, places, rewards, stay_queued=stay_queued))
    left = (
        int(tx.execute(queries.batches.unreported(), batch=batch).scalar_one()) if is_ours else None
    )
    if new and not left:
        close(tx, queries.batches.close_batch("settled_at"), batch=batch)
        deltas["iterations"] = 1
    tx.count(**deltas)
    return left


def _is_open(tx: Transaction, claim: Claim) -> bool:
    statement = queries.batches.open_batch(tx.backend)
    return tx.execute(statement, **claim.parameters()).one_or_none() is not None


def _mark(tx: Transaction, batch: int | None, ids: Ints) -> list[int]:
    statement = queries.batches.report_draws(tx.backend)
    columns = {"sample_id": ids.tolist()}
    return list(
        tx.execute_with(statement, queries.params.INCOMING_IDS, columns, batch=batch).scalars()
    )
