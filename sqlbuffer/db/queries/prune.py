"""SQL that drops old rows: draws of closed batches, metrics, checkpoints, states of predictors."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, Timestamp, from_now
from sqlbuffer.db.queries.buffers import UPDATE_BUFFER
from sqlbuffer.db.queries.params import BUFFER, INCOMING_IDS, IS_OPEN
from sqlbuffer.db.schema import (
    batches,
    buffers,
    checkpoints,
    draws,
    measurements,
    metrics,
    workers,
)

_BOUND: sa.BindParameter[int] = bindparam("bound", type_=BigId)
_CUTOFF: Any = bindparam("cutoff", type_=Timestamp)
_BEFORE: sa.BindParameter[int] = bindparam("before", type_=sa.Integer)
_CLOSED_AT = sa.func.coalesce(batches.c.settled_at, batches.c.released_at)
_HAS_DRAWS = sa.exists(draws.c.batch_id).where(draws.c.batch_id == batches.c.id)
_OF_BUFFER = batches.c.buffer_id == BUFFER


def pruned_batch_of(buffer: Any) -> sa.ScalarSelect[Any]:
    """The number of the batch below which draws were dropped, NULL if all are there."""
    return select(buffers.c.pruned_batch).where(buffers.c.id == buffer).scalar_subquery()


def is_dropped(buffer: Any) -> sa.ColumnElement[bool]:
    """Return the condition that a row of `batches` is of a buffer, and its draws were dropped."""
    is_old = sa.and_(batches.c.buffer_id == buffer, batches.c.id < pruned_batch_of(buffer))
    return sa.and_(is_old, ~IS_OPEN, ~_HAS_DRAWS)


def measured_in_dropped_draws(buffer: Any) -> sa.Select[Any]:
    """The samples of settled draws that were dropped, as far as they were measured."""
    return (
        select(measurements.c.sample_id)
        .join_from(measurements, batches, batches.c.id == measurements.c.batch_id)
        .where(is_dropped(buffer), batches.c.settled_at.is_not(None))
    )


@functools.cache
def first_iteration() -> sa.Select[Any]:
    """The first iteration whose state can be copied although draws were dropped; NULL: every one.

    The dropped draws were settled or released before its first batch was drawn.
    """
    closed = select(sa.func.coalesce(sa.func.max(batches.c.closed_tick), 0)).where(
        is_dropped(BUFFER)
    )
    others = batches.alias("others")
    drawn_before = sa.func.coalesce(others.c.drawn_tick, 0) <= closed.scalar_subquery()
    return select((sa.func.max(others.c.iteration) + 1).label("iteration")).where(
        others.c.buffer_id == BUFFER, pruned_batch_of(BUFFER).is_not(None), drawn_before
    )


@functools.cache
def time_ago() -> sa.Select[Any]:
    """The time some seconds ago, by the clock of the database."""
    seconds: sa.BindParameter[float] = bindparam("minus_seconds", type_=sa.Double)
    return select(from_now(seconds).label("cutoff")).where(buffers.c.id == BUFFER)


@functools.cache
def newest_old_batch() -> sa.Select[Any]:
    """The newest batch with `keep` or more draws in later ones; NULL if there is none."""
    newer = sa.func.sum(batches.c.size).over(order_by=batches.c.id.desc()) - batches.c.size
    counted = select(batches.c.id, newer.label("newer")).where(_OF_BUFFER).subquery("counted")
    keep: sa.BindParameter[int] = bindparam("keep", type_=BigId)
    return select(sa.func.max(counted.c.id).label("id")).where(counted.c.newer >= keep)


@functools.cache
def first_kept_iteration() -> sa.Select[int, int, int]:
    """The first iteration of the batches that stay, the last one of the old ones, and of all."""
    is_old = sa.and_(~IS_OPEN, batches.c.id < _BOUND, _CLOSED_AT < _CUTOFF)
    numbers = {
        "kept": select(sa.func.min(batches.c.iteration)).where(_OF_BUFFER, ~is_old),
        "old": select(sa.func.max(batches.c.iteration)).where(_OF_BUFFER, is_old),
        "reached": select(sa.func.sum(workers.c.iterations)).where(workers.c.buffer_id == BUFFER),
    }
    return select(*(number.scalar_subquery().label(name) for name, number in numbers.items()))


def _droppable() -> sa.ColumnElement[bool]:
    """Return the condition that the draws of a batch may be dropped, and are still there.

    The draws of a released batch stay if some were reported, because the batch then counts as a
    turn of the race, and if the clock has not passed them, or may yet be turned back behind them:
    see `released_beyond`.
    """
    others = batches.alias("others")
    clock = select(sa.func.max(workers.c.clock)).where(workers.c.buffer_id == BUFFER)
    earliest = select(sa.func.min(others.c.clock_before)).where(
        others.c.buffer_id == BUFFER, others.c.settled_at.is_(None), others.c.released_at.is_(None)
    )
    is_passed = sa.and_(
        batches.c.clock <= clock.scalar_subquery(),
        batches.c.clock <= sa.func.coalesce(earliest.scalar_subquery(), batches.c.clock),
    )
    is_reported = sa.exists(draws.c.batch_id).where(
        draws.c.batch_id == batches.c.id, draws.c.reported
    )
    is_used = sa.and_(batches.c.settled_at.is_(None), sa.or_(~is_passed, is_reported))
    # `+ 0` makes SQLite use the primary key: the index of the buffer has all its batches.
    ours = batches.c.buffer_id + 0 == BUFFER
    return sa.and_(ours, batches.c.id < _BOUND, _CLOSED_AT < _CUTOFF, ~is_used, _HAS_DRAWS)


@functools.cache
def old_draws() -> sa.Select[Any]:
    """The number of draws that `old_batches` has."""
    return select(sa.func.coalesce(sa.func.sum(batches.c.size), 0).label("n")).where(_droppable())


@functools.cache
def old_batches() -> sa.Select[Any]:
    """The next `limit` batches whose draws may be dropped, and their sizes."""
    return (
        select(batches.c.id, batches.c.size)
        .where(_droppable(), batches.c.id > bindparam("after", type_=BigId))
        .order_by(batches.c.id)
        .limit(bindparam("limit", type_=sa.Integer))
    )


@functools.cache
def drop_draws(dialect: Dialect) -> sa.Delete:
    """Delete the draws of these batches, without those of open ones."""
    given = select(dialect.relation(INCOMING_IDS).c.sample_id)
    closed = select(batches.c.id).where(_OF_BUFFER, batches.c.id.in_(given), ~IS_OPEN)
    return sa.delete(draws).where(draws.c.batch_id.in_(closed))


@functools.cache
def set_pruned() -> sa.Update:
    """Note that draws of batches below `bound` were dropped."""
    before = sa.func.coalesce(buffers.c.pruned_batch, 0)
    return UPDATE_BUFFER.values(
        pruned_batch=sa.case((before < _BOUND, _BOUND), else_=buffers.c.pruned_batch)
    )


@functools.cache
def metric_after() -> sa.Select[Any]:
    """The iteration of the metric behind the `n` first ones, of the iterations before one."""
    return (
        select(metrics.c.iteration)
        .where(metrics.c.buffer_id == BUFFER, metrics.c.iteration < _BEFORE)
        .order_by(metrics.c.iteration, metrics.c.name)
        .offset(bindparam("n", type_=sa.Integer))
        .limit(1)
    )


@functools.cache
def drop_metrics() -> sa.Delete:
    """Delete the metrics of the iterations before one."""
    return sa.delete(metrics).where(metrics.c.buffer_id == BUFFER, metrics.c.iteration < _BEFORE)


_LATER = checkpoints.alias("later")
_HAS_LATER = sa.exists(_LATER.c.iteration).where(
    _LATER.c.buffer_id == checkpoints.c.buffer_id,
    _LATER.c.name == checkpoints.c.name,
    _LATER.c.iteration > checkpoints.c.iteration,
)


@functools.cache
def old_checkpoints() -> sa.Select[Any]:
    """The checkpoints that another one of their name had replaced when an iteration began."""
    size = sa.func.length(checkpoints.c.data).label("size_bytes")
    return (
        select(checkpoints.c.name, checkpoints.c.iteration, size)
        .where(checkpoints.c.buffer_id == BUFFER, _HAS_LATER.where(_LATER.c.iteration <= _BEFORE))
        .order_by(checkpoints.c.name, checkpoints.c.iteration)
    )


@functools.cache
def drop_checkpoint() -> sa.Delete:
    """Delete a checkpoint that is not the newest of its name."""
    return sa.delete(checkpoints).where(
        checkpoints.c.buffer_id == BUFFER,
        checkpoints.c.name == bindparam("checkpoint", type_=sa.Text),
        checkpoints.c.iteration == bindparam("at_iteration", type_=sa.Integer),
        _HAS_LATER,
    )
