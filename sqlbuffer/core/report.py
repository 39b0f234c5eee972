"""Report rewards of a batch one by one or in parts; the last one settles the batch."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlbuffer._numpy import np
from sqlbuffer._typing import Ints
from sqlbuffer._validation import as_ids
from sqlbuffer.core.claim import Claim, close
from sqlbuffer.core.measured import Known, Measured, Origin
from sqlbuffer.core.rewards import store_measured
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument


@dataclasses.dataclass(frozen=True)
class Reported:
    """Measurements of m samples of a batch, each sample once."""

    known: Known
    places: Ints
    """(m,) positions of the samples in the batch."""
    measured: Measured
    """m measurements."""

    @property
    def ids(self) -> Ints:
        """(m,) ids of the samples."""
        return self.known.ids[self.places]

    def take(self, chosen: Ints) -> Reported:
        """Return the measurements at some of the m positions."""
        return Reported(self.known, self.places[chosen], self.measured.take(chosen))

    def without(self, rewards: Mapping[int, float]) -> Reported:
        """Return the measurements without those that are known, by id; NaN adds nothing to them."""
        if not rewards:
            return self
        rows = zip(self.ids.tolist(), self.measured.rewards.tolist(), strict=True)
        is_new = [
            number not in rewards or not (math.isnan(reward) or reward == rewards[number])
            for number, reward in rows
        ]
        return self.take(np.flatnonzero(is_new))

    @classmethod
    def prepare(cls, known: Known, ids: Sequence[int], rewards: Any, **details: Any) -> Reported:
        """Check ids and rewards.

        Args:
            known: The samples of the batch.
            ids: Ids of samples of the batch.
            rewards: One reward for each id.
            details: What else `Measured.prepare` takes.

        Raises:
            InvalidArgument: If an id is not in the batch, or is given twice.
            InvalidReward: If a reward is infinite, or there is not one for each id.
        """
        given = as_ids(ids)
        measured = Measured.prepare(rewards, len(given), **details)
        place = {number: i for i, number in enumerate(known.ids.tolist())}
        if unknown := set(given) - set(place):
            raise InvalidArgument(
                f"sample {min(unknown)} is not in this batch: give ids of batch.ids."
            )
        if len(set(given)) < len(given):
            number, n = Counter(given).most_common(1)[0]
            raise InvalidArgument(
                f"sample {number} is given {n} times: report each of its measurements in a call of "
                "its own, so that all are kept."
            )
        places = np.array([place[number] for number in given], dtype=np.int64)
        return cls(known, places, measured)


def report(
    tx: Transaction,
    *,
    claim: Claim | None,
    reported: Reported,
    origin: Origin,
    closes: bool,
    advances: bool = True,
) -> int | None:
    """Store measurements of a batch; with `closes`, settle it with the last one.

    A sample leaves the queue with its first report, so that adding it with `requeue=True` puts it
    back. Its later reports leave the queue as it is.

    Args:
        tx: A writing transaction.
        claim: The claim of the batch; None for an empty batch.
        reported: The measurements.
        origin: The batch as the process knows it. If the batch is not open, or if the claim belongs
            to another process, the measurements are stored as late ones, and nothing else.
        closes: Settle the samples, and with the last one the batch. False: they stay claimed.
        advances: A batch that is settled is an iteration.

    Returns:
        The number of samples without a report; None if the batch was closed before.
    """
    batch = origin.batch
    is_ours = origin.is_open and (claim is None or claim.lock(tx))
    if not is_ours:
        tx.lock_race()  # for samples that stop waiting; raises if the buffer is gone
    marks = closes and is_ours and len(reported.places)
    new = _mark(tx, batch, reported.ids) if marks else []
    is_new = np.isin(reported.ids, new)
    deltas = Counter(settled=len(new))
    origin = origin._replace(is_open=is_ours, repeats=origin.repeats or not closes)
    for part, stay_queued in ((is_new, not tx.buffer.consumes), (~is_new, True)):
        places, measured = reported.places[part], reported.measured.take(np.flatnonzero(part))
        deltas.update(
            store_measured(
                tx, reported.known, places, measured, origin=origin, stay_queued=stay_queued
            )
        )
    left = (
        int(tx.execute(queries.batches.unreported(), batch=batch).scalar_one()) if is_ours else None
    )
    if new and not left:
        close(tx, queries.batches.close_batch("settled_at"), batch=batch)
        deltas["iterations"] = int(advances)
    tx.count(**deltas)
    return left


def _mark(tx: Transaction, batch: int | None, ids: Ints) -> list[int]:
    statement = queries.batches.report_draws(tx.backend)
    columns = {"sample_id": ids.tolist()}
    return list(
        tx.execute_with(statement, queries.params.INCOMING_IDS, columns, batch=batch).scalars()
    )
