"""Store measurements of samples that were drawn, and of samples that never waited."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlbuffer._integrity import require_all, tampered
from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._typing import Ints
from sqlbuffer._validation import as_list, as_names
from sqlbuffer.core.add import Incoming, incoming
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.keys import stored_again
from sqlbuffer.core.late import stop_waiting
from sqlbuffer.core.measured import Known, Measured, Origin
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Columns
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.records import AddResult

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Measurements of samples that were not drawn."""

    chunk: Incoming
    """n samples."""
    measured: Measured
    """n measurements."""

    @classmethod
    def prepare(
        cls,
        buffer: BufferHandle,
        samples: Sequence[Any],
        rewards: Any,
        sources: Any = "",
        *,
        metas: Sequence[str | None] | None = None,
        hashes: Sequence[bytes | None] | None = None,
        **details: Any,
    ) -> Recorded:
        """Check and hash measured samples.

        Of equal samples the first one with a reward that is not NaN counts.

        Args:
            buffer: The buffer.
            samples: n samples.
            rewards: n rewards.
            sources: Name of the generator, or one name for each sample.
            metas: n texts of JSON, None for samples without.
            hashes: See `incoming`.
            details: What else `Measured.prepare` takes.

        Raises:
            InvalidReward: If a reward is infinite, or there is not one for each sample.
        """
        samples = as_list(samples)
        measured = Measured.prepare(rewards, len(samples), **details)
        names = as_names(sources, len(samples), "source")
        order = np.argsort(np.isnan(measured.rewards), kind="stable")
        measured = measured.take(order)
        samples, names = [samples[i] for i in order], [names[i] for i in order]
        metas = None if metas is None else [metas[i] for i in order]
        hashes = None if hashes is None else [hashes[i] for i in order]
        chunk = incoming(buffer, samples, names, metas, hashes=hashes)
        refused_at = tuple(np.sort(order[list(chunk.refused_at)]).tolist())
        chunk = dataclasses.replace(chunk, refused_at=refused_at)
        return cls(chunk, measured.take(np.array(chunk.positions, dtype=np.int64)))

    @classmethod
    def of(cls, buffer: BufferHandle, record: Any) -> Recorded:
        """Check the samples and rewards to store with a batch: `(samples, rewards, sources)`."""
        if not isinstance(record, (tuple, list)) or len(record) != 3:
            raise InvalidArgument(
                f"record must be (samples, rewards, sources), got {shown(record)}."
            )
        return cls.prepare(buffer, *record)


def record(tx: Transaction, recorded: Recorded) -> AddResult:
    """Store measurements; new samples are stored and do not wait."""
    chunk = recorded.chunk
    if not chunk.hashes:
        return AddResult(duplicates=chunk.duplicates, refused_at=chunk.refused_at)
    deltas = _store_by_hash(tx, chunk.columns(tx.buffer), recorded.measured, _Of())
    tx.count(refused=len(chunk.refused_at), **deltas)
    added = deltas["recorded"]
    duplicates = chunk.duplicates + len(chunk.hashes) - added
    return AddResult(added=added, duplicates=duplicates, refused_at=chunk.refused_at)


def store_unmeasured(tx: Transaction, chunk: Incoming) -> None:
    """Store new samples that do not wait: their rewards will be recorded."""
    if chunk.hashes:
        tx.count(recorded=_insert(tx, chunk.columns(tx.buffer)))


class _Of(NamedTuple):
    """What measurements belong to."""

    batch: int | None = None
    objective: str | None = None
    """None: the current one."""
    is_late: bool = False
    """True if the claim had ended: a reward then counts only if the sample has none."""
    has_ids: bool = False
    """True if the ids are valid."""
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
    of = _Of(
        origin.batch,
        objective=origin.objective or None,
        is_late=not origin.is_open,
        requeues=(
            {}
            if origin.is_open or origin.repeats
            else dict(zip(known.hash, known.requeues, strict=False))
        ),
        has_ids=origin.is_open and origin.batch is not None,
    )
    deltas, is_there = _store(tx, known.ids[places], hashes, measured, of, stay_queued=stay_queued)
    if not is_there.all():
        # In the order of hashes, in which all transactions that add lock samples.
        lost = sorted(np.flatnonzero(~is_there).tolist(), key=hashes.__getitem__)
        columns = stored_again(tx.buffer, known, places[lost].tolist())
        deltas.update(_store_by_hash(tx, columns, measured.take(np.array(lost)), of))
    return deltas


