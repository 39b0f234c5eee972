"""The integrity audit: checks on request what foreign keys and counts would have enforced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sqlbuffer._integrity import numbers_of
from sqlbuffer._messages import n_of, printable, shown
from sqlbuffer._validation import EVICTIONS, LARGEST_INT
from sqlbuffer.core import pool
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.database import Database
from sqlbuffer.db.schema import (
    batches,
    buffers,
    checkpoints,
    draws,
    jobs,
    measurements,
    metrics,
    predictors,
    samples,
    workers,
)
from sqlbuffer.db.schema import pool as pool_table

Tell: TypeAlias = Callable[[str], None]
"""Is called with a text before each part of an audit."""


def _tell_nobody(_: str) -> None:
    pass


def check(tx: Transaction, *, tell: Tell = _tell_nobody) -> list[str]:
    """Return the faults of a buffer, a sentence each; an empty list if it is sound.

    Reads every row of the buffer, and the whole database for faults of the storage.
    """
    tell("storage")
    return [*damage(tx.connection, tx.buffer.database), *check_buffer(tx, tell=tell)]


def damage(connection: sa.Connection, database: Database) -> list[str]:
    """Return the faults of the storage that all buffers share, a sentence each."""
    return list(map(printable, database.dialect.damage(connection)))


def check_buffer(tx: Transaction, *, tell: Tell = _tell_nobody) -> list[str]:
    """Return the faults of the rows of a buffer, without those of the storage, a sentence each."""
    problems: list[str] = []
    tell("types")
    if wrong := wrong_types(tx):
        return wrong  # the other checks compute with these values
    if wrong := _settings(tx):
        return list(map(printable, wrong))
    if not has_ledger(tx):
        return [
            "the ledger of the counters of stale workers is missing: no counter can be computed "
            "without it."
        ]
    for rule in (_counters, _membership, _keys, _weights, _batches, _measurements, _ticks):
        tell(rule.__name__.strip("_"))
        problems += rule(tx)
    return list(map(printable, problems))  # SQLite quotes the names of tables of other programs


_TABLES = (
    buffers,
    samples,
    pool_table,
    batches,
    draws,
    measurements,
    workers,
    predictors,
    jobs,
    checkpoints,
    metrics,
)


def wrong_types(tx: Transaction) -> list[str]:
    """Return the columns with values of another type than theirs, a sentence each."""
    find = tx.backend.wrong_types
    return [
        words
        for table in _TABLES
        for words in find(
            tx.connection, table, queries.audit.rows_of_buffer(table, tx.buffer.buffer_id)
        )
    ]


def _settings(tx: Transaction) -> list[str]:
    """Check the row of the buffer, with whose values the other checks compute."""
    row = tx.own_row(queries.audit.buffer_row())
    known, problems = tx.buffer.settings, []
    for name, ours in (
        ("kind", known.weighting.name),
        ("mode", known.mode),
        ("seed", str(known.seed)),
        ("direction", tx.buffer.direction),
    ):
        if (stored := getattr(row, name)) != ours:
            problems.append(
                f"the buffer is stored with {name} {shown(stored)}, and was opened with "
                f"{shown(ours)}."
            )
    versions = (row.refreshed_version, row.refresh_version, row.score_version)
    if not 0 <= versions[0] <= versions[1] <= versions[2] <= LARGEST_INT:
        problems.append(
            f"the versions of finished refresh, refresh and scores are {versions}, which cannot be."
        )
    newest = tx.execute(queries.predictors.newest_predictor_version()).scalar()
    if newest is not None and newest > row.score_version:
        problems.append(
            f"there is a predictor of version {newest}, but scores have only come to "
            f"{row.score_version}."
        )
    if row.epoch < 0 or (row.max_size is not None and row.max_size < 1):
        problems.append(
            f"the buffer is stored with epoch {row.epoch} and max_size {row.max_size}, which "
            "cannot be."
        )
    if (row.budget or 0) < 0 or (row.max_attempts is not None and row.max_attempts < 1):
        problems.append(
            f"the buffer is stored with budget {row.budget} and max_attempts {row.max_attempts}, "
            "which cannot be."
        )
    if row.evict not in EVICTIONS:
        problems.append(
            f"the buffer is stored with evict {shown(row.evict)}, which is none of "
            f"{', '.join(EVICTIONS)}."
        )
    return problems


def has_ledger(tx: Transaction) -> bool:
    """Return whether the row to which the counters of stale workers are added is there."""
    return tx.execute(queries.workers.ledger()).scalar() is not None


def tallies(tx: Transaction) -> dict[str, tuple[int, int]]:
    """Return each number twice, by name: from the counters, and counted in the tables."""
    totals = tx.execute(queries.buffers.totals()).one()
    waits = tx.execute(queries.audit.pool_counts()).one()
    stored = tx.execute(queries.audit.sample_counts()).one()
    claimed = totals.drawn - totals.released - totals.settled
    return {
        "waiting": (pool.size(tx.buffer, totals), waits.waiting),
        "unscored": (totals.unscored, waits.unscored),
        "unscorable": (totals.unscorable, waits.unscorable),
        "stored": (totals.added + totals.recorded, stored.stored),
        "measured": (totals.measured, stored.measured),
        "failed": (totals.failed, stored.failed),
        "claimed": (claimed, tx.execute(queries.audit.claimed_draws()).scalar_one()),
        "batches drawn": (totals.batches, tx.execute(queries.audit.drawn_batches()).scalar_one()),
    }


def _counters(tx: Transaction) -> list[str]:
    return [
        f"the counters have {n_of(counted, 'sample')} {name}, the tables have {found:,}."
        for name, (counted, found) in tallies(tx).items()
        if counted != found
    ]


class Members(NamedTuple):
    """Ids of samples by place: in the pool, in open batches, and marked as either."""

    waiting: list[int]
    claimed: set[int]
    queued: set[int]


def members(tx: Transaction) -> Members:
    """Return where the samples are; in replay mode claimed samples stay in the pool."""
    return Members(
        list(tx.execute(queries.audit.waiting_ids()).scalars()),
        set(tx.execute(queries.audit.claimed_ids()).scalars()) if tx.buffer.consumes else set(),
        set(tx.execute(queries.audit.queued_ids()).scalars()),
    )


def _membership(tx: Transaction) -> list[str]:
    in_pool, claimed, marked = members(tx)
    waiting = set(in_pool)
    problems = []
    if len(waiting) != len(in_pool):
        n = n_of(len(in_pool) - len(waiting), "sample waits", "samples wait")
        problems.append(f"{n} more than once.")
    if twice := waiting & claimed:
        n = n_of(len(twice), "sample waits and is", "samples wait and are")
        problems.append(f"{n} claimed at once, such as sample {min(twice)}.")
    if lost := marked - waiting - claimed:
        n = n_of(
            len(lost),
            "sample is marked as queued but neither waits nor is claimed",
            "samples are marked as queued but neither wait nor are claimed",
        )
        problems.append(f"{n}, such as {min(lost)}.")
    if extra := (waiting | claimed) - marked:
        n = n_of(
            len(extra),
            "sample waits or is claimed but is not marked as queued",
            "samples wait or are claimed but are not marked as queued",
        )
        problems.append(f"{n}, such as {min(extra)}.")
    if both := tx.execute(queries.audit.evicted_and_queued()).scalar_one():
        n = n_of(both, "sample is", "samples are")
        problems.append(f"{n} marked as evicted and as queued at once.")
    return problems


_KEY_FAULTS = {
    "without_place": "have a weight but no place in the race",
    "without_weight": "stand in the race without a weight",
    "mistied": "have a tie that is not the end of their hash, or one without being top",
    "without_key": "stand at a key that is no number",
    "negative": "have a negative weight",
}
"""Sentences for the columns of `queries.audit.pool_faults`."""


def _keys(tx: Transaction) -> list[str]:
    faults = tx.execute(queries.audit.pool_faults()).one()
    return [
        f"{n} waiting samples {fault}."
        for name, fault in _KEY_FAULTS.items()
        if (n := getattr(faults, name))
    ]


def _weights(tx: Transaction) -> list[str]:
    off = off_weights(tx, tx.rows(queries.audit.pool_weights()))
    problems = [f"{int(off.sum())} weights do not match their scores."] if off.any() else []
    if n := wrong_marks(tx):
        problems.append(f"{n} waiting samples have a wrong mark of the top.")
    return problems


def wrong_marks(tx: Transaction) -> int:
    """Return how many waiting samples have, or lack, the mark of the top against their score."""
    return int(tx.execute(queries.audit.wrong_marks()).scalar_one())


def off_weights(tx: Transaction, rows: Sequence[Any]) -> NDArray[np.bool_]:
    """Return which rows, (n,) bool, have a `weight` that does not match their `score`.

    A row is also off if `ranked`, the pool's copy of the score, is not the score. No row is off
    while a refresh is under way: weights follow when it ends.
    """
    state = tx.own_row(queries.audit.buffer_row())
    if state.refresh_version != state.refreshed_version:
        return np.zeros(len(rows), dtype=np.bool_)
    scores, weights, ranked = (
        pool.as_floats([getattr(row, name) for row in rows])
        for name in ("score", "weight", "ranked")
    )
    weighting = tx.buffer.settings.weighting
    expected = tx.buffer.settings.weights(scores, tx.race_state().base)
    # Sums are exact; the last bits of exponentials and powers depend on the processor.
    allowed = (
        1e-12 * np.abs(expected) if weighting.needs_score and not weighting.needs_base else 0.0
    )
    is_scored = ~np.isnan(weights)
    off: NDArray[np.bool_] = is_scored & ~(np.abs(weights - expected) <= allowed)
    is_ranked = is_scored & (expected > 0.0) & weighting.needs_score
    return off | ~np.where(is_ranked, ranked == scores, np.isnan(ranked))


def _batches(tx: Transaction) -> list[str]:
    problems = [
        f"the number of draws of batch {batch} differs from its size."
        for batch in tx.execute(queries.audit.miscounted_batches()).scalars()
    ]
    if orphans := orphaned_batches(tx):
        problems.append(f"{len(orphans)} open batches belong to workers that do not exist.")
    return problems


def orphaned_batches(tx: Transaction) -> Sequence[int]:
    """Return the open batches of workers that do not exist, the newest first."""
    found: Sequence[int] = tx.execute(queries.audit.orphaned_batches()).scalars().all()
    return found


_MEASUREMENT_FAULTS = {
    "without_sample": "measurements are of samples that do not exist",
    "with_both": "measurements have neither a reward nor an error, or both",
    "unexplained": "samples have failed without an error, or have one without having failed",
    "unkept": "samples have a reward or a failure that no measurement has",
    "unlike_newest": "samples have another reward than their newest measurement",
    "negative_attempts": "samples have a negative number of attempts",
}
"""Sentences for the columns of `queries.audit.measurement_faults`."""


def _measurements(tx: Transaction) -> list[str]:
    faults = tx.execute(queries.audit.measurement_faults()).one()
    return [
        f"{n} {fault}."
        for name, fault in _MEASUREMENT_FAULTS.items()
        if (n := getattr(faults, name))
    ]


def newest_tick(tx: Transaction) -> int:
    """Return the largest logical time in the rows of the buffer, 0 if there is none."""
    with numbers_of(f"a logical time of buffer {tx.buffer.name!r}"):
        return max(int(tick or 0) for tick in tx.execute(queries.audit.newest_ticks()).one())


def counted_tick(tx: Transaction) -> int:
    """Return the largest logical time of the workers of the buffer."""
    return int(tx.execute(queries.buffers.next_tick()).scalar_one()) - 1


def _ticks(tx: Transaction) -> list[str]:
    """Find logical times that lie in the future, or contradict the order of events."""
    problems = []
    if (newest := newest_tick(tx)) > (now := counted_tick(tx)):
        problems.append(
            f"a row has the logical time {newest}, but the workers have only reached {now}."
        )
    if n := tx.execute(queries.audit.early_closed_batches()).scalar_one():
        closed = n_of(n, "batch was closed before it was", "batches were closed before they were")
        problems.append(f"{closed} drawn.")
    if n := tx.execute(queries.audit.early_samples()).scalar_one():
        early = n_of(
            n,
            "sample was scored or measured before it was",
            "samples were scored or measured before they were",
        )
        problems.append(f"{early} stored.")
    return problems
