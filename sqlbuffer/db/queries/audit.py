"""What audit and repair read: the counts, and the rows that contradict each other."""

from __future__ import annotations

import functools
import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from sqlbuffer.db.queries.measurements import (
    HAS_FAILED,
    HAS_NO_SAMPLE,
    IS_UNKEPT,
    IS_UNLIKE_NEWEST,
)
from sqlbuffer.db.queries.params import BUFFER, IS_OPEN, NEVER, OPEN_HERE, tie_of
from sqlbuffer.db.queries.prune import pruned_batch_of
from sqlbuffer.db.schema import (
    batches,
    buffers,
    draws,
    measurements,
    pool,
    predictors,
    samples,
    workers,
)

_IS_MISTIED = pool.c.tie.is_distinct_from(tie_of(pool.c.top, pool.c.sample_id))


def rows_of_buffer(table: sa.Table, buffer_id: int) -> sa.ColumnElement[bool]:
    """Return the condition that a row of a table belongs to a buffer."""
    if table is buffers:
        return buffers.c.id == buffer_id
    if table is draws:
        return draws.c.batch_id.in_(select(batches.c.id).where(batches.c.buffer_id == buffer_id))
    return table.c.buffer_id == buffer_id


def n_rows(table: sa.Table) -> sa.Select[Any]:
    """Return how many rows a table has, of all buffers."""
    return select(sa.func.count().label("n")).select_from(table)


def _n(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Return the number of rows that satisfy all conditions."""
    return sa.func.count().filter(sa.and_(*conditions))


@functools.cache
def buffer_row() -> sa.Select[Any]:
    """Return the row of the buffer."""
    return select(buffers).where(buffers.c.id == BUFFER)


@functools.cache
def pool_counts() -> sa.Select[int, int, int]:
    """Return how many samples wait, how many without a score, and how many at weight 0."""
    return select(
        sa.func.count().label("waiting"),
        _n(pool.c.weight.is_(None)).label("unscored"),
        _n(pool.c.weight == 0.0).label("unscorable"),
    ).where(pool.c.buffer_id == BUFFER)


@functools.cache
def sample_counts() -> sa.Select[int, int, int]:
    """Return how many samples are stored, measured, and failed to be measured."""
    return select(
        sa.func.count().label("stored"),
        _n(samples.c.reward.is_not(None)).label("measured"),
        _n(samples.c.reward.is_(None), samples.c.rewarded_at.is_not(None)).label("failed"),
    ).where(samples.c.buffer_id == BUFFER)


@functools.cache
def claimed_draws() -> sa.Select[Any]:
    """Return how many draws of open batches are not reported."""
    return (
        select(sa.func.count().label("claimed"))
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(OPEN_HERE, ~draws.c.reported)
    )


@functools.cache
def drawn_batches() -> sa.Select[Any]:
    """Return how many batches are open, settled, or released after a report."""
    is_reported = sa.exists(draws.c.batch_id).where(
        draws.c.batch_id == batches.c.id, draws.c.reported
    )
    return select(sa.func.count().label("drawn")).where(
        batches.c.buffer_id == BUFFER, sa.or_(batches.c.released_at.is_(None), is_reported)
    )


@functools.cache
def waiting_ids() -> sa.Select[Any]:
    """Return the ids of the samples in the pool."""
    return select(pool.c.sample_id).where(pool.c.buffer_id == BUFFER)


@functools.cache
def claimed_ids() -> sa.Select[Any]:
    """Return the ids of the samples that open batches hold and have not reported."""
    return (
        select(draws.c.sample_id)
        .join_from(draws, batches, batches.c.id == draws.c.batch_id)
        .where(OPEN_HERE, ~draws.c.reported)
    )


@functools.cache
def queued_ids() -> sa.Select[Any]:
    """Return the ids of the samples that are marked as queued."""
    return select(samples.c.id).where(samples.c.buffer_id == BUFFER, samples.c.queued)


@functools.cache
def evicted_and_queued() -> sa.Select[Any]:
    """Return how many samples are marked as evicted, and as waiting or claimed."""
    return select(sa.func.count().label("both")).where(
        samples.c.buffer_id == BUFFER, samples.c.queued, samples.c.evicted
    )


@functools.cache
def pool_faults() -> sa.Select[int, int, int, int, int]:
    """Return how many rows of the pool contradict themselves, by kind of fault."""
    is_placeless = pool.c.race_key == NEVER
    has_no_weight = sa.or_(pool.c.weight.is_(None), pool.c.weight == 0.0)
    # PostgreSQL sorts NaN beyond infinity; SQLite stores none.
    is_no_number = sa.or_(pool.c.race_key == -math.inf, pool.c.race_key > math.inf)
    return select(
        _n(is_placeless, ~has_no_weight).label("without_place"),
        _n(~is_placeless, has_no_weight).label("without_weight"),
        _n(_IS_MISTIED).label("mistied"),
        _n(is_no_number).label("without_key"),
        _n(pool.c.weight < 0.0).label("negative"),
    ).where(pool.c.buffer_id == BUFFER)


@functools.cache
def pool_weights() -> sa.Select[Any]:
    """Return weight, score and the pool's copy of the score, `ranked`, of scored samples."""
    return (
        select(pool.c.weight, samples.c.score, pool.c.score.label("ranked"))
        .join_from(pool, samples, samples.c.id == pool.c.sample_id)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight.is_not(None))
    )


