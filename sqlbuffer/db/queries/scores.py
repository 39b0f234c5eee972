"""SQL of scoring, refreshing and eviction: samples to score, their keys, the top of the pool."""

from __future__ import annotations

import functools
import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect
from sqlbuffer.db.queries import audit, priorities
from sqlbuffer.db.queries.attempts import REPLAYS
from sqlbuffer.db.queries.params import (
    BUFFER,
    CONTENT,
    INCOMING_IDS,
    STANDING,
    TIE,
    tie_of,
)
from sqlbuffer.db.schema import buffers, pool, samples, workers

_NEWEST: sa.BindParameter[int] = bindparam("version", type_=sa.Integer)
_IS_STALE = sa.or_(samples.c.score_version.is_(None), samples.c.score_version < _NEWEST)


@functools.cache
def unscored() -> sa.Select[Any]:
    """The next `limit` waiting samples without a score after an id: a range of a partial index."""
    after = bindparam("after", type_=BigId)
    page = (
        STANDING.where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight.is_(None))
        .where(pool.c.sample_id > after)
        .order_by(pool.c.buffer_id, pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
        .subquery("page")
    )
    version = select(buffers.c.score_version).where(buffers.c.id == BUFFER).scalar_subquery()
    return (
        select(
            page.c.sample_id,
            samples.c.hash,
            samples.c.requeues,
            page.c.entries,
            *CONTENT,
            version.label("version"),
        )
        .join_from(page, samples, samples.c.id == page.c.sample_id)
        # Again: PostgreSQL may merge the two, and would begin with the first sample of all.
        .where(samples.c.id > after)
        .order_by(page.c.sample_id)
    )


@functools.cache
def oldest_unscored(dialect: Dialect) -> sa.Select[Any]:
    """Lock the `limit` oldest samples without a score that no process is scoring; returns keys."""
    statement = (
        STANDING.where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight.is_(None))
        .order_by(pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
    )
    return dialect.skip_locked(statement, pool)


@functools.cache
def pool_page() -> sa.Select[Any]:
    """The next `limit` rows of the pool in the order of its primary key, after a key and an id."""
    standing = sa.tuple_(pool.c.race_key, pool.c.sample_id)
    after = sa.tuple_(bindparam("after_key", type_=sa.Double), bindparam("after_id", type_=BigId))
    return (
        STANDING.where(pool.c.buffer_id == BUFFER)
        .where(standing > after)
        .order_by(pool.c.buffer_id, pool.c.race_key, pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
    )


@functools.cache
def waiting_places() -> sa.Select[Any]:
    """The keys of all waiting samples, and how often each has entered the race."""
    columns = (pool.c.sample_id, pool.c.race_key, pool.c.entries)
    return select(*columns).where(pool.c.buffer_id == BUFFER)


@functools.cache
def scored(dialect: Dialect) -> sa.Select[Any]:
    """Return the samples with these ids and their scores, in the order of the ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return (
        select(samples.c.id, samples.c.hash, samples.c.score, samples.c.score_version, *CONTENT)
        .join_from(incoming, samples, samples.c.id == incoming.c.sample_id)
        .order_by(samples.c.id)
    )


@functools.cache
def samples_by_id(dialect: Dialect) -> sa.Select[Any]:
    """Return `id, hash, requeues` of the samples with these ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return select(samples.c.id, samples.c.hash, samples.c.requeues).join_from(
        incoming, samples, samples.c.id == incoming.c.sample_id
    )


@functools.cache
def score_at() -> sa.Select[Any]:
    """The score of the sample with `rank` better ones: the top begins here. Reads all the pool."""
    return (
        select(pool.c.score)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight > 0.0)
        .order_by(pool.c.score.desc())
        .offset(bindparam("rank", type_=sa.Integer))
        .limit(1)
    )


@functools.cache
def mark_top() -> sa.Update:
    """Mark samples that can be drawn and have at least a score as top, and no others.

    A score of -infinity marks all that can be drawn.
    """
    least: sa.BindParameter[float] = bindparam("least", type_=sa.Double)
    is_top = sa.and_(pool.c.weight > 0.0, sa.or_(least == -math.inf, pool.c.score >= least))
    changed = sa.update(pool).where(pool.c.buffer_id == BUFFER).where(pool.c.top != is_top)
    return changed.values(top=is_top, tie=tie_of(is_top, pool.c.sample_id))


