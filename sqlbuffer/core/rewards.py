"""Store rewards of samples that were drawn, and of samples that never waited."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlbuffer._integrity import tampered
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_list, as_names, as_rewards
from sqlbuffer.core.add import Incoming, incoming
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Columns
from sqlbuffer.errors import InvalidReward
from sqlbuffer.records import AddResult


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Rewards of samples that were not drawn."""

    chunk: Incoming
    """n samples."""
    rewards: Floats
    """(n,) float64; NaN for a failed measurement."""

    @classmethod
    def prepare(
        cls, buffer: BufferHandle, samples: Sequence[Any], rewards: Any, sources: Any = ""
    ) -> Recorded:
        """Check and hash samples with rewards.

        Of equal samples the first one with a reward that is not NaN counts.

        Raises:
            InvalidReward: If a reward is infinite or None, or there is not one for each sample.
        """
        samples = as_list(samples)
        values = as_rewards(rewards, len(samples))
        if any(value is None for value in values):
            raise InvalidReward(
                "a sample cannot be recorded with the reward None: give a number, or NaN for a "
                "failed measurement."
            )
        names = as_names(sources, len(samples), "source")
        if any(value != value for value in values):  # NaN
            order = sorted(range(len(samples)), key=lambda i: values[i] != values[i])
            samples, names = [samples[i] for i in order], [names[i] for i in order]
            values = [values[i] for i in order]
        chunk = incoming(buffer, samples, names)
        return cls(chunk, np.array([values[i] for i in chunk.positions], dtype=np.float64))


def record(tx: Transaction, recorded: Recorded) -> AddResult:
    """Store rewards; new samples are stored and do not wait."""
    chunk = recorded.chunk
    if not chunk.hashes:
        return AddResult(refused=chunk.refused, duplicates=chunk.duplicates)
    deltas = store_by_hash(tx, chunk.columns(tx.buffer), recorded.rewards.tolist())
    tx.count(refused=chunk.refused, **deltas)
    added = deltas["recorded"]
    return AddResult(
        added=added, duplicates=chunk.duplicates + len(chunk.hashes) - added, refused=chunk.refused
    )


class Known(NamedTuple):
    """Samples as this process has read them, as columns of n values; the ids may be out of date."""

    ids: Ints
    hash: Sequence[bytes]
    text: Sequence[str]
    payload: Sequence[bytes | None]
    codec: Sequence[str]
    source: Sequence[str]


def store_measured(
    tx: Transaction,
    known: Known,
    places: Ints,
    rewards: Floats,
    *,
    stay_queued: bool = True,
    of_draws: bool = False,
) -> Counter[str]:
    """Store rewards of m samples, found by id and hash.

    If the database has returned to an earlier state (failover to a lagging standby, restore), the
    id may belong to another sample. Then the sample is found by its hash, or stored again.

    Args:
        tx: A writing transaction.
        known: n samples.
        places: (m,) positions in `known` of the measured samples.
        rewards: (m,) float64; NaN for a failed measurement.
        stay_queued: Leave waiting samples in the queue.
        of_draws: This transaction has found the batch of the samples, so the ids are valid.

    Returns:
        Changes of the counters.
    """
    is_whole = len(places) == len(known.hash)
    hashes = (
        known.hash
        if is_whole and bool((np.diff(places) > 0).all())
        else [known.hash[i] for i in places.tolist()]
    )
    deltas, is_there = store_rewards(
        tx, known.ids[places], hashes, rewards, stay_queued=stay_queued, of_draws=of_draws
    )
    if not is_there.all():
        # In the order of hashes, in which all transactions that add lock samples.
        lost = sorted(np.flatnonzero(~is_there).tolist(), key=hashes.__getitem__)
        columns = {
            name: [getattr(known, name)[i] for i in places[lost].tolist()]
            for name in ("hash", "text", "payload", "codec", "source")
        }
        deltas.update(
            store_by_hash(tx, {**columns, "meta": [None] * len(lost)}, rewards[lost].tolist())
        )
    return deltas


