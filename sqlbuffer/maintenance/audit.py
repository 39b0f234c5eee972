"""The integrity audit: what foreign keys and counts would have enforced, checked when a process asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sqlbuffer._integrity import numbers_of
from sqlbuffer._messages import printable, shown
from sqlbuffer._validation import LARGEST_INT
from sqlbuffer.core import pool
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import LEDGER
from sqlbuffer.db import queries
from sqlbuffer.db.database import Database
from sqlbuffer.db.schema import (
    batches,
    buffers,
    checkpoints,
    draws,
    jobs,
    metrics,
    predictors,
    samples,
    workers,
)
from sqlbuffer.db.schema import pool as pool_table


def check(tx: Transaction) -> list[str]:
    """Return what is wrong with a buffer, one sentence each; nothing when it is sound. Reads every row.

    What is wrong with the storage is said too, for which the whole database is read.
    """
    return [*damage(tx.connection, tx.buffer.database), *check_buffer(tx)]


def damage(connection: sa.Connection, database: Database) -> list[str]:
    """Return what is wrong with the storage that all buffers share, one sentence each."""
    return list(map(printable, database.dialect.damage(connection)))


def check_buffer(tx: Transaction) -> list[str]:
    """Return what is wrong with the rows of a buffer, whatever the storage that all buffers share is like."""
    problems: list[str] = []
    if wrong := wrong_types(tx):
        return wrong  # what else there may be is reckoned from these
    if wrong := _settings(tx):
        return list(map(printable, wrong))
    if not has_ledger(tx):
        return [
            "the ledger of the counters of dead workers is missing: no counter can be computed without it."
        ]
    for rule in (_counters, _membership, _keys, _weights, _batches, _ticks):
        problems += rule(tx)
    return list(map(printable, problems))  # SQLite names what a stranger has called a table


def of_buffer(buffer: BufferHandle, table: sa.Table) -> sa.ColumnElement[bool]:
    """Return which rows of a table are those of a buffer."""
    if table is buffers:
        return buffers.c.id == buffer.buffer_id
    if table is draws:
        return draws.c.batch_id.in_(
            sa.select(batches.c.id).where(batches.c.buffer_id == buffer.buffer_id)
        )
    return table.c.buffer_id == buffer.buffer_id


_TABLES = (
    buffers,
    samples,
    pool_table,
    batches,
    draws,
    workers,
    predictors,
    jobs,
    checkpoints,
    metrics,
)


def wrong_types(tx: Transaction) -> list[str]:
    """Return what of a buffer is stored as another type than its column has, one sentence for each column."""
    find = tx.backend.wrong_types
    return [
        words
        for table in _TABLES
        for words in find(tx.connection, table, of_buffer(tx.buffer, table))
    ]


def _settings(tx: Transaction) -> list[str]:
    """Find what the row of the buffer says and cannot be; what else is checked is reckoned from it."""
    row = tx.own_row(sa.select(buffers).where(of_buffer(tx.buffer, buffers)))
    known, problems = tx.buffer.settings, []
    for name, ours in (
        ("kind", known.weighting.name),
        ("mode", known.mode),
        ("seed", str(known.seed)),
    ):
        if (stored := getattr(row, name)) != ours:
            problems.append(
                f"the buffer is stored with {name} {shown(stored)}, and was opened with {shown(ours)}."
            )
    versions = (row.refreshed_version, row.refresh_version, row.score_version)
    if not 0 <= versions[0] <= versions[1] <= versions[2] <= LARGEST_INT:
        problems.append(
            f"the versions of finished refresh, refresh and scores are {versions}, which cannot be."
        )
    newest = tx.connection.scalar(
        sa.select(sa.func.max(predictors.c.version)).where(
            predictors.c.buffer_id == tx.buffer.buffer_id
        )
    )
    if newest is not None and newest > row.score_version:
        problems.append(
            f"there is a predictor of version {newest}, but scores have only come to {row.score_version}."
        )
    if row.epoch < 0 or (row.max_size is not None and row.max_size < 1):
        problems.append(
            f"the buffer is stored with epoch {row.epoch} and max_size {row.max_size}, which cannot be."
        )
    return problems


def _count(connection: sa.Connection, *conditions: Any) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).where(*conditions)) or 0)


def has_ledger(tx: Transaction) -> bool:
    """Tell whether the row to which the counters of the dead are added is there."""
    return (
        _count(tx.connection, workers.c.buffer_id == tx.buffer.buffer_id, workers.c.id == LEDGER)
        == 1
    )


def tallies(tx: Transaction) -> dict[str, tuple[int, int]]:
    """Return what is counted, each as (what the counters say, what the tables have)."""
    totals = tx.execute(queries.totals()).one()
    ours, waits = (
        samples.c.buffer_id == tx.buffer.buffer_id,
        pool_table.c.buffer_id == tx.buffer.buffer_id,
    )
    is_open = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
    in_part = sa.exists().where(draws.c.batch_id == batches.c.id, draws.c.reported)
    return {
        "waiting": (pool.size(tx.buffer, totals), _count(tx.connection, waits)),
        "unscored": (totals.unscored, _count(tx.connection, waits, pool_table.c.weight.is_(None))),
        "unscorable": (totals.unscorable, _count(tx.connection, waits, pool_table.c.weight == 0.0)),
        "stored": (totals.added + totals.recorded, _count(tx.connection, ours)),
        "measured": (totals.measured, _count(tx.connection, ours, samples.c.reward.is_not(None))),
        "failed": (
            totals.failed,
            _count(
                tx.connection, ours, samples.c.reward.is_(None), samples.c.rewarded_at.is_not(None)
            ),
        ),
        "claimed": (
            totals.drawn - totals.released - totals.settled,
            _count(
                tx.connection,
                batches.c.buffer_id == tx.buffer.buffer_id,
                draws.c.batch_id == batches.c.id,
                ~draws.c.reported,
                is_open,
            ),
        ),
        "batches drawn": (
            totals.batches,
            _count(
                tx.connection,
                batches.c.buffer_id == tx.buffer.buffer_id,
                sa.or_(batches.c.released_at.is_(None), in_part),
            ),
        ),
    }


def _counters(tx: Transaction) -> list[str]:
    return [
        f"the counters have {counted} samples {name}, the tables have {found}."
        for name, (counted, found) in tallies(tx).items()
        if counted != found
    ]


class Members(NamedTuple):
    """Where the samples of a buffer are: ids that wait, are claimed, and are marked as either."""

    waiting: list[int]
    claimed: set[int]
    queued: set[int]


def members(tx: Transaction) -> Members:
    """Find out where the samples are. Those claimed in replay mode go on waiting, and count as waiting only."""
    waiting = sa.select(pool_table.c.sample_id).where(pool_table.c.buffer_id == tx.buffer.buffer_id)
    claimed = (
        sa.select(draws.c.sample_id)
        .join_from(draws, batches, batches.c.id == draws.c.batch_id)
        .where(batches.c.buffer_id == tx.buffer.buffer_id)
        .where(batches.c.settled_at.is_(None), batches.c.released_at.is_(None), ~draws.c.reported)
    )
    queued = sa.select(samples.c.id).where(
        samples.c.buffer_id == tx.buffer.buffer_id, samples.c.queued
    )
    return Members(
        list(tx.connection.scalars(waiting)),
        set(tx.connection.scalars(claimed)) if tx.buffer.consumes else set(),
        set(tx.connection.scalars(queued)),
    )


def _membership(tx: Transaction) -> list[str]:
    in_pool, claimed, marked = members(tx)
    waiting = set(in_pool)
    problems = []
    if len(waiting) != len(in_pool):
        problems.append(f"{len(in_pool) - len(waiting)} samples wait more than once.")
    if twice := waiting & claimed:
        problems.append(
            f"{len(twice)} samples wait and are claimed at once, such as sample {min(twice)}."
        )
    if lost := marked - waiting - claimed:
        problems.append(
            f"{len(lost)} samples are marked as queued but neither wait nor are claimed, such as {min(lost)}."
        )
    if extra := (waiting | claimed) - marked:
        problems.append(
            f"{len(extra)} samples wait or are claimed but are not marked as queued, such as {min(extra)}."
        )
    return problems


def _keys(tx: Transaction) -> list[str]:
    waits = pool_table.c.buffer_id == tx.buffer.buffer_id
    never = pool_table.c.race_key == queries.NEVER
    weightless = sa.or_(pool_table.c.weight.is_(None), pool_table.c.weight == 0.0)
    problems = []
    if n := _count(tx.connection, waits, never, ~weightless):
        problems.append(f"{n} waiting samples have a weight but no place in the race.")
    if n := _count(tx.connection, waits, ~never, weightless):
        problems.append(f"{n} waiting samples stand in the race without a weight.")
    if n := _count(tx.connection, waits, is_mistied()):
        problems.append(
            f"{n} waiting samples have a tie that is not the end of their hash, or one without being top."
        )
    # NaN is beyond infinity in PostgreSQL; SQLite has none.
    if n := _count(
        tx.connection,
        waits,
        sa.or_(pool_table.c.race_key == -math.inf, pool_table.c.race_key > math.inf),
    ):
        problems.append(f"{n} waiting samples stand at a key that is no number.")
    if n := _count(tx.connection, waits, pool_table.c.weight < 0.0):
        problems.append(f"{n} waiting samples have a negative weight.")
    return problems


def is_mistied() -> sa.ColumnElement[bool]:
    """Return the condition that a row of the pool has another tie than is due to it."""
    return pool_table.c.tie.is_distinct_from(
        queries.tie_of(pool_table.c.top, pool_table.c.sample_id)
    )


def _weights(tx: Transaction) -> list[str]:
    rows = tx.connection.execute(
        sa.select(pool_table.c.weight, samples.c.score, pool_table.c.score.label("ranked"))
        .join_from(pool_table, samples, samples.c.id == pool_table.c.sample_id)
        .where(pool_table.c.buffer_id == tx.buffer.buffer_id)
        .where(pool_table.c.weight.is_not(None))
    ).all()
    off = off_weights(tx, rows)
    problems = [f"{int(off.sum())} weights do not match their scores."] if off.any() else []
    if n := mismarked(tx):
        problems.append(f"{n} waiting samples have a wrong mark of the top.")
    return problems


def mismarked(tx: Transaction) -> int:
    """Return how many waiting samples have a mark of the top that their score does not say, or lack it."""
    least = buffers.c.top_score  # NULL: what marks there are mean nothing
    is_top = sa.and_(
        pool_table.c.weight > 0.0, sa.or_(least == -math.inf, pool_table.c.score >= least)
    )
    of_this = (buffers.c.id == tx.buffer.buffer_id, pool_table.c.buffer_id == buffers.c.id)
    return _count(tx.connection, *of_this, least.is_not(None), pool_table.c.top != is_top)


def off_weights(tx: Transaction, rows: Sequence[Any]) -> NDArray[np.bool_]:
    """Tell which rows have a `weight`, or a score in the pool, `ranked`, that is not that of the `score`."""
    state = tx.own_row(sa.select(buffers).where(of_buffer(tx.buffer, buffers)))
    if state.refresh_version != state.refreshed_version:
        return np.zeros(
            len(rows), dtype=np.bool_
        )  # a refresh is under way: weights follow when it ends
    scores, weights, ranked = (
        pool.as_floats([getattr(row, name) for row in rows])
        for name in ("score", "weight", "ranked")
    )
    weighting = tx.buffer.settings.weighting
    expected = tx.buffer.settings.weights(scores, tx.race_state().base)
    # Sums are the same everywhere; the last bits of exponentials and powers depend on the processor.
    allowed = (
        1e-12 * np.abs(expected) if weighting.needs_score and not weighting.needs_base else 0.0
    )
    is_scored = ~np.isnan(weights)
    off: NDArray[np.bool_] = is_scored & ~(np.abs(weights - expected) <= allowed)
    is_ranked = is_scored & (expected > 0.0) & weighting.needs_score
    return off | ~np.where(is_ranked, ranked == scores, np.isnan(ranked))


def _batches(tx: Transaction) -> list[str]:
    counted = (
        sa.select(batches.c.id)
        .outerjoin_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == tx.buffer.buffer_id)
        .group_by(batches.c.id, batches.c.size)
        .having(sa.func.count(draws.c.sample_id) != batches.c.size)
    )
    problems = [
        f"the number of draws of batch {batch} differs from its size."
        for batch in tx.connection.scalars(counted)
    ]
    if strangers := tx.connection.scalars(orphans(tx.buffer)).all():
        problems.append(f"{len(strangers)} open batches belong to workers that do not exist.")
    return problems


def newest_tick(tx: Transaction) -> int:
    """Return the largest tick that stands in a row of the buffer, 0 where none does."""
    largest = [
        sa.select(sa.func.max(column))
        .where(column.table.c.buffer_id == tx.buffer.buffer_id)
        .scalar_subquery()
        for column in (
            *(samples.c.created_tick, samples.c.scored_tick, samples.c.rewarded_tick),
            *(batches.c.drawn_tick, batches.c.closed_tick, predictors.c.trained_tick),
        )
    ]
    with numbers_of(f"a logical time of buffer {tx.buffer.name!r}"):
        return max(int(tick or 0) for tick in tx.connection.execute(sa.select(*largest)).one())


def counted_tick(tx: Transaction) -> int:
    """Return the largest tick of the workers of the buffer."""
    return int(tx.execute(queries.next_tick()).scalar_one()) - 1


def _ticks(tx: Transaction) -> list[str]:
    """Find what was stored in the future, and what has an order that cannot be."""
    problems = []
    if (newest := newest_tick(tx)) > (now := counted_tick(tx)):
        problems.append(
            f"a row has the logical time {newest}, but the workers have only reached {now}."
        )
    ours = batches.c.buffer_id == tx.buffer.buffer_id
    if n := _count(tx.connection, ours, batches.c.closed_tick <= batches.c.drawn_tick):
        problems.append(f"{n} batches were closed before they were drawn.")
    early = sa.or_(
        samples.c.scored_tick < samples.c.created_tick,
        samples.c.rewarded_tick < samples.c.created_tick,
    )
    if n := _count(tx.connection, samples.c.buffer_id == tx.buffer.buffer_id, early):
        problems.append(f"{n} samples were scored or measured before they were stored.")
    return problems


def orphans(buffer: BufferHandle) -> sa.Select[Any]:
    """Return the open batches of workers that are not there, the last first."""
    return (
        sa.select(batches.c.id)
        .where(batches.c.buffer_id == buffer.buffer_id)
        .where(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
        .where(
            ~sa.exists().where(
                workers.c.buffer_id == batches.c.buffer_id, workers.c.id == batches.c.worker_id
            )
        )
        .order_by(batches.c.id.desc())
    )
