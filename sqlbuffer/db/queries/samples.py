"""Samples: stored, found, scored and rewarded."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, now
from sqlbuffer.db.queries.params import (
    BUFFER,
    INCOMING_HASHES,
    INCOMING_IDS,
    INCOMING_KNOWN,
    INCOMING_REWARDS,
    INCOMING_SAMPLES,
    INCOMING_SCORES,
    NEVER,
    TICK,
)
from sqlbuffer.db.schema import pool, samples

_ENTRY = ["buffer_id", "race_key", "sample_id", "weight", "top", "entries"]
_NO_WEIGHT = sa.literal(None, sa.Double).label("weight")
_NOT_TOP = sa.literal(False, sa.Boolean).label("top")
_NOT_ENTERED = sa.literal(0, BigId).label("entries")

_HASH = [samples.c.buffer_id, samples.c.hash]
_WAIT_AGAIN = {
    "queued": True,
    "requeues": samples.c.requeues + 1,
    "score": None,
    "score_version": None,
    "scored_at": None,
    "scored_tick": None,
}
_MARK = sa.literal(-1, sa.Integer)
"""A score version that no score has; seen by no other transaction."""


def _new_samples(incoming: Any, dialect: Dialect, *, queued: Any) -> dict[str, Any]:
    return {
        "buffer_id": BUFFER,
        "hash": incoming.hash,
        "text": incoming.text,
        "payload": incoming.payload,
        "codec": incoming.codec,
        "source": incoming.source,
        "meta": dialect.json(incoming.meta),
        "queued": queued,
        "requeues": sa.literal_column("0", sa.Integer),
        "created_at": now(),
        "created_tick": TICK,
        "created_iteration": bindparam("iteration", type_=sa.Integer),
    }


@functools.cache
def add_samples(dialect: Dialect) -> Any:
    """Store new samples, requeue those that had left the pool; returns both, and nothing for what still waits."""
    incoming = dialect.relation(INCOMING_SAMPLES).c
    values = _new_samples(incoming, dialect, queued=sa.literal(True, sa.Boolean))
    # The order keeps writers from deadlocks, and ids from depending on the order of insertion within a batch.
    source = select(*(value.label(name) for name, value in values.items())).order_by(incoming.hash)
    return (
        dialect.upsert(samples)
        .from_select(list(values), source, include_defaults=False)
        .on_conflict_do_update(index_elements=_HASH, set_=_WAIT_AGAIN, where=~samples.c.queued)
        .returning(samples.c.id, samples.c.hash, samples.c.requeues)
    )


@functools.cache
def add_unscored(dialect: Dialect) -> sa.Select[int, int]:
    """`add_samples` and `enter_unscored` in one; returns how many samples are stored, and how many of these again."""
    stored = add_samples(dialect).cte("stored")
    columns = (
        BUFFER.label("buffer_id"),
        NEVER.label("race_key"),
        stored.c.id,
        _NO_WEIGHT,
        _NOT_TOP,
        _NOT_ENTERED,
    )
    entered = sa.insert(pool).from_select(_ENTRY, select(*columns)).cte("entered")
    again = sa.func.count().filter(stored.c.requeues > sa.literal(0, sa.Integer))
    return (
        select(sa.func.count().label("stored"), again.label("requeued"))
        .select_from(stored)
        .add_cte(entered)
    )


@functools.cache
def enter_unscored() -> sa.Insert:
    """Put the samples stored after an id into the pool, beyond the race.

    For the one writer of a transaction, whose samples they are: given the buffer too, SQLite without statistics would
    read all of it.
    """
    columns = (
        samples.c.buffer_id,
        NEVER.label("race_key"),
        samples.c.id,
        _NO_WEIGHT,
        _NOT_TOP,
        _NOT_ENTERED,
    )
    new = select(*columns).where(samples.c.id > bindparam("after", type_=BigId))
    return sa.insert(pool).from_select(_ENTRY, new)


@functools.cache
def insert_samples(dialect: Dialect) -> Any:
    """Store samples that are new and do not wait."""
    values = _new_samples(dialect.each(INCOMING_SAMPLES), dialect, queued=sa.false())
    return dialect.insert_each(samples, values).on_conflict_do_nothing(index_elements=_HASH)


@functools.cache
def newest_sample() -> sa.Select[Any]:
    """The largest id of all."""
    return select(sa.func.coalesce(sa.func.max(samples.c.id), 0).label("id"))


_ROW = (samples.c.id, samples.c.hash, samples.c.created_at)


@functools.cache
def newest_row() -> sa.Select[Any]:
    """What no other row has but the one with the largest number: `id, hash, created_at`."""
    return select(*_ROW).order_by(samples.c.id.desc()).limit(1)


@functools.cache
def row_of() -> sa.Select[Any]:
    """`newest_row` of the row that has a number now."""
    return select(*_ROW).where(samples.c.id == bindparam("number", type_=BigId))


@functools.cache
def samples_after() -> sa.Select[Any]:
    """Return `id, hash, requeues` of the samples stored after an id, as `enter_unscored` does."""
    return (
        select(samples.c.id, samples.c.hash, samples.c.requeues)
        .where(samples.c.id > bindparam("after", type_=BigId))
        .order_by(samples.c.id)
    )


@functools.cache
def put_samples(dialect: Dialect) -> Any:
    """Store new samples, requeue those that had left the pool, and mark these, where rows go one by one."""
    values = _new_samples(dialect.each(INCOMING_SAMPLES), dialect, queued=sa.true())
    marked = _WAIT_AGAIN | {"score_version": _MARK}
    return dialect.insert_each(samples, values).on_conflict_do_update(
        index_elements=_HASH, set_=marked, where=~samples.c.queued
    )


@functools.cache
def marked_samples(dialect: Dialect) -> sa.Select[Any]:
    """Return `id, hash, requeues` of the samples of these hashes that `put_samples` has marked."""
    incoming = dialect.relation(INCOMING_HASHES)
    return (
        select(samples.c.id, samples.c.hash, samples.c.requeues)
        .join_from(incoming, samples, samples.c.hash == incoming.c.hash)
        .where(samples.c.buffer_id == BUFFER)
        .where(samples.c.score_version == _MARK)
    )


@functools.cache
def unmark(dialect: Dialect) -> sa.Update:
    """Take the mark of `put_samples` away."""
    incoming = dialect.each(INCOMING_IDS)
    return sa.update(samples).where(samples.c.id == incoming.sample_id).values(score_version=None)


@functools.cache
def lock_samples(dialect: Dialect) -> sa.Select[Any]:
    """Lock the samples with these ids, in their order."""
    incoming = dialect.relation(INCOMING_IDS)
    found = select(samples.c.id).join_from(incoming, samples, samples.c.id == incoming.c.sample_id)
    return dialect.lock_rows(found.order_by(samples.c.id), samples)


@functools.cache
def free_samples(dialect: Dialect) -> sa.Select[Any]:
    """Lock those of the samples with these ids that nobody else is writing; returns their ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return dialect.skip_locked(
        select(samples.c.id).join_from(incoming, samples, samples.c.id == incoming.c.sample_id),
        samples,
    )


