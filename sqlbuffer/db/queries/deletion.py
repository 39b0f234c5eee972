"""SQL that deletes: a whole buffer, or samples with all that belongs to them."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, right_now
from sqlbuffer.db.queries.params import BUFFER, INCOMING_IDS, NO_BUFFER, OPEN_HERE
from sqlbuffer.db.queries.prune import measured_in_dropped_draws
from sqlbuffer.db.schema import (
    batches,
    buffers,
    checkpoints,
    draws,
    jobs,
    lineage,
    measurements,
    metrics,
    pool,
    predictors,
    samples,
    workers,
)

MARK = "deleted "
"""Beginning of a row of `lineage` that names the largest id of a deleted sample."""

_MARKS = lineage.c.id.like(f"{MARK}%")


@functools.cache
def delete_buffer() -> tuple[sa.Delete, ...]:
    """Delete a buffer, table by table; a table comes before those that its rows refer to."""
    its_batches = select(batches.c.id).where(batches.c.buffer_id == BUFFER)
    parts = (measurements, batches, pool, samples, predictors, jobs, checkpoints, metrics, workers)
    return (
        sa.delete(draws).where(draws.c.batch_id.in_(its_batches)),
        *(sa.delete(table).where(table.c.buffer_id == BUFFER) for table in parts),
        sa.delete(buffers).where(buffers.c.id == BUFFER),
    )


@functools.cache
def leased_batches() -> sa.Select[Any]:
    """The ids of the claimed batches whose leases are not over."""
    return (
        select(batches.c.id)
        .where(OPEN_HERE, batches.c.lease_until >= right_now())
        .order_by(batches.c.id)
    )


@functools.cache
def highest_id() -> sa.Select[Any]:
    """The largest id of the samples of a buffer."""
    return select(sa.func.max(samples.c.id).label("highest")).where(samples.c.buffer_id == BUFFER)


@functools.cache
def marks() -> sa.Select[Any]:
    """The rows of `lineage` that name the largest id of a deleted sample."""
    return select(lineage.c.id).where(_MARKS)


@functools.cache
def set_mark(dialect: Dialect) -> tuple[Any, sa.Delete]:
    """Store the row `mark` of `lineage`, and delete the earlier rows of this kind."""
    mark: sa.BindParameter[str] = bindparam("mark", type_=sa.Text)
    insert = dialect.upsert(lineage).values(id=mark).on_conflict_do_nothing(index_elements=["id"])
    return insert, sa.delete(lineage).where(_MARKS, lineage.c.id != mark)


def _given(dialect: Dialect) -> sa.Select[Any]:
    return select(dialect.relation(INCOMING_IDS).c.sample_id)


@functools.cache
def samples_of(dialect: Dialect) -> sa.Select[Any]:
    """The samples with these ids; `was_recorded` is true if they were stored with a measurement."""
    has_both = sa.exists(measurements.c.id).where(
        measurements.c.sample_id == samples.c.id,
        measurements.c.batch_id.is_(None),
        sa.or_(
            measurements.c.measured_tick == samples.c.created_tick,  # of one transaction
            sa.and_(
                samples.c.created_tick.is_(None),
                measurements.c.measured_at == samples.c.created_at,
            ),
        ),
    )
    columns = ("id", "queued", "requeues", "reward", "rewarded_at")
    return (
        select(*(samples.c[name] for name in columns), has_both.label("was_recorded"))
        .where(samples.c.buffer_id == BUFFER, samples.c.id.in_(_given(dialect)))
        .order_by(samples.c.id)
    )


@functools.cache
def claims_of(dialect: Dialect) -> sa.Select[Any]:
    """The open batches that have drawn one of these samples, the first one of each batch."""
    return (
        select(sa.func.min(draws.c.sample_id).label("sample"), batches.c.id, batches.c.worker_id)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(OPEN_HERE)
        .where(draws.c.sample_id.in_(_given(dialect)))
        .group_by(batches.c.id, batches.c.worker_id)
        .order_by(batches.c.id)
    )


@functools.cache
def draws_of(dialect: Dialect) -> sa.Select[Any]:
    """The draws of these samples; `is_settled` is false for a draw that was given back."""
    was_settled = sa.or_(batches.c.settled_at.is_not(None), draws.c.reported)
    return (
        select(draws.c.sample_id, draws.c.batch_id, was_settled.label("is_settled"))
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == BUFFER)
        .where(draws.c.sample_id.in_(_given(dialect)))
    )


@functools.cache
def dropped_draws_of(dialect: Dialect) -> sa.Select[Any]:
    """The settled draws of these samples that `prune` has dropped, as far as they were measured."""
    return (
        measured_in_dropped_draws(BUFFER)
        .add_columns(measurements.c.batch_id)
        .where(measurements.c.sample_id.in_(_given(dialect)))
        .distinct()
    )


@functools.cache
def first_reward_of(dialect: Dialect) -> sa.Select[Any]:
    """When the first reward of one of these samples was stored; no row without a reward."""
    return (
        select(measurements.c.measured_tick, measurements.c.measured_at)
        .where(measurements.c.buffer_id == BUFFER, measurements.c.reward.is_not(None))
        .where(measurements.c.sample_id.in_(_given(dialect)))
        .order_by(measurements.c.id)
        .limit(1)
    )


@functools.cache
def trained_since() -> sa.Select[Any]:
    """The versions of the predictors that were stored after a reward."""
    tick = bindparam("tick", type_=BigId)
    time = bindparam("time", type_=measurements.c.measured_at.type)
    by_tick = sa.and_(predictors.c.trained_tick.is_not(None), tick.is_not(None))
    return (
        select(predictors.c.version)
        .where(predictors.c.buffer_id == BUFFER)
        .where(
            sa.case(
                (by_tick, predictors.c.trained_tick > tick), else_=predictors.c.trained_at > time
            )
        )
        .order_by(predictors.c.version)
    )


@functools.cache
def delete_samples(dialect: Dialect) -> tuple[sa.Delete, ...]:
    """Delete these samples, which do not wait, with their draws and measurements."""
    its_batches = select(batches.c.id).where(batches.c.buffer_id == BUFFER)
    given = _given(dialect)
    return (
        sa.delete(draws).where(draws.c.batch_id.in_(its_batches), draws.c.sample_id.in_(given)),
        sa.delete(measurements).where(
            measurements.c.buffer_id == BUFFER, measurements.c.sample_id.in_(given)
        ),
        sa.delete(samples).where(samples.c.buffer_id == BUFFER, samples.c.id.in_(given)),
    )


@functools.cache
def resize_batches(dialect: Dialect) -> sa.Update:
    """Set the sizes of these batches to the numbers of their draws."""
    n_draws = select(sa.func.count()).where(draws.c.batch_id == batches.c.id).scalar_subquery()
    return (
        sa.update(batches)
        .where(batches.c.buffer_id == BUFFER, batches.c.id.in_(_given(dialect)))
        .values(size=n_draws)
    )


@functools.cache
def keep_id() -> tuple[sa.Delete, sa.Update]:
    """Empty the newest sample of the database, so that its id is not given again.

    The row belongs to no buffer. The first statement deletes earlier rows of this kind.
    """
    newest = select(sa.func.max(samples.c.id)).scalar_subquery()
    emptied: dict[str, Any] = dict.fromkeys(
        column.name for column in samples.columns if column.nullable and column.name != "id"
    )
    emptied |= {"buffer_id": NO_BUFFER, "text": "", "codec": "text", "source": "", "queued": False}
    emptied["hash"] = bindparam("hash", type_=sa.LargeBinary)
    return (
        sa.delete(samples).where(samples.c.buffer_id == NO_BUFFER, samples.c.id < newest),
        sa.update(samples)
        .where(samples.c.buffer_id == BUFFER, samples.c.id == bindparam("number", type_=BigId))
        .where(samples.c.id == newest)
        .values(emptied),
    )


@functools.cache
def rename_buffer() -> sa.Update:
    """Give a buffer the name `new`."""
    return (
        sa.update(buffers)
        .where(buffers.c.id == BUFFER)
        .values(name=bindparam("new", type_=sa.Text))
    )
