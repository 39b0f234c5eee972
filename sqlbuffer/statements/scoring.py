"""What scoring and eviction read of the pool, and the mark of its top."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.dialect import BigId, Dialect
from sqlbuffer.schema import pool, samples
from sqlbuffer.statements.rows import BUFFER, CONTENT, INCOMING_IDS, STANDING


@functools.cache
def unscored() -> sa.Select[Any]:
    """The next `limit` waiting samples without a score, from an id on: a range of an index over just these."""
    page = (
        STANDING.where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight.is_(None))
        .where(pool.c.sample_id > bindparam("after", type_=BigId))
        .order_by(pool.c.buffer_id, pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
        .subquery("page")
    )
    return (
        select(page.c.sample_id, samples.c.hash, samples.c.requeues, *CONTENT)
        .join_from(page, samples, samples.c.id == page.c.sample_id)
        .order_by(page.c.sample_id)
    )


@functools.cache
def oldest_unscored() -> sa.Select[Any]:
    """Where the `limit` oldest samples without a score stand."""
    return (
        select(pool.c.sample_id, pool.c.race_key, pool.c.weight)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight.is_(None))
        .order_by(pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
    )


@functools.cache
def pool_page() -> sa.Select[Any]:
    """The next `limit` rows of the pool in its own order, after a key and an id."""
    standing = sa.tuple_(pool.c.race_key, pool.c.sample_id)
    after = sa.tuple_(bindparam("after_key", type_=sa.Double), bindparam("after_id", type_=BigId))
    page = (
        STANDING.where(pool.c.buffer_id == BUFFER)
        .where(standing > after)
        .order_by(pool.c.buffer_id, pool.c.race_key, pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
        .subquery("page")
    )
    return (
        select(page.c.sample_id, page.c.race_key, page.c.weight, samples.c.score, samples.c.score_version)
        .join_from(page, samples, samples.c.id == page.c.sample_id)
        .order_by(page.c.race_key, page.c.sample_id)
    )


@functools.cache
def waiting_ids() -> sa.Select[Any]:
    """The ids of all that waits."""
    return select(pool.c.sample_id).where(pool.c.buffer_id == BUFFER)


@functools.cache
def scored(dialect: Dialect) -> sa.Select[Any]:
    """Return the samples with these ids and their scores, in the order of the ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return (
        select(samples.c.id, samples.c.score, samples.c.score_version, *CONTENT)
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
def weight_at() -> sa.Select[Any]:
    """The weight of the sample with `rank` heavier ones: where the top is to begin. Reads the whole pool."""
    return (
        select(pool.c.weight)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight > 0.0)
        .order_by(pool.c.weight.desc())
        .offset(bindparam("rank", type_=sa.Integer))
        .limit(1)
    )


@functools.cache
def mark_top() -> sa.Update:
    """Mark what waits with at least a weight as top, and nothing else."""
    is_top = sa.and_(pool.c.weight > 0.0, pool.c.weight >= bindparam("least", type_=sa.Double))
    return sa.update(pool).where(pool.c.buffer_id == BUFFER).where(pool.c.top != is_top).values(top=is_top)


@functools.cache
def lightest(dialect: Dialect) -> sa.Select[Any]:
    """The `limit` samples of the lowest weight, the oldest first among equals. Reads the whole pool."""
    statement = (
        STANDING.where(pool.c.buffer_id == BUFFER)
        .where(pool.c.weight >= 0.0)
        .order_by(pool.c.weight, pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
    )
    return dialect.skip_locked(statement, pool)


@functools.cache
def standing_at(dialect: Dialect) -> sa.Select[Any]:
    """Where the samples with these ids stand in the pool, and lock them."""
    incoming = dialect.relation(INCOMING_IDS)
    statement = (
        select(pool.c.sample_id, pool.c.race_key, pool.c.weight, samples.c.source, samples.c.hash)
        .join_from(pool, samples, samples.c.id == pool.c.sample_id)
        .join(incoming, incoming.c.sample_id == pool.c.sample_id)
        .where(pool.c.buffer_id == BUFFER)
    )
    return dialect.lock_rows(statement, pool)