def store_by_hash(tx: Transaction, columns: Columns, rewards: Sequence[float]) -> Counter[str]:
    """Store rewards of samples found by their hash; new samples are stored and do not wait.

    Args:
        tx: A writing transaction.
        columns: Columns of `queries.params.INCOMING_SAMPLES`, n values each.
        rewards: n rewards; NaN for a failed measurement.

    Returns:
        Changes of the counters.
    """
    dialect = tx.backend
    totals = tx.execute(queries.buffers.totals()).one()
    tx.reach(totals.tick)
    moment = {"iteration": totals.iterations, "tick": tx.tick()}
    insert = queries.samples.insert_samples(dialect)
    inserted = tx.execute_each(insert, queries.params.INCOMING_SAMPLES, columns, **moment)
    found = tx.execute_with(
        queries.samples.samples_by_hash(dialect),
        queries.params.INCOMING_HASHES,
        {"hash": columns["hash"]},
    )
    reward_of = dict(zip(columns["hash"], rewards, strict=True))
    rows = [(row.id, row.hash, reward_of[row.hash]) for row in found]
    if inserted < len(rows):
        tx.tick(again=True)  # another transaction may have just stored some of them
    ids, hashes, values = zip(*rows, strict=True) if rows else ((), (), ())
    deltas, is_there = store_rewards(tx, np.array(ids, np.int64), hashes, np.array(values))
    if len(rows) != len(reward_of) or not is_there.all():
        raise tampered(
            "samples that were just stored are missing because a trigger or rule changes the "
            "written rows"
        )
    deltas["recorded"] = inserted
    return deltas


def store_rewards(
    tx: Transaction,
    ids: Ints,
    hashes: Sequence[bytes],
    rewards: Floats,
    *,
    stay_queued: bool = True,
    of_draws: bool = False,
) -> tuple[Counter[str], NDArray[np.bool_]]:
    """Store rewards of samples found by id and hash; a failure does not replace a stored reward.

    Args:
        tx: A writing transaction.
        ids: (n,) int64, ids of the samples.
        hashes: n hashes.
        rewards: (n,) float64; NaN for a failed measurement.
        stay_queued: Leave waiting samples in the queue.
        of_draws: This transaction has found the batch of the samples, so the ids are valid.

    Returns:
        Changes of the counters, and (n,) bool, True for each sample that was found.
    """
    is_there = np.ones(len(ids), dtype=np.bool_)
    if not len(ids):
        return Counter(), is_there
    order = np.argsort(ids)
    values = [None if math.isnan(reward) else reward for reward in rewards[order].tolist()]
    columns = {
        "id": ids[order].tolist(),
        "hash": [hashes[i] for i in order.tolist()],
        "reward": values,
    }
    shape, dialect = queries.params.INCOMING_REWARDS, tx.backend
    build = (
        queries.rewards.store_first_rewards_of_draws
        if of_draws
        else queries.rewards.store_first_rewards
    )
    more: dict[str, Any] = {"stay_queued": stay_queued, "tick": tx.tick()}
    is_first = tx.changed_by_each(build(dialect), shape, columns, **more)
    if all(is_first):
        return _count_rewards(values), is_there
    again = {
        name: [value for value, is_new in zip(column, is_first, strict=True) if not is_new]
        for name, column in columns.items()
    }
    before = tx.execute_with(queries.rewards.measured_before(dialect), shape, again).all()
    tx.execute_each(queries.rewards.store_rewards(dialect), shape, again, **more)
    measured = {row.id for row in before}
    found = [new or i in measured for new, i in zip(is_first, columns["id"], strict=True)]
    deltas = _count_rewards(
        [value for value, is_new in zip(values, is_first, strict=True) if is_new]
    )
    deltas.update(_count_rewards([row.kept for row in before]))
    deltas.subtract(_count_rewards([row.reward for row in before]))
    is_there[order] = found
    return deltas, is_there


def _count_rewards(values: Sequence[float | None]) -> Counter[str]:
    n_failed = values.count(None)
    return Counter(measured=len(values) - n_failed, failed=n_failed)