def _store_by_hash(tx: Transaction, columns: Columns, measured: Measured, of: _Of) -> Counter[str]:
    """Store measurements of samples found by their hash; new samples are stored and do not wait.

    Args:
        tx: A writing transaction.
        columns: Columns of `queries.samples.incoming_samples`, n values each.
        measured: n measurements.
        of: What they belong to.

    Returns:
        Changes of the counters.
    """
    inserted, hashes = _insert(tx, columns), list(columns["hash"])
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
    deltas["recorded"] = inserted
    return deltas


def _insert(tx: Transaction, columns: Columns) -> int:
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
    of: _Of,
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
        "reward": [None if math.isnan(reward) else reward for reward in measured.rewards.tolist()],
        "error": measured.errors,
    }
    store = _store_late if of.is_late else _store_current
    deltas, found = store(tx, columns, of, stay_queued=stay_queued)
    _keep(tx, columns["id"], columns["reward"], measured, of, found)
    is_there[order] = found
    return deltas, is_there


def _store_current(
    tx: Transaction, columns: dict[str, Any], of: _Of, *, stay_queued: bool
) -> tuple[Counter[str], list[bool]]:
    """Make rewards the samples' own; a failure does not replace a stored reward."""
    shape, dialect = queries.params.INCOMING_REWARDS, tx.backend
    build = (
        queries.rewards.store_first_rewards_of_draws
        if of.has_ids
        else queries.rewards.store_first_rewards
    )
    more: dict[str, Any] = {"stay_queued": stay_queued, "tick": tx.tick()}
    is_first = tx.changed_by_each(build(dialect), shape, columns, **more)
    if all(is_first):
        return _count_rewards(columns["reward"]), is_first
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
    return deltas, found


def _store_late(
    tx: Transaction, columns: dict[str, Any], of: _Of, *, stay_queued: bool
) -> tuple[Counter[str], list[bool]]:
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
        return Counter(), found
    deltas, _ = _store_current(tx, current, of, stay_queued=stay_queued)
    stop_waiting(tx, current["id"], of.requeues)
    return deltas, found


def _keep(
    tx: Transaction,
    ids: Sequence[int],
    rewards: Sequence[float | None],
    measured: Measured,
    of: _Of,
    found: Sequence[bool],
) -> None:
    """Append the measurements of the samples that were found."""
    columns = {
        "sample_id": ids,
        "reward": rewards,
        "error": measured.errors,
        "seconds": measured.seconds,
        "details": measured.details,
    }
    if not all(found):
        columns = _chosen(columns, found)
    objective = of.objective or tx.own_row(queries.buffers.objective()).objective
    n_kept = tx.execute_each(
        queries.measurements.insert_measurements(tx.backend),
        queries.params.INCOMING_MEASUREMENTS,
        columns,
        batch=of.batch,
        worker=worker_id(),
        objective=objective,
        tick=tx.tick(),
    )
    require_all(n_kept, len(columns["sample_id"]), "measurements were stored")


def _chosen(columns: dict[str, Any], is_chosen: Sequence[bool]) -> dict[str, Any]:
    return {
        name: [value for value, chosen in zip(column, is_chosen, strict=True) if chosen]
        for name, column in columns.items()
    }


def _count_rewards(values: Sequence[float | None]) -> Counter[str]:
    n_failed = values.count(None)
    return Counter(measured=len(values) - n_failed, failed=n_failed)
