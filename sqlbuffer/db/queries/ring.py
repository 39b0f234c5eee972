"""SQL of a ring: a pool of numbered slots, whose samples are overwritten in their places.

The key of a row is the number of its slot, and its hash that of the number.
"""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import Dialect, now
from sqlbuffer.db.queries.params import (
    BUFFER,
    INCOMING_HASHES,
    INCOMING_IDS,
    INCOMING_SLOTS,
    STANDING,
    TICK,
)
from sqlbuffer.db.schema import pool, samples


@functools.cache
def put_slots(dialect: Dialect) -> Any:
    """Store samples with their scores in slots; those that were there are overwritten."""
    incoming = dialect.each(INCOMING_SLOTS)
    content = {
        "text": incoming.text,
        "payload": incoming.payload,
        "codec": incoming.codec,
        "score": incoming.score,
        "score_version": bindparam("version", type_=sa.Integer),
        "scored_at": now(),
        "scored_tick": TICK,
        "queued": sa.true(),
        "created_at": now(),
        "created_tick": TICK,
        "created_iteration": bindparam("iteration", type_=sa.Integer),
    }
    row = {
        "buffer_id": BUFFER,
        "hash": incoming.hash,
        "source": sa.literal("", sa.Text),
        "requeues": sa.literal_column("0", sa.Integer),
        "key": incoming.key,
    }
    insert = dialect.insert_each(samples, row | content)
    return insert.on_conflict_do_update(
        index_elements=[samples.c.buffer_id, samples.c.hash],
        set_={name: insert.excluded[name] for name in content}
        | {
            "requeues": samples.c.requeues + sa.literal_column("1", sa.Integer),
            "evicted": sa.false(),
        },
    )


def _with_hashes(dialect: Dialect, *columns: sa.Column[Any]) -> sa.Select[Any]:
    incoming = dialect.relation(INCOMING_HASHES)
    return (
        select(samples.c.hash, *columns)
        .join_from(incoming, samples, samples.c.hash == incoming.c.hash)
        .where(samples.c.buffer_id == BUFFER)
    )


@functools.cache
def slots_with(dialect: Dialect) -> sa.Select[Any]:
    """Return the rows of the slots with these hashes, and how often each was overwritten."""
    return _with_hashes(dialect, samples.c.id, samples.c.requeues, samples.c.queued)


@functools.cache
def contents_with(dialect: Dialect) -> sa.Select[Any]:
    """Return the samples in the slots with these hashes."""
    columns = samples.c.text, samples.c.payload, samples.c.codec
    return _with_hashes(dialect, *columns).where(samples.c.queued)


@functools.cache
def slots_of(dialect: Dialect) -> sa.Select[Any]:
    """Return the numbers of the slots, as text, whose rows have these ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return select(samples.c.id, samples.c.key).join_from(
        incoming, samples, samples.c.id == incoming.c.sample_id
    )


@functools.cache
def all_contents() -> sa.Select[Any]:
    """Return all samples with their slots and scores."""
    return select(
        samples.c.key, samples.c.score, samples.c.text, samples.c.payload, samples.c.codec
    ).where(samples.c.buffer_id == BUFFER, samples.c.queued)


@functools.cache
def all_standing() -> sa.Select[Any]:
    """Return the keys and weights of all samples; reads the whole pool."""
    return STANDING.where(pool.c.buffer_id == BUFFER)
