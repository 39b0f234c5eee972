"""SQL of an earlier iteration: what was known before its first batch was drawn."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Timestamp
from sqlbuffer.db.queries.params import BUFFER, IS_TRY, TRIES, TRY, n_in_details
from sqlbuffer.db.schema import batches, buffers, draws, measurements, predictors, samples

ITERATION: sa.BindParameter[int] = bindparam("from_iteration", type_=sa.Integer)
_CUTOFF: Any = bindparam("cutoff", type_=Timestamp)
_TICK: sa.BindParameter[int] = bindparam("cutoff_tick", type_=BigId)


def before_cutoff(tick: Any, time: Any) -> Any:
    """Before the cutoff by tick, or by time for rows of older releases, which have no tick."""
    return sa.or_(sa.and_(tick.is_not(None), tick < _TICK), sa.and_(tick.is_(None), time < _CUTOFF))


SETTLED_THEN = sa.and_(
    batches.c.settled_at.is_not(None), before_cutoff(batches.c.closed_tick, batches.c.settled_at)
)
MEASURED_THEN = before_cutoff(measurements.c.measured_tick, measurements.c.measured_at)

IS_LATE = sa.exists(batches.c.id).where(
    batches.c.id == measurements.c.batch_id,
    batches.c.closed_tick < measurements.c.measured_tick,
)
"""The claim had ended when the measurement was stored."""

# Not named "objective": an UPDATE of `buffers` would set its column to it.
_OBJECTIVE: sa.BindParameter[str] = bindparam("of_objective", type_=sa.Text)


def kept_then() -> sa.ColumnElement[int]:
    """The id of the measurement that was a sample's reward or failure before the cutoff.

    The newest reward of a claim counts, else the first late one, else the newest failure. A sample
    with a later try had been made to wait again, without its failure.
    """
    own = (
        measurements.c.sample_id == samples.c.id,
        measurements.c.objective == _OBJECTIVE,
        MEASURED_THEN,
    )
    has_reward = measurements.c.reward.is_not(None)

    def one(number: Any, *conditions: Any) -> sa.ScalarSelect[Any]:
        found = select(number(measurements.c.id)).where(*own, *conditions)
        return found.correlate(samples).scalar_subquery()

    newest = (
        select(sa.case((~IS_TRY, measurements.c.id)).label("id"))
        .where(*own, ~IS_LATE)
        .order_by(measurements.c.id.desc())
        .limit(1)
    )
    return sa.func.coalesce(
        one(sa.func.max, has_reward, ~IS_LATE),
        one(sa.func.min, has_reward),
        newest.correlate(samples).scalar_subquery(),
    )


def attempts_then() -> sa.ColumnElement[int]:
    """How many attempts at a sample were counted before the cutoff.

    The number of the newest attempt. A sample that was measured after its last attempt has failed
    was made to wait again, without attempts.
    """
    own = (
        measurements.c.sample_id == samples.c.id,
        measurements.c.objective == _OBJECTIVE,
        MEASURED_THEN,
    )
    tries = n_in_details(TRIES)
    number = sa.func.coalesce(n_in_details(TRY), tries)
    later = measurements.alias("later")
    is_followed = sa.exists(later.c.id).where(
        later.c.sample_id == measurements.c.sample_id,
        later.c.objective == _OBJECTIVE,
        later.c.id > measurements.c.id,
        before_cutoff(later.c.measured_tick, later.c.measured_at),
    )
    is_forgotten = sa.and_(tries.is_not(None), is_followed)
    found = (
        select(sa.case((is_forgotten, 0), else_=number).label("attempts"))
        .where(*own, number.is_not(None))
        .order_by(measurements.c.id.desc())
        .limit(1)
    )
    return sa.func.coalesce(found.correlate(samples).scalar_subquery(), 0)


@functools.cache
def objective_then() -> sa.Select[Any]:
    """The objective when the batch `first` was drawn, before which the cutoff is.

    That of its measurements; else of the last one before it, of the first one after it, or of now.
    """
    first: sa.BindParameter[int] = bindparam("first", type_=BigId)
    of_batch = select(measurements.c.objective).join_from(
        draws,
        measurements,
        sa.and_(
            measurements.c.sample_id == draws.c.sample_id,
            measurements.c.batch_id == draws.c.batch_id,
        ),
    )
    own = select(measurements.c.objective).where(measurements.c.buffer_id == BUFFER)
    by_id = measurements.c.id
    found = (
        of_batch.where(draws.c.batch_id == first).limit(1),
        own.where(MEASURED_THEN, ~IS_LATE).order_by(by_id.desc()).limit(1),
        own.where(~MEASURED_THEN).order_by(by_id).limit(1),
    )
    objective = sa.func.coalesce(*(each.scalar_subquery() for each in found), buffers.c.objective)
    return select(objective.label("objective")).where(buffers.c.id == BUFFER)


@functools.cache
def last_of_other_objectives() -> sa.Select[Any]:
    """The tick of the last measurement of an earlier objective; -1 if there is none."""
    last = sa.func.max(sa.func.coalesce(measurements.c.measured_tick, 0))
    return select(sa.func.coalesce(last, -1).label("tick")).where(
        measurements.c.buffer_id == BUFFER,
        measurements.c.objective != _OBJECTIVE,
        MEASURED_THEN,
        ~IS_LATE,
    )


def had_left(
    kept: sa.FromClause, drawn: sa.Select[Any], *settled: sa.Select[Any]
) -> sa.ColumnElement[bool]:
    """A sample had left the pool by being settled, or was stored with its reward.

    A new objective has let measured samples wait again: then only what happened since counts.

    Args:
        kept: The measurements that were rewards or failures then.
        drawn: The ids of drawn samples, from draws and batches.
        *settled: Further ids of settled samples, from batches and another table.
    """
    since: sa.BindParameter[int] = bindparam("last_of_others", type_=BigId)
    of_others = sa.exists(measurements.c.id).where(
        measurements.c.sample_id == samples.c.id,
        measurements.c.objective != _OBJECTIVE,
        MEASURED_THEN,
    )
    was_recorded = sa.exists(measurements.c.id).where(
        measurements.c.sample_id == samples.c.id,
        measurements.c.objective == _OBJECTIVE,
        measurements.c.batch_id.is_(None),
        measurements.c.measured_tick == samples.c.created_tick,
        MEASURED_THEN,
    )
    is_new = sa.func.coalesce(batches.c.closed_tick, 0) > since
    ways = (drawn.where(SETTLED_THEN), *settled)
    return sa.or_(
        *(samples.c.id.in_(way.where(is_new)) for way in ways),
        *(sa.and_(samples.c.id.in_(way), ~of_others) for way in ways),
        sa.and_(samples.c.id.in_(drawn.where(draws.c.reported)), kept.c.id.is_not(None)),
        was_recorded,
    )


@functools.cache
def began() -> sa.Select[Any]:
    """When the first batch of an iteration, or a later one, was drawn: tick and time; its id."""
    has_no_tick = batches.c.drawn_tick.is_(None)
    return (
        select(batches.c.drawn_tick, batches.c.drawn_at, batches.c.id)
        .where(batches.c.buffer_id == BUFFER)
        .where(batches.c.iteration >= ITERATION)
        .order_by(has_no_tick.desc(), batches.c.drawn_tick, batches.c.id)
        .limit(1)
    )


@functools.cache
def version_then() -> sa.Select[Any]:
    """The newest versions of predictors and scores that were stored before an iteration began."""
    trained = select(sa.func.max(predictors.c.version)).where(
        predictors.c.buffer_id == BUFFER, predictors.c.iteration <= ITERATION
    )
    scored = select(sa.func.max(samples.c.score_version)).where(
        samples.c.buffer_id == BUFFER, before_cutoff(samples.c.scored_tick, samples.c.scored_at)
    )
    return select(
        trained.scalar_subquery().label("trained"), scored.scalar_subquery().label("scored")
    )
