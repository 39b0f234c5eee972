"""SQL of samples: stored, found, scored, marked as waiting."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, Rows, now
from sqlbuffer.db.backends.hot import hot
from sqlbuffer.db.queries.params import (
    BUFFER,
    INCOMING_HASHES,
    INCOMING_IDS,
    INCOMING_KEYED,
    INCOMING_KNOWN,
    INCOMING_SAMPLES,
    INCOMING_SCORES,
    NEVER,
    NO_BUFFER,
    TICK,
)
from sqlbuffer.db.schema import pool, samples

_ENTRY = ["buffer_id", "race_key", "sample_id", "weight", "top", "entries"]

_HASH = [samples.c.buffer_id, samples.c.hash]
_WAIT_AGAIN: dict[str, Any] = {
    "queued": sa.true(),
    "requeues": samples.c.requeues + sa.literal_column("1", sa.Integer),
    "score": sa.null(),
    "score_version": sa.null(),
    "scored_at": sa.null(),
    "scored_tick": sa.null(),
    "evicted": sa.false(),
    "attempts": sa.literal_column("0", sa.Integer),
}
"""Without bound values, which SQLite's driver would bind for each row."""
_MARK = sa.literal(-1, sa.Integer)
"""A score version that no score has, and that no other transaction sees."""


def _entry(buffer: Any, sample_id: Any) -> sa.Select[Any]:
    """The row of a sample in the pool that has no score."""
    return select(
        buffer.label("buffer_id"),
        NEVER.label("race_key"),
        sample_id,
        sa.literal(None, sa.Double).label("weight"),
        sa.literal(False, sa.Boolean).label("top"),
        sa.literal(0, BigId).label("entries"),
    )


def incoming_samples(*, keyed: bool) -> Rows:
    """Return the shape of new samples; with a column more for a buffer that keeps keys."""
    return INCOMING_KEYED if keyed else INCOMING_SAMPLES


