"""Store measurements of samples: those of a batch, or found by their hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlbuffer._integrity import require_all, tampered
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core.keys import stored_again
from sqlbuffer.core.late import stop_waiting
from sqlbuffer.core.measured import Known, Measured, Origin
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Columns

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Of(NamedTuple):
    """What measurements belong to."""

    batch: int | None = None
    objective: str | None = None
    """None: the current one."""
    is_late: bool = False
    """True if the claim had ended: a reward then counts only if the sample has none."""
    has_ids: bool = False
    """True if the ids are valid."""
    is_whole: bool = False
    """True if these are the measurements of all samples of the batch."""
    requeues: Mapping[bytes, int] = {}
    """See `late.stop_waiting`; samples that are not there keep waiting."""


def store_measured(
    tx: Transaction,
    known: Known,
    places: Ints,
    measured: Measured,
    *,
    origin: Origin,
    stay_queued: bool = True,
) -> Counter[str]:
    """Store measurements of m samples of a batch, found by id and hash.

    If the database has returned to an earlier state (failover to a lagging standby, restore), the
    id may belong to another sample. Then the sample is found by its hash, or stored again.

    Args:
        tx: A writing transaction.
        known: n samples.
        places: (m,) positions in `known` of the measured samples.
        measured: m measurements.
        origin: The batch of the samples. If it is not open, the measurements are late: they are
            stored, and a reward counts as the sample's only if the sample has none.
        stay_queued: Leave waiting samples in the queue.

    Returns:
        Changes of the counters.
    """
    is_whole = len(places) == len(known.hash)
    hashes = (
        known.hash
        if is_whole and bool((np.diff(places) > 0).all())
        else [known.hash[i] for i in places.tolist()]
    )
    of = Of(
        origin.batch,
        objective=origin.objective or None,
        is_late=not origin.is_open,
        requeues=(
            {}
            if origin.is_open or origin.repeats
            else dict(zip(known.hash, known.requeues, strict=False))
        ),
        has_ids=origin.is_open and origin.batch is not None,
        is_whole=is_whole,
    )
    deltas, is_there = _store(tx, known.ids[places], hashes, measured, of, stay_queued=stay_queued)
    if not is_there.all():
        # In the order of hashes, in which all transactions that add lock samples.
        lost = sorted(np.flatnonzero(~is_there).tolist(), key=hashes.__getitem__)
        columns = stored_again(tx.buffer, known, places[lost].tolist())
        deltas.update(store_by_hash(tx, columns, measured.take(np.array(lost)), of))
    return deltas


def store_by_hash(tx: Transaction, columns: Columns, measured: Measured, of: Of) -> Counter[str]:
    """Store measurements of samples found by their hash; new samples are stored and do not wait.

    Args:
        tx: A writing transaction.
        columns: Columns of `queries.samples.incoming_samples`, n values each.
        measured: n measurements.
        of: What they belong to.

    Returns:
        Changes of the counters.
    """
    inserted = insert(tx, columns)
    deltas = store_stored(tx, list(columns["hash"]), measured, of, inserted)
    deltas["recorded"] = inserted
    return deltas


def store_stored(
    tx: Transaction, hashes: Sequence[bytes], measured: Measured, of: Of, inserted: int = 0
) -> Counter[str]:
    """`store_by_hash` of stored samples, of which this transaction has just inserted some."""
    statement = queries.samples.samples_by_hash(tx.backend)
    found = tx.execute_with(statement, queries.params.INCOMING_HASHES, {"hash": hashes})
    id_of = {row.hash: row.id for row in found}
    if inserted < len(id_of):
        tx.tick(again=True)  # another transaction may have just stored some of them
    ids = np.array([id_of.get(digest, -1) for digest in hashes], np.int64)
    deltas, is_there = _store(tx, ids, hashes, measured, of._replace(has_ids=False))
    if not is_there.all():
        raise tampered(
            "samples that were just stored are missing because a trigger or rule changes the "
            "written rows"
        )
    return deltas


def insert(tx: Transaction, columns: Columns) -> int:
    """Insert the samples that are not stored yet; return how many."""
    totals, keyed = tx.execute(queries.buffers.totals()).one(), tx.buffer.keep_key
    tx.reach(totals.tick)
    statement = queries.samples.insert_samples(tx.backend, keyed=keyed)
    moment = {"iteration": totals.iterations, "tick": tx.tick()}
    shape = queries.samples.incoming_samples(keyed=keyed)
    return tx.execute_each(statement, shape, columns, **moment)


def _store(
    tx: Transaction,
    ids: Ints,
    hashes: Sequence[bytes],
    measured: Measured,
    of: Of,
    *,
    stay_queued: bool = True,
) -> tuple[Counter[str], NDArray[np.bool_]]:
    """Store measurements of samples found by id and hash.

    Args:
        tx: A writing transaction.
        ids: (n,) int64, ids of the samples.
        hashes: n hashes.
        measured: n measurements.
        of: What they belong to.
        stay_queued: Leave waiting samples in the queue.

    Returns:
        Changes of the counters, and (n,) bool, True for each sample that was found.
    """
    is_there = np.ones(len(ids), dtype=np.bool_)
    if not len(ids):
        return Counter(), is_there
    order = np.argsort(ids)
    measured = measured.take(order)
    columns = {
        "id": ids[order].tolist(),
        "hash": [hashes[i] for i in order.tolist()],
        "reward": _stored(measured.rewards),
        "error": measured.errors,
    }
    store = _store_late if of.is_late else _store_current
    deltas, found, are_first = store(tx, columns, of, stay_queued=stay_queued)
    if are_first and of.is_whole and of.has_ids and measured.has_only_rewards:
        keep_of_batch(tx, len(ids), of.batch, of.objective)
        return deltas, is_there
    kept = {
        "sample_id": columns["id"],
        "reward": columns["reward"],
        "error": measured.errors,
        "seconds": measured.seconds,
        "details": measured.details,
    }
    keep(tx, kept if all(found) else _chosen(kept, found), of.batch, of.objective)
    is_there[order] = found
    return deltas, is_there


def _stored(rewards: Floats) -> list[float | None]:
    """Return rewards as the database stores them: None for NaN."""
    values: list[float | None] = rewards.tolist()
    for failed in np.flatnonzero(np.isnan(rewards)).tolist():
        values[failed] = None
    return values


def _store_current(
    tx: Transaction, columns: dict[str, Any], of: Of, *, stay_queued: bool
) -> tuple[Counter[str], list[bool], bool]:
    """Make rewards the samples' own; a failure does not replace a stored reward.

    Returns:
        Changes of the counters; for each sample, whether it was found; and whether all were found
        and none had been measured before.
    """
    shape, dialect = queries.params.INCOMING_REWARDS, tx.backend
    build = (
        queries.rewards.store_first_rewards_of_draws
        if of.has_ids
        else queries.rewards.store_first_rewards
    )
    more: dict[str, Any] = {"stay_queued": stay_queued, "tick": tx.tick()}
    is_first = tx.changed_by_each(build(dialect), shape, columns, **more)
    if all(is_first):
        return _count_rewards(columns["reward"]), is_first, True
    again = _chosen(columns, [not is_new for is_new in is_first])
    before = tx.execute_with(queries.rewards.measured_before(dialect), shape, again).all()
    tx.execute_each(queries.rewards.store_rewards(dialect), shape, again, **more)
    measured = {row.id for row in before}
    found = [new or i in measured for new, i in zip(is_first, columns["id"], strict=True)]
    deltas = _count_rewards(_chosen(columns, is_first)["reward"])
    deltas.update(_count_rewards([row.kept for row in before]))
    # A retry may have taken back the failure that the first statement found.
    counted = [row.reward for row in before if row.rewarded_at is not None]
    deltas.subtract(_count_rewards(counted))
    return deltas, found, False


def _store_late(
    tx: Transaction, columns: dict[str, Any], of: Of, *, stay_queued: bool
) -> tuple[Counter[str], list[bool], bool]:
    """Make late rewards the samples' own if these have none, and if the objective is the same."""
    is_same = of.objective in (None, tx.execute(queries.buffers.objective()).scalar())
    before = tx.execute_with(
        queries.rewards.measured_before(tx.backend), queries.params.INCOMING_REWARDS, columns
    ).all()
    stored = {row.id: row.reward for row in before}
    found = [i in stored for i in columns["id"]]
    counts = [
        is_same and is_there and reward is not None and stored[i] is None
        for i, reward, is_there in zip(columns["id"], columns["reward"], found, strict=True)
    ]
    current = _chosen(columns, counts)
    if not current["id"]:
        return Counter(), found, False
    deltas, *_ = _store_current(tx, current, of, stay_queued=stay_queued)
    stop_waiting(tx, current["id"], of.requeues)
    return deltas, found, False


