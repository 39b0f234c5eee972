"""SQL of measurements: every reward and every failure that was stored."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, now
from sqlbuffer.db.backends.hot import hot
from sqlbuffer.db.queries.moments import kept_then
from sqlbuffer.db.queries.params import (
    BUFFER,
    INCOMING_HASHES,
    INCOMING_MEASUREMENTS,
    IS_OPEN,
    TICK,
)
from sqlbuffer.db.schema import batches, buffers, draws, measurements, samples

_OBJECTIVE = select(buffers.c.objective).where(buffers.c.id == BUFFER).scalar_subquery()
_UNKNOWN = sa.literal("the reason is not known", sa.Text)

HAS_NO_SAMPLE = ~sa.exists(samples.c.id).where(
    samples.c.id == measurements.c.sample_id, samples.c.buffer_id == measurements.c.buffer_id
)
HAS_FAILED = sa.and_(samples.c.reward.is_(None), samples.c.rewarded_at.is_not(None))
"""The last measurement of a sample has failed; it may wait again."""


def _of_sample(table: Any, *conditions: Any) -> sa.Exists:
    """There is such a measurement of a sample, under the current objective."""
    own = (table.c.sample_id == samples.c.id, table.c.objective == _OBJECTIVE)
    return sa.exists(table.c.id).where(*own, *conditions)


def _is_unlike_newest() -> sa.ColumnElement[bool]:
    """The reward of a sample is not that of its newest measurement.

    A late reward may have changed nothing. Only a measurement is sure to have been in time that was
    recorded, or that the worker of its batch stored before the end of the claim.
    """
    m, later = measurements, measurements.alias("later")
    has_reward, is_same = m.c.reward.is_not(None), m.c.reward == samples.c.reward
    in_time = sa.exists(batches.c.id).where(
        batches.c.id == m.c.batch_id,
        batches.c.worker_id == m.c.worker_id,
        sa.or_(IS_OPEN, batches.c.closed_tick >= m.c.measured_tick),
    )
    is_back = _of_sample(later, later.c.reward == samples.c.reward, later.c.id > m.c.id)
    is_newer = sa.and_(~is_same, sa.or_(m.c.batch_id.is_(None), in_time), ~is_back)
    # The first lookup spares most samples the others: all of their rewards are the same.
    return sa.or_(
        sa.and_(samples.c.reward.is_(None), _of_sample(m, has_reward)),
        sa.and_(
            _of_sample(m, ~is_same),
            sa.or_(_of_sample(m, is_newer), ~_of_sample(m, is_same)),
        ),
    )


IS_UNLIKE_NEWEST = _is_unlike_newest()
IS_UNKEPT = sa.and_(
    samples.c.rewarded_at.is_not(None),
    ~_of_sample(measurements, measurements.c.reward.is_not_distinct_from(samples.c.reward)),
)
"""A sample has a reward or a failure that no measurement has."""


@hot
def insert_measurements(dialect: Dialect) -> Any:
    """Append measurements of one batch, or of samples that were not drawn."""
    incoming = dialect.each(INCOMING_MEASUREMENTS)
    given = ("sample_id", "reward", "error", "seconds")
    return dialect.insert_each(
        measurements,
        {
            **_of_all(),
            **{name: getattr(incoming, name) for name in given},
            "details": dialect.json(incoming.details),
        },
    )


@hot
def insert_measurements_of_batch() -> Any:
    """Append the rewards and failures that all samples of a batch have just got.

    On SQLite it takes three quarters of the time of `insert_measurements`, and equals it.
    """
    values = {
        **_of_all(),
        "sample_id": samples.c.id,
        "reward": samples.c.reward,
        "error": samples.c.error,
    }
    columns = [value.label(name) for name, value in values.items()]
    found = (
        select(*columns)
        .join_from(draws, samples, samples.c.id == draws.c.sample_id)
        .where(draws.c.batch_id == values["batch_id"])
    )
    return sa.insert(measurements).from_select(list(values), found, include_defaults=False)


def _of_all() -> dict[str, Any]:
    """Return the columns that are the same in all measurements of a transaction."""
    return {
        "buffer_id": BUFFER,
        "batch_id": bindparam("batch", type_=BigId),
        "worker_id": bindparam("worker", type_=sa.Text),
        "objective": bindparam("objective", type_=sa.Text),
        "measured_at": now(),
        "measured_tick": TICK,
    }


@functools.cache
def delete_orphans() -> sa.Delete:
    """Delete the measurements of samples that do not exist."""
    return sa.delete(measurements).where(measurements.c.buffer_id == BUFFER, HAS_NO_SAMPLE)


@functools.cache
def decide() -> tuple[sa.Update, sa.Update]:
    """Let a measurement with a reward have no error; give one that has neither an error."""
    own = sa.update(measurements).where(measurements.c.buffer_id == BUFFER)
    has_reward, has_error = measurements.c.reward.is_not(None), measurements.c.error.is_not(None)
    return (
        own.where(has_reward, has_error).values(error=None),
        own.where(~has_reward, ~has_error).values(error=_UNKNOWN),
    )


@functools.cache
def follow_newest() -> sa.Update:
    """Give samples the reward of their newest measurement, with the parameters of `kept_then`."""
    kept = measurements.alias("kept")

    def of_kept(column: str) -> sa.ScalarSelect[Any]:
        found = select(kept.c[column]).where(kept.c.id == kept_then())
        return found.correlate(samples).scalar_subquery()

    return (
        sa.update(samples)
        .where(samples.c.buffer_id == BUFFER, IS_UNLIKE_NEWEST)
        .values(
            reward=of_kept("reward"),
            error=of_kept("error"),
            rewarded_at=of_kept("measured_at"),
            rewarded_tick=of_kept("measured_tick"),
        )
    )


@functools.cache
def explain_failures() -> tuple[sa.Update, sa.Update]:
    """Give each failed sample a reason; take it from a sample that has not failed."""
    reason = (
        select(measurements.c.error)
        .where(measurements.c.sample_id == samples.c.id, measurements.c.objective == _OBJECTIVE)
        .where(measurements.c.error.is_not(None))
        .order_by(measurements.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    own = sa.update(samples).where(samples.c.buffer_id == BUFFER)
    return (
        own.where(HAS_FAILED, samples.c.error.is_(None)).values(
            error=sa.func.coalesce(reason, _UNKNOWN)
        ),
        own.where(~HAS_FAILED, samples.c.error.is_not(None)).values(error=None),
    )


@functools.cache
def keep_unkept() -> Any:
    """Append a measurement of each sample whose reward or failure no measurement has; their ids."""
    columns = {
        "buffer_id": samples.c.buffer_id,
        "sample_id": samples.c.id,
        "worker_id": bindparam("worker", type_=sa.Text),
        "objective": _OBJECTIVE,
        "reward": samples.c.reward,
        "error": samples.c.error,
        "measured_at": samples.c.rewarded_at,
        "measured_tick": samples.c.rewarded_tick,
    }
    found = select(*(column.label(name) for name, column in columns.items()))
    found = found.where(samples.c.buffer_id == BUFFER, IS_UNKEPT).order_by(samples.c.id)
    insert = sa.insert(measurements).from_select(list(columns), found, include_defaults=False)
    return insert.returning(measurements.c.id)


@functools.cache
def mend_attempts() -> sa.Update:
    """Set negative numbers of attempts to 0."""
    wrong = sa.and_(samples.c.buffer_id == BUFFER, samples.c.attempts < 0)
    return sa.update(samples).where(wrong).values(attempts=0)


@functools.cache
def rewards_by_hash(dialect: Dialect) -> sa.Select[Any]:
    """Return `hash, reward` of all measurements of samples under the objective of the buffer."""
    incoming = dialect.relation(INCOMING_HASHES)
    is_ours = sa.and_(samples.c.buffer_id == BUFFER, samples.c.hash == incoming.c.hash)
    return (
        select(samples.c.hash, measurements.c.reward)
        .join_from(incoming, samples, is_ours)
        .join(measurements, measurements.c.sample_id == samples.c.id)
        .where(measurements.c.objective == _OBJECTIVE)
    )