@functools.cache
def samples_by_hash(dialect: Dialect) -> sa.Select[Any]:
    """Return `hash, id, reward, rewarded_at` of the samples with these hashes."""
    incoming = dialect.relation(INCOMING_HASHES)
    return (
        select(samples.c.hash, samples.c.id, samples.c.reward, samples.c.rewarded_at)
        .join_from(incoming, samples, samples.c.hash == incoming.c.hash)
        .where(samples.c.buffer_id == BUFFER)
    )


_VERSION: sa.BindParameter[int] = bindparam("version", type_=sa.Integer)


@functools.cache
def store_scores(dialect: Dialect) -> sa.Update:
    """Write scores into the samples, found by number and hash, that have none of a newer version."""
    incoming = dialect.each(INCOMING_SCORES)
    return (
        sa.update(samples)
        .where(samples.c.id == incoming.sample_id)
        .where(samples.c.hash == incoming.hash)
        .where(sa.or_(samples.c.score_version.is_(None), samples.c.score_version <= _VERSION))
        .values(score=incoming.score, score_version=_VERSION, scored_at=now(), scored_tick=TICK)
    )


@functools.cache
def store_newer_scores(dialect: Dialect) -> sa.Update:
    """Write scores into the samples that have none of this version either."""
    return store_scores(dialect).where(
        sa.or_(samples.c.score_version.is_(None), samples.c.score_version != _VERSION)
    )


@functools.cache
def measured_before(dialect: Dialect) -> sa.Select[Any]:
    """Return `id, reward` of measured samples that are about to get another one, and what is `kept` then; lock them."""
    incoming = dialect.relation(INCOMING_REWARDS)
    same = sa.and_(samples.c.id == incoming.c.id, samples.c.hash == incoming.c.hash)
    kept = sa.func.coalesce(incoming.c.reward, samples.c.reward).label("kept")
    statement = (
        select(samples.c.id, samples.c.reward, kept)
        .join_from(incoming, samples, same)
        .order_by(samples.c.id)
    )
    return dialect.lock_rows(statement, samples)


