"""SQL of the pool: samples enter, move and leave; the race is shifted and its clock reset."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect
from sqlbuffer.db.backends.hot import hot
from sqlbuffer.db.queries.params import (
    BUFFER,
    INCOMING_DRAWN,
    INCOMING_ENTRIES,
    INCOMING_IDS,
    INCOMING_KEYS,
    INCOMING_PLACES,
    INCOMING_STANDS,
    IS_RELEASED,
    NEVER,
    OPEN_HERE,
    STANDING,
    tie_of,
)
from sqlbuffer.db.schema import batches, draws, pool, workers


@hot
def enter_pool(dialect: Dialect) -> Any:
    """Put samples into the pool."""
    incoming = dialect.each(INCOMING_ENTRIES)
    columns = ("race_key", "sample_id", "weight", "score", "top", "entries")
    values = {name: getattr(incoming, name) for name in columns}
    return dialect.insert_each(
        pool, {"buffer_id": BUFFER, **values, "tie": tie_of(incoming.top, incoming.sample_id)}
    )


@hot
def move_keys(dialect: Dialect) -> Any:
    """Give waiting samples new keys and weights if they still have the old ones."""
    incoming = dialect.each(INCOMING_KEYS)
    return (
        sa.update(pool)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.race_key == incoming.old_key)
        .where(pool.c.sample_id == incoming.sample_id)
        .where(pool.c.weight.is_not_distinct_from(incoming.old_weight))
        .values({name: getattr(incoming, name) for name in ("race_key", "weight", "score", "top")})
        .values(
            tie=tie_of(incoming.top, incoming.sample_id),
            entries=dialect.noted(INCOMING_KEYS, incoming.entries),
        )
    )


@functools.cache
def standing_of_batches(dialect: Dialect) -> sa.Select[Any]:
    """Return where the samples of some batches wait: one reading of the pool for all of them.

    The caller has locked the race exclusively. The ids of the batches travel as ids of samples.
    """
    incoming = select(dialect.relation(INCOMING_IDS).c.sample_id)
    drawn = select(draws.c.sample_id).where(draws.c.batch_id.in_(incoming))
    return STANDING.where(pool.c.buffer_id == BUFFER, pool.c.sample_id.in_(drawn))


@hot
def leave_pool(dialect: Dialect) -> sa.Delete:
    """Take samples out of the pool, found by their keys."""
    incoming = dialect.each(INCOMING_PLACES)
    return (
        sa.delete(pool)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.race_key == incoming.race_key)
        .where(pool.c.sample_id == incoming.sample_id)
    )


@hot
def leave_up_to() -> sa.Delete:
    """Take all samples up to a key and an id out of the pool: a batch, if no other draw can run."""
    place = sa.tuple_(pool.c.race_key, pool.c.sample_id)
    last = sa.tuple_(bindparam("last_key", type_=sa.Double), bindparam("last_id", type_=BigId))
    return sa.delete(pool).where(pool.c.buffer_id == BUFFER).where(place <= last)


@functools.cache
def shift_weights() -> sa.Update:
    """Give every sample in the race the weight of `race.Shift`, and stretch the rest of its key.

    `base` is the lowest score, bounded as in `race.shift_base`. Sums and differences of float64 are
    the same in SQL and numpy, to the last bit. Adding the difference of two bases to the old weight
    would be rounded differently.
    """
    base, floor, least, most, clock = (
        bindparam(name, type_=sa.Double) for name in ("base", "floor", "least", "most", "clock")
    )
    bounded = sa.case(
        (pool.c.score > most, most), (pool.c.score < least, least), else_=pool.c.score
    )
    weight = sa.case((bounded > base, bounded - base + floor), else_=floor)
    stretched = clock + (pool.c.race_key - clock) * (pool.c.weight / weight)
    return (
        sa.update(pool)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.race_key < NEVER)
        .values(
            weight=weight,
            race_key=sa.case((pool.c.race_key > clock, stretched), else_=pool.c.race_key),
        )
    )


@functools.cache
def turn_back_keys() -> sa.Update:
    """Subtract the clock from every key: the clock continues from zero."""
    return (
        sa.update(pool)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.race_key < NEVER)
        .values(race_key=pool.c.race_key - bindparam("clock", type_=sa.Double))
    )


@functools.cache
def turn_back_open() -> tuple[sa.Update, sa.Update]:
    """Subtract the clock from the keys and clocks of open batches, and of released ones beyond it.

    A release puts the samples of an open batch back to these keys. `released_beyond` compares keys
    with those of a released batch whose clock was beyond the race's.
    """
    clock: sa.BindParameter[float] = bindparam("clock", type_=sa.Double)
    # Two ranges of indexes: under one condition with OR, SQLite reads all batches of the buffer.
    beyond = sa.and_(batches.c.buffer_id == BUFFER, IS_RELEASED, batches.c.clock > clock)
    ids = sa.union_all(*(select(batches.c.id).where(some) for some in (OPEN_HERE, beyond)))
    return (
        sa.update(draws)
        .where(draws.c.batch_id.in_(ids))
        .where(draws.c.race_key < NEVER)
        .values(race_key=draws.c.race_key - clock),
        sa.update(batches)
        .where(batches.c.id.in_(ids))
        .values(clock=batches.c.clock - clock, clock_before=batches.c.clock_before - clock),
    )


@functools.cache
def overdue() -> tuple[sa.Select[Any], sa.Select[Any]]:
    """The keys that the clock has passed: of waiting samples, and of draws in open batches."""
    clock: sa.BindParameter[float] = bindparam("clock", type_=sa.Double)
    return (
        select(pool.c.sample_id, pool.c.race_key)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.race_key <= clock),
        select(draws.c.batch_id.label("batch"), draws.c.position, draws.c.race_key)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(OPEN_HERE)
        .where(draws.c.race_key <= clock),
    )


@functools.cache
def stand_at(dialect: Dialect) -> sa.Update:
    """Move waiting samples from one key to another, with the same weight."""
    incoming = dialect.each(INCOMING_STANDS)
    return (
        sa.update(pool)
        .where(pool.c.buffer_id == BUFFER)
        .where(pool.c.race_key == incoming.old_key)
        .where(pool.c.sample_id == incoming.sample_id)
        .values(race_key=incoming.race_key)
    )


@functools.cache
def drawn_at(dialect: Dialect) -> sa.Update:
    """Give draws another key."""
    incoming = dialect.each(INCOMING_DRAWN)
    return (
        sa.update(draws)
        .where(draws.c.batch_id == incoming.batch)
        .where(draws.c.position == incoming.position)
        .where(draws.c.race_key == incoming.old_key)
        .values(race_key=incoming.race_key)
    )


_PASSED: sa.BindParameter[float] = bindparam("passed", type_=sa.Double)
_NEW_CLOCK: sa.BindParameter[float] = bindparam("new_clock", type_=sa.Double)


@functools.cache
def turn_back_clocks() -> sa.Update:
    """Set the clock of every worker to 0, `passed` being the clock of the race before."""
    this = sa.update(workers).where(workers.c.buffer_id == BUFFER)
    return this.values(clock=0.0, touched=workers.c.touched - _PASSED)


@functools.cache
def take_back_clock() -> sa.Update:
    """Set the clock of each worker that is beyond `new_clock` to it."""
    beyond = sa.update(workers).where(workers.c.buffer_id == BUFFER, workers.c.clock > _NEW_CLOCK)
    return beyond.values(clock=_NEW_CLOCK)