def _new_samples(incoming: Any, dialect: Dialect, *, queued: Any, keyed: bool) -> dict[str, Any]:
    own = {"key": incoming.key} if keyed else {}
    return own | {
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
def add_samples(dialect: Dialect, *, requeue: bool, keyed: bool) -> Any:
    """Store new samples, requeue those that had left the pool or been evicted; returns both."""
    incoming = dialect.relation(incoming_samples(keyed=keyed)).c
    values = _new_samples(incoming, dialect, queued=sa.literal(True, sa.Boolean), keyed=keyed)
    is_out = ~samples.c.queued
    waits_again = is_out if requeue else sa.and_(is_out, samples.c.evicted)
    # The order prevents deadlocks, and makes ids independent of the order within a batch.
    source = select(*(value.label(name) for name, value in values.items())).order_by(incoming.hash)
    return (
        dialect.upsert(samples)
        .from_select(list(values), source, include_defaults=False)
        .on_conflict_do_update(index_elements=_HASH, set_=_WAIT_AGAIN, where=waits_again)
        .returning(samples.c.id, samples.c.hash, samples.c.requeues)
    )


@hot
def add_unscored(dialect: Dialect, *, requeue: bool, keyed: bool) -> sa.Select[int, int, int]:
    """`add_samples` and `enter_unscored` in one; returns how many were stored and requeued.

    And how many are `known`, as `samples_out`, but as they were before the statement. They are
    looked up only if fewer samples were stored than `given`.
    """
    stored = add_samples(dialect, requeue=requeue, keyed=keyed).cte("stored")
    entered = sa.insert(pool).from_select(_ENTRY, _entry(BUFFER, stored.c.id)).cte("entered")
    n_stored, none = sa.func.count(), sa.literal(0, sa.Integer)
    again = n_stored.filter(stored.c.requeues > none)
    shape = incoming_samples(keyed=keyed)
    hashes = dialect.relation(Rows(shape.name, shape.columns[:1]))
    out = _out(hashes).where(~samples.c.evicted).scalar_subquery()
    known = sa.case((n_stored < bindparam("given", type_=BigId), out), else_=none)
    return (
        select(
            n_stored.label("stored"),
            again.label("requeued"),
            (none if requeue else known).label("known"),
        )
        .select_from(stored)
        .add_cte(entered)
    )


@hot
def enter_unscored() -> sa.Insert:
    """Put the samples stored after an id into the pool, without a key in the race.

    Only if writers take turns: then all of them are the transaction's own. Without a condition on
    the buffer, for which SQLite without statistics would read the whole buffer.
    """
    entry = _entry(samples.c.buffer_id, samples.c.id)
    new = entry.where(samples.c.id > bindparam("after", type_=BigId))
    return sa.insert(pool).from_select(_ENTRY, new)


@functools.cache
def insert_samples(dialect: Dialect, *, keyed: bool) -> Any:
    """Store samples that are new and do not wait."""
    incoming = dialect.each(incoming_samples(keyed=keyed))
    values = _new_samples(incoming, dialect, queued=sa.false(), keyed=keyed)
    return dialect.insert_each(samples, values).on_conflict_do_nothing(index_elements=_HASH)


@functools.cache
def newest_sample() -> sa.Select[Any]:
    """The largest id of all samples."""
    return select(sa.func.coalesce(sa.func.max(samples.c.id), 0).label("id"))


_ROW = (samples.c.id, samples.c.hash, samples.c.created_at)


@functools.cache
def newest_row() -> sa.Select[Any]:
    """`id, hash, created_at` of the sample with the largest id: no other row has all three."""
    return select(*_ROW).order_by(samples.c.id.desc()).limit(1)


@functools.cache
def row_of() -> sa.Select[Any]:
    """`id, hash, created_at` of the sample that has an id now."""
    return (
        select(*_ROW)
        .where(samples.c.id == bindparam("number", type_=BigId))
        .where(samples.c.buffer_id != NO_BUFFER)
    )


@functools.cache
def samples_after() -> sa.Select[Any]:
    """Return `id, hash, requeues` of the samples stored after an id, as `enter_unscored` does."""
    return (
        select(samples.c.id, samples.c.hash, samples.c.requeues)
        .where(samples.c.id > bindparam("after", type_=BigId))
        .order_by(samples.c.id)
    )


@functools.cache
def put_samples(dialect: Dialect, *, requeue: bool, keyed: bool) -> Any:
    """`add_samples` for `execute_each`; the samples that wait again are marked.

    The samples that neither wait nor are claimed, and stay out, are noted.
    """
    shape = incoming_samples(keyed=keyed)
    values = _new_samples(dialect.each(shape), dialect, queued=sa.true(), keyed=keyed)
    marked = _WAIT_AGAIN | {"score_version": _MARK}
    stays_out = dialect.noted(shape, sa.false())
    waits_again = sa.case(
        (samples.c.queued, sa.false()),
        (samples.c.evicted, sa.true()),
        else_=stays_out,
    )
    return dialect.insert_each(samples, values).on_conflict_do_update(
        index_elements=_HASH, set_=marked, where=~samples.c.queued if requeue else waits_again
    )


@functools.cache
def samples_out(dialect: Dialect) -> sa.Select[Any]:
    """How many of the samples of these hashes neither wait nor are claimed."""
    return _out(dialect.relation(INCOMING_HASHES))


def _out(incoming: sa.FromClause) -> sa.Select[Any]:
    return (
        select(sa.func.count().label("known"))
        .join_from(incoming, samples, samples.c.hash == incoming.c.hash)
        .where(samples.c.buffer_id == BUFFER)
        .where(~samples.c.queued)
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
    """Remove the mark of `put_samples`."""
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
    """Lock the samples with these ids that no transaction is writing; returns their ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return dialect.skip_locked(
        select(samples.c.id).join_from(incoming, samples, samples.c.id == incoming.c.sample_id),
        samples,
    )


@functools.cache
def metas(dialect: Dialect) -> sa.Select[Any]:
    """Return `id, meta` of the samples with these ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return select(samples.c.id, samples.c.meta).join_from(
        incoming, samples, samples.c.id == incoming.c.sample_id
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


@functools.cache
def metas_by_hash(dialect: Dialect) -> sa.Select[Any]:
    """Return `hash, meta` of the samples with these hashes."""
    incoming = dialect.relation(INCOMING_HASHES)
    return (
        select(samples.c.hash, samples.c.meta)
        .join_from(incoming, samples, samples.c.hash == incoming.c.hash)
        .where(samples.c.buffer_id == BUFFER)
    )


_VERSION: sa.BindParameter[int] = bindparam("version", type_=sa.Integer)


@hot
def store_scores(dialect: Dialect) -> sa.Update:
    """Write scores into the samples, found by id and hash, whose score has no newer version."""
    incoming = dialect.each(INCOMING_SCORES)
    return (
        sa.update(samples)
        .where(samples.c.id == incoming.sample_id)
        .where(samples.c.hash == incoming.hash)
        .where(sa.or_(samples.c.score_version.is_(None), samples.c.score_version <= _VERSION))
        .values(score=incoming.score, score_version=_VERSION, scored_at=now(), scored_tick=TICK)
    )


@hot
def store_newer_scores(dialect: Dialect) -> sa.Update:
    """Write scores into the samples whose score has an older version, or none."""
    return store_scores(dialect).where(
        sa.or_(samples.c.score_version.is_(None), samples.c.score_version != _VERSION)
    )


@hot
def store_priorities(dialect: Dialect) -> sa.Update:
    """Write scores into the samples that wait or are claimed."""
    return store_scores(dialect).where(samples.c.queued)


@functools.cache
def dequeue(dialect: Dialect, *, evicted: bool) -> sa.Update:
    """Mark samples as neither waiting nor claimed; adding evicted ones puts them back."""
    incoming = dialect.each(INCOMING_IDS)
    found = sa.update(samples).where(samples.c.id == incoming.sample_id)
    return found.values(queued=sa.false(), evicted=sa.true() if evicted else sa.false())


@hot
def dequeue_known(dialect: Dialect) -> sa.Update:
    """`dequeue` of samples found by id and hash."""
    incoming = dialect.each(INCOMING_KNOWN)
    same = sa.and_(samples.c.id == incoming.sample_id, samples.c.hash == incoming.hash)
    return sa.update(samples).where(same).values(queued=False)


@functools.cache
def enqueue(dialect: Dialect) -> sa.Update:
    """Mark samples as waiting or claimed, and as not evicted."""
    incoming = dialect.each(INCOMING_IDS)
    found = sa.update(samples).where(samples.c.id == incoming.sample_id)
    return found.values(queued=True, evicted=False)


@functools.cache
def unmark_evicted() -> sa.Update:
    """Remove the mark of an eviction from the samples that wait or are claimed."""
    wrong = sa.and_(samples.c.buffer_id == BUFFER, samples.c.queued, samples.c.evicted)
    return sa.update(samples).where(wrong).values(evicted=False)