@functools.cache
def store_first_rewards(dialect: Dialect) -> sa.Update:
    """Write rewards into samples that were not measured before, found by number and hash."""
    incoming = dialect.each(INCOMING_REWARDS)
    return store_first_rewards_of_draws(dialect).where(samples.c.hash == incoming.hash)


@functools.cache
def store_first_rewards_of_draws(dialect: Dialect) -> sa.Update:
    """`store_first_rewards` where the batch that gave the numbers is still there, and so are its samples.

    SQLite binds and compares a hash in 1.1 us, of 7 that a row takes.
    """
    incoming = dialect.each(INCOMING_REWARDS)
    reward = dialect.noted(INCOMING_REWARDS, incoming.reward)
    never = (
        sa.update(samples).where(samples.c.id == incoming.id).where(samples.c.rewarded_at.is_(None))
    )
    return never.values(reward=reward, rewarded_at=now(), rewarded_tick=TICK, queued=_STAYS_QUEUED)


@functools.cache
def store_rewards(dialect: Dialect) -> sa.Update:
    """Write rewards into the samples, found by number and hash: a number alone may be another sample's by now.

    Settled samples are no longer queued. A NULL is a measurement that failed: it leaves a reward that is stored, and
    the time when it was, as they are.
    """
    incoming = dialect.each(INCOMING_REWARDS)
    stays = sa.and_(incoming.reward.is_(None), samples.c.reward.is_not(None))
    return _known(dialect).values(
        reward=sa.func.coalesce(incoming.reward, samples.c.reward),
        rewarded_at=sa.case((stays, samples.c.rewarded_at), else_=now()),
        rewarded_tick=sa.case((stays, samples.c.rewarded_tick), else_=TICK),
        queued=_STAYS_QUEUED,
    )


_STAYS_QUEUED = sa.and_(samples.c.queued, bindparam("stay_queued", type_=sa.Boolean))


def _known(dialect: Dialect) -> sa.Update:
    incoming = dialect.each(INCOMING_REWARDS)
    return (
        sa.update(samples).where(samples.c.id == incoming.id).where(samples.c.hash == incoming.hash)
    )


@functools.cache
def dequeue(dialect: Dialect) -> sa.Update:
    """Mark samples as neither waiting nor claimed, so that adding them again requeues them."""
    incoming = dialect.each(INCOMING_IDS)
    return sa.update(samples).where(samples.c.id == incoming.sample_id).values(queued=False)


@functools.cache
def dequeue_known(dialect: Dialect) -> sa.Update:
    """`dequeue` of samples found by number and hash."""
    incoming = dialect.each(INCOMING_KNOWN)
    same = sa.and_(samples.c.id == incoming.sample_id, samples.c.hash == incoming.hash)
    return sa.update(samples).where(same).values(queued=False)


@functools.cache
def enqueue(dialect: Dialect) -> sa.Update:
    """Mark samples as waiting or claimed."""
    incoming = dialect.each(INCOMING_IDS)
    return sa.update(samples).where(samples.c.id == incoming.sample_id).values(queued=True)


def best(by: str, *columns: Any) -> sa.Select[Any]:
    """Columns of the `limit` best samples by "reward" or "score", the best first; equals by their hash."""
    column = samples.c[by]
    return (
        select(*columns)
        .where(samples.c.buffer_id == BUFFER)
        .where(column.is_not(None))
        .order_by(column.desc(), samples.c.hash.desc())
        .limit(bindparam("limit", type_=sa.Integer))
    )


def labelled(
    where: str | sa.ColumnElement[bool] | None, newest: int | None
) -> sa.Select[int, bytes, float]:
    """Return `id, hash, reward` of measured samples in the order of their ids; of the newest only, those measured last.

    The condition is the user's own SQL; on lines of its own, it may end in a comment.
    """
    statement = (
        select(samples.c.id, samples.c.hash, samples.c.reward)
        .where(samples.c.buffer_id == BUFFER)
        .where(samples.c.reward.is_not(None))
    )
    if where is not None:
        statement = statement.where(sa.text(f"(\n{where}\n)") if isinstance(where, str) else where)
    if newest is None:
        return statement.order_by(samples.c.id)
    # By ticks, since clocks are set; rows of older releases have none, are older than all that have, and have times.
    tick, untold = sa.func.coalesce(samples.c.rewarded_tick, 0), samples.c.rewarded_tick.is_(None)
    time = sa.case((untold, samples.c.rewarded_at))
    last = (
        statement.order_by(tick.desc(), time.desc(), samples.c.id.desc())
        .limit(newest)
        .subquery("newest")
    )
    return select(last.c.id, last.c.hash, last.c.reward).order_by(last.c.id)