def keep(tx: Transaction, columns: Columns, batch: int | None, objective: str | None) -> None:
    """Append measurements, with the columns of `params.INCOMING_MEASUREMENTS`.

    Args:
        tx: A writing transaction.
        columns: The measurements.
        batch: The batch that the samples were drawn in; None if they were not drawn.
        objective: Their objective; None for the current one.
    """
    statement = queries.measurements.insert_measurements(tx.backend)
    shape, more = queries.params.INCOMING_MEASUREMENTS, _of_all(tx, batch, objective)
    n_kept = tx.execute_each(statement, shape, columns, **more)
    require_all(n_kept, len(columns["sample_id"]), _KEPT)


def keep_of_batch(tx: Transaction, n: int, batch: int | None, objective: str | None) -> None:
    """`keep` the rewards and failures that this transaction has given to all n samples of a batch.

    For a whole batch without seconds and details, which the database then reads from its own rows.
    """
    statement = queries.measurements.insert_measurements_of_batch()
    n_kept = tx.execute(statement, **_of_all(tx, batch, objective)).rowcount
    require_all(n_kept, n, _KEPT)


_KEPT = "measurements were stored"


def _of_all(tx: Transaction, batch: int | None, objective: str | None) -> dict[str, Any]:
    return {
        "batch": batch,
        "worker": worker_id(),
        "objective": objective or tx.own_row(queries.buffers.objective()).objective,
        "tick": tx.tick(),
    }


def _chosen(columns: dict[str, Any], is_chosen: Sequence[bool]) -> dict[str, Any]:
    return {
        name: [value for value, chosen in zip(column, is_chosen, strict=True) if chosen]
        for name, column in columns.items()
    }


def _count_rewards(values: Sequence[float | None]) -> Counter[str]:
    n_failed = values.count(None)
    return Counter(measured=len(values) - n_failed, failed=n_failed)
