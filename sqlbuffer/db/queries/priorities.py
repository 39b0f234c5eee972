"""SQL of priorities: where the samples are whose scores a user writes."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from sqlbuffer.db.backends import Dialect
from sqlbuffer.db.backends.hot import hot
from sqlbuffer.db.queries.params import (
    BUFFER,
    INCOMING_IDS,
    INCOMING_PLACES,
    OPEN_HERE,
    STANDING,
)
from sqlbuffer.db.schema import batches, draws, pool, samples


@hot
def at_places(dialect: Dialect) -> sa.Select[Any]:
    """Return the samples with these keys: look-ups by the key of the pool.

    `race_key` is NULL if a sample has another key by now. Without the outer join SQLite would read
    the whole pool, because it does not know how few rows came with the statement.
    """
    incoming = dialect.relation(INCOMING_PLACES)
    place = sa.and_(
        pool.c.buffer_id == BUFFER,
        pool.c.race_key == incoming.c.race_key,
        pool.c.sample_id == incoming.c.sample_id,
    )
    return (
        select(
            samples.c.id.label("sample_id"),
            pool.c.race_key,
            pool.c.weight,
            pool.c.entries,
            samples.c.hash,
        )
        .join_from(incoming, samples, samples.c.id == incoming.c.sample_id)
        .outerjoin(pool, place)
    )


@functools.cache
def standing_anywhere(dialect: Dialect) -> sa.Select[Any]:
    """Return the keys of the samples with these ids; reads the whole pool."""
    ids = select(dialect.relation(INCOMING_IDS).c.sample_id)
    return STANDING.where(pool.c.buffer_id == BUFFER, pool.c.sample_id.in_(ids))


@hot
def stored_with(dialect: Dialect) -> sa.Select[Any]:
    """Return the samples of this buffer with these ids, and whether they wait or are claimed."""
    incoming = dialect.relation(INCOMING_IDS)
    return (
        select(samples.c.id, samples.c.hash, samples.c.queued)
        .join_from(incoming, samples, samples.c.id == incoming.c.sample_id)
        .where(samples.c.buffer_id == BUFFER)
    )


@functools.cache
def claimed_with(dialect: Dialect) -> sa.Select[Any]:
    """Return those of the samples with these ids that are claimed: reads the open batches."""
    ids = select(dialect.relation(INCOMING_IDS).c.sample_id)
    return (
        select(draws.c.sample_id)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(OPEN_HERE, ~draws.c.reported, draws.c.sample_id.in_(ids))
    )
