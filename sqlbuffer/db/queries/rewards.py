"""SQL of rewards: stored, and read as the labels of a predictor."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import Dialect, now
from sqlbuffer.db.backends.hot import hot
from sqlbuffer.db.queries.params import BUFFER, INCOMING_REWARDS, TICK
from sqlbuffer.db.schema import samples

_STAYS_QUEUED = sa.and_(samples.c.queued, bindparam("stay_queued", type_=sa.Boolean))


@functools.cache
def measured_before(dialect: Dialect) -> sa.Select[Any]:
    """Lock measured samples that get another reward; returns `id, reward` and the `kept` reward."""
    incoming = dialect.relation(INCOMING_REWARDS)
    same = sa.and_(samples.c.id == incoming.c.id, samples.c.hash == incoming.c.hash)
    kept = sa.func.coalesce(incoming.c.reward, samples.c.reward).label("kept")
    statement = (
        select(samples.c.id, samples.c.reward, samples.c.rewarded_at, kept)
        .join_from(incoming, samples, same)
        .order_by(samples.c.id)
    )
    return dialect.lock_rows(statement, samples)


@hot
def store_first_rewards(dialect: Dialect) -> sa.Update:
    """Write rewards into samples that were not measured before, found by id and hash."""
    incoming = dialect.each(INCOMING_REWARDS)
    return store_first_rewards_of_draws(dialect).where(samples.c.hash == incoming.hash)


@hot
def store_first_rewards_of_draws(dialect: Dialect) -> sa.Update:
    """`store_first_rewards` by id alone, for a batch that still exists with its samples.

    SQLite binds and compares a hash in 1.1 us, of 7 us for a row.
    """
    incoming = dialect.each(INCOMING_REWARDS)
    reward = dialect.noted(INCOMING_REWARDS, incoming.reward)
    never = (
        sa.update(samples).where(samples.c.id == incoming.id).where(samples.c.rewarded_at.is_(None))
    )
    return never.values(
        reward=reward,
        error=incoming.error,
        rewarded_at=now(),
        rewarded_tick=TICK,
        queued=_STAYS_QUEUED,
        evicted=sa.false(),
    )


@functools.cache
def store_rewards(dialect: Dialect) -> sa.Update:
    """Write rewards into the samples, found by id and hash: an id alone may be another sample's.

    Settled samples are no longer queued, and a measured sample is no longer an evicted one: adding
    it does not put it back. NULL is a failed measurement: it does not change a stored
    reward and its time.
    """
    incoming = dialect.each(INCOMING_REWARDS)
    stays = sa.and_(incoming.reward.is_(None), samples.c.reward.is_not(None))
    return _known(dialect).values(
        reward=sa.func.coalesce(incoming.reward, samples.c.reward),
        error=sa.case((~stays, incoming.error)),
        rewarded_at=sa.case((stays, samples.c.rewarded_at), else_=now()),
        rewarded_tick=sa.case((stays, samples.c.rewarded_tick), else_=TICK),
        queued=_STAYS_QUEUED,
        evicted=sa.false(),
    )


def _known(dialect: Dialect) -> sa.Update:
    incoming = dialect.each(INCOMING_REWARDS)
    return (
        sa.update(samples).where(samples.c.id == incoming.id).where(samples.c.hash == incoming.hash)
    )


def labelled() -> sa.Select[Any]:
    """Return `id, hash, reward` of measured samples, ordered by id; the user may narrow it."""
    return (
        select(samples.c.id, samples.c.hash, samples.c.reward)
        .where(samples.c.buffer_id == BUFFER)
        .where(samples.c.reward.is_not(None))
        .order_by(samples.c.id)
    )


def newest(some: sa.Select[Any], n: int) -> sa.Select[Any]:
    """Return the n rows of `labelled` that were measured last, ordered by id."""
    # By tick, since clocks may be set. Rows of older releases have times and no ticks; they are
    # older than all rows that have ticks.
    tick, untold = sa.func.coalesce(samples.c.rewarded_tick, 0), samples.c.rewarded_tick.is_(None)
    time = sa.case((untold, samples.c.rewarded_at))
    last = (
        some.order_by(None)
        .order_by(tick.desc(), time.desc(), samples.c.id.desc())
        .limit(n)
        .subquery("newest")
    )
    return select(last.c.id, last.c.hash, last.c.reward).order_by(last.c.id)