@functools.cache
def pool_rows() -> sa.Select[Any]:
    """Return all rows of the pool in the order of the race, for repair.

    `hash` is NULL if there is no such sample, `is_mistied` true if `tie` is wrong.
    """
    standing = (pool.c.sample_id, pool.c.race_key, pool.c.weight, pool.c.score.label("ranked"))
    return (
        select(*standing, samples.c.score, samples.c.hash, _IS_MISTIED.label("is_mistied"))
        .outerjoin_from(pool, samples, samples.c.id == pool.c.sample_id)
        .where(pool.c.buffer_id == BUFFER)
        .order_by(pool.c.race_key, pool.c.sample_id)
    )


@functools.cache
def wrong_marks() -> sa.Select[Any]:
    """Return how many waiting samples have, or lack, the mark of the top against their score.

    0 if `top_score` is NULL: marks mean nothing then.
    """
    least = buffers.c.top_score
    is_top = sa.and_(pool.c.weight > 0.0, sa.or_(least == -math.inf, pool.c.score >= least))
    return (
        select(sa.func.count().label("wrong"))
        .join_from(buffers, pool, pool.c.buffer_id == buffers.c.id)
        .where(buffers.c.id == BUFFER, least.is_not(None), pool.c.top != is_top)
    )


@functools.cache
def miscounted_batches() -> sa.Select[Any]:
    """Return the ids of the batches whose size is not the number of their draws.

    Old batches that are closed may have no draws, because `prune` drops them.
    """
    n_draws = sa.func.count(draws.c.sample_id)
    may_have_none = sa.and_(~IS_OPEN, batches.c.id < sa.func.coalesce(pruned_batch_of(BUFFER), 0))
    return (
        select(batches.c.id)
        .outerjoin_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == BUFFER)
        .group_by(batches.c.id)
        .having(n_draws != batches.c.size, sa.or_(n_draws > 0, ~may_have_none))
    )


@functools.cache
def orphaned_batches() -> sa.Select[Any]:
    """Return the ids of the open batches whose workers have no row, the newest first.

    Leased batches need no worker.
    """
    has_worker = sa.exists(workers.c.id).where(
        workers.c.buffer_id == batches.c.buffer_id, workers.c.id == batches.c.worker_id
    )
    return (
        select(batches.c.id)
        .where(OPEN_HERE, ~has_worker)
        .where(batches.c.lease_until.is_(None))
        .order_by(batches.c.id.desc())
    )


@functools.cache
def newest_ticks() -> sa.Select[Any]:
    """Return the largest value of each column of logical times."""
    columns = (
        *(samples.c.created_tick, samples.c.scored_tick, samples.c.rewarded_tick),
        *(batches.c.drawn_tick, batches.c.closed_tick, predictors.c.trained_tick),
        measurements.c.measured_tick,
    )
    return select(
        *(
            select(sa.func.max(column))
            .where(column.table.c.buffer_id == BUFFER)
            .scalar_subquery()
            .label(column.name)
            for column in columns
        )
    )


@functools.cache
def measurement_faults() -> sa.Select[Any]:
    """Return how many rows contradict each other about measurements, by kind of fault."""
    has_not_one = measurements.c.reward.is_(None) == measurements.c.error.is_(None)
    of_measurements = {"without_sample": HAS_NO_SAMPLE, "with_both": has_not_one}
    of_samples = {
        "unexplained": samples.c.error.is_not(None) != HAS_FAILED,
        "unkept": IS_UNKEPT,
        "unlike_newest": IS_UNLIKE_NEWEST,
        "negative_attempts": samples.c.attempts < 0,
    }
    counts = [
        select(sa.func.count())
        .select_from(table)
        .where(table.c.buffer_id == BUFFER, fault)
        .scalar_subquery()
        .label(name)
        for table, faults in ((measurements, of_measurements), (samples, of_samples))
        for name, fault in faults.items()
    ]
    return select(*counts)


@functools.cache
def early_closed_batches() -> sa.Select[Any]:
    """Return how many batches have a logical time of closing that is not after that of drawing."""
    return select(sa.func.count().label("early")).where(
        batches.c.buffer_id == BUFFER, batches.c.closed_tick <= batches.c.drawn_tick
    )


@functools.cache
def early_samples() -> sa.Select[Any]:
    """Return how many samples have a logical time of a score or a reward before that of storing."""
    is_early = sa.or_(
        samples.c.scored_tick < samples.c.created_tick,
        samples.c.rewarded_tick < samples.c.created_tick,
    )
    return select(sa.func.count().label("early")).where(samples.c.buffer_id == BUFFER, is_early)