def _first_scored(dialect: Dialect, *order: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Lock the `limit` first scored samples in an order; reads the whole pool."""
    statement = (
        STANDING.where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight >= 0.0)
        .order_by(*order)
        .limit(bindparam("limit", type_=sa.Integer))
    )
    return dialect.skip_locked(statement, pool)


@functools.cache
def lightest(dialect: Dialect) -> sa.Select[Any]:
    """The `limit` samples of the lowest scores, first those of weight 0; of equal ones the oldest.

    Reads the whole pool.
    """
    return _first_scored(dialect, pool.c.weight > 0.0, pool.c.score, pool.c.sample_id)


@functools.cache
def oldest(dialect: Dialect) -> sa.Select[Any]:
    """The `limit` scored samples that were stored first; reads the whole pool."""
    return _first_scored(dialect, pool.c.sample_id)


@functools.cache
def standing_at(dialect: Dialect) -> sa.Select[Any]:
    """Lock the samples with these ids in the pool; returns their keys.

    The ids stand in a subquery: in a join SQLite may read all of them for each row of the pool.
    """
    ids = select(dialect.relation(INCOMING_IDS).c.sample_id)
    statement = (
        STANDING.add_columns(samples.c.source, samples.c.hash, samples.c.requeues)
        .join_from(pool, samples, samples.c.id == pool.c.sample_id)
        .where(pool.c.buffer_id == BUFFER, pool.c.sample_id.in_(ids))
    )
    return dialect.lock_rows(statement, pool)


@functools.cache
def refresh_state() -> sa.Select[Any]:
    """The versions of the refresh, the epoch, and the number of released draws: one statement."""
    own = ("score_version", "refresh_version", "refreshed_version", "epoch")
    return (
        select(
            *(buffers.c[name] for name in own), sa.func.sum(workers.c.released).label("released")
        )
        .join_from(buffers, workers, workers.c.buffer_id == buffers.c.id)
        .where(buffers.c.id == BUFFER)
        .group_by(buffers.c.id)
    )


@functools.cache
def stale() -> sa.Select[Any]:
    """The keys of samples whose score is older than `version`. Reads the whole pool."""
    return (
        select(
            pool.c.sample_id,
            pool.c.race_key,
            samples.c.score,
            samples.c.score_version,
            TIE.label("tie"),
        )
        .join_from(pool, samples, samples.c.id == pool.c.sample_id)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight.is_not(None))
        .where(_IS_STALE)
    )


@functools.cache
def still_stale(dialect: Dialect) -> sa.Select[Any]:
    """Return those of the samples with these keys that are queued and have an older score.

    Older than `version`. `race_key` is NULL if the sample has another key by now.
    """
    rows = priorities.at_places(dialect).add_columns(*CONTENT)
    return rows.where(samples.c.queued).where(_IS_STALE)


@functools.cache
def reopen_refresh() -> sa.Update:
    """Set the version of the newest finished refresh back to `version`, if it is newer.

    A refresh that is under way is told by the epoch, which moves on.
    """
    own = buffers.c
    is_finished = own.refresh_version == own.refreshed_version
    return (
        sa.update(buffers)
        .where(own.id == BUFFER)
        .where(sa.or_(~is_finished, own.refreshed_version > _NEWEST))
        .values(
            refresh_version=sa.case((is_finished, _NEWEST), else_=own.refresh_version),
            refreshed_version=sa.case((is_finished, _NEWEST), else_=own.refreshed_version),
            epoch=own.epoch + sa.case((is_finished, 0), else_=1),
        )
    )


@functools.cache
def lowest_score() -> sa.Select[Any]:
    """The lowest score of the pool, and the oldest version of a score. Reads the whole pool."""
    oldest = sa.func.min(sa.func.coalesce(samples.c.score_version, -1))
    return (
        select(sa.func.min(samples.c.score).label("lowest"), oldest.label("oldest"))
        .join_from(pool, samples, samples.c.id == pool.c.sample_id)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight.is_not(None))
    )


@functools.cache
def staleness() -> sa.Select[Any]:
    """Waiting samples by version of their score, and the oldest time. Reads all samples once.

    A queued sample waits or is claimed. A join with the pool takes three times as long.
    """
    is_claimed = samples.c.id.in_(audit.claimed_ids())
    return (
        select(
            samples.c.score_version,
            sa.func.count().label("waiting"),
            sa.func.min(samples.c.scored_at).label("oldest"),
        )
        .where(samples.c.buffer_id == BUFFER, samples.c.queued, sa.or_(REPLAYS, ~is_claimed))
        .group_by(samples.c.score_version)
    )
