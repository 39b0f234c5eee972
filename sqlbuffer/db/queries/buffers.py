"""SQL of buffers: clock, logical time, and the counters of workers, which are summed when read."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, now, right_now
from sqlbuffer.db.backends.hot import hot
from sqlbuffer.db.queries.params import BUFFER, LATER_THAN_ALL, NEXT_TICK
from sqlbuffer.db.queries.read import best_reward
from sqlbuffer.db.schema import buffers, workers

COUNTERS = (
    *("batches", "iterations", "added", "recorded", "requeued", "drawn", "settled", "released"),
    *("removed", "refused", "unscored", "unscorable", "measured", "failed"),
)
"""The columns of `workers` that are summed."""


@hot
def next_tick() -> sa.Select[Any]:
    """The logical time of a transaction: later than that of each transaction that it can see."""
    return LATER_THAN_ALL


@functools.cache
def totals() -> sa.Select[Any]:
    """The clock of the race, the next tick, and every counter summed over the workers."""
    sums = (sa.func.sum(workers.c[name]).label(name) for name in COUNTERS)
    largest = (sa.func.max(workers.c[name]).label(name) for name in ("clock", "touched"))
    return select(*largest, NEXT_TICK.label("tick"), *sums).where(workers.c.buffer_id == BUFFER)


@functools.cache
def own_totals() -> sa.Select[Any]:
    """Every counter summed over the workers, and when the buffer was created."""
    sums = (sa.func.sum(workers.c[name]).label(name) for name in COUNTERS)
    return (
        select(buffers.c.created_at, *sums)
        .join_from(buffers, workers, workers.c.buffer_id == buffers.c.id)
        .where(buffers.c.id == BUFFER)
        .group_by(buffers.c.id)
    )


@functools.cache
def created_at() -> sa.Select[Any]:
    """When the buffer was created, which tells it from a later one with its id."""
    return select(buffers.c.created_at).where(buffers.c.id == BUFFER)


@functools.cache
def changes() -> sa.Select[Any]:
    """Numbers of which at least one differs after each transaction that changed waiting samples.

    The sum of the ticks, not the largest: two transactions at the same time may have the same tick.
    """
    sums = (sa.func.sum(workers.c[name]).label(name) for name in ("tick", *COUNTERS))
    return select(*sums).where(workers.c.buffer_id == BUFFER)


@functools.cache
def stats(direction: str) -> sa.Select[Any]:
    """All counters summed over the workers, the buffer's row and best reward: one statement."""
    sums = (sa.func.sum(workers.c[name]).label(name) for name in COUNTERS)
    best = best_reward(direction)
    names = (
        "name",
        "kind",
        "mode",
        "score_version",
        "refreshed_version",
        "created_at",
        "key",
        "max_size",
        "direction",
        "evict",
        "budget",
        "objective",
        "max_attempts",
    )
    own = (buffers.c[name] for name in names)
    return (
        select(*own, *sums, best.scalar_subquery().label("best_reward"))
        .join_from(buffers, workers, workers.c.buffer_id == buffers.c.id)
        .where(buffers.c.id == BUFFER)
        .group_by(buffers.c.id)
    )


@hot
def race_state() -> sa.Select[Any]:
    """The state of the race, which each change of the race reads: one statement."""
    return (
        select(
            sa.func.max(workers.c.clock).label("clock"),
            sa.func.max(workers.c.touched).label("touched"),
            sa.func.sum(workers.c.batches).label("turn"),
            sa.func.sum(workers.c.iterations).label("iteration"),
            buffers.c.base_score,
            buffers.c.top_score,
            buffers.c.score_version,
            buffers.c.epoch,
            buffers.c.max_size,
            buffers.c.objective,
            buffers.c.budget,
            buffers.c.evict,
            buffers.c.created_at,
            NEXT_TICK.label("tick"),
        )
        .join_from(buffers, workers, workers.c.buffer_id == buffers.c.id)
        .where(buffers.c.id == BUFFER)
        .group_by(buffers.c.id)
    )


@functools.cache
def objective() -> sa.Select[Any]:
    """The name of the reward function whose rewards the samples have."""
    return select(buffers.c.objective).where(buffers.c.id == BUFFER)


@functools.cache
def objective_and_key() -> sa.Select[Any]:
    """The name of the reward function, and the stored name of the key function."""
    return select(buffers.c.objective, buffers.c.key).where(buffers.c.id == BUFFER)


@hot
def count() -> sa.Update:
    """Add to the counters of a worker, set its heartbeat, and move its clocks and tick forward.

    A clock of NULL changes nothing.
    """
    added = {
        name: workers.c[name] + bindparam(f"d_{name}", type_=sa.BigInteger) for name in COUNTERS
    }
    clock: sa.BindParameter[float] = bindparam("new_clock", type_=sa.Double)
    touched: sa.BindParameter[float] = bindparam("new_touched", type_=sa.Double)
    tick: sa.BindParameter[int] = bindparam("new_tick", type_=sa.BigInteger)
    return (
        sa.update(workers)
        .where(workers.c.buffer_id == BUFFER)
        .where(workers.c.id == bindparam("worker", type_=sa.Text))
        .values(
            **added,
            clock=sa.case((clock > workers.c.clock, clock), else_=workers.c.clock),
            touched=sa.case((touched > workers.c.touched, touched), else_=workers.c.touched),
            tick=sa.case((tick > workers.c.tick, tick), else_=workers.c.tick),
            heartbeat_at=right_now(),
            finished_at=None,
        )
    )


UPDATE_BUFFER = sa.update(buffers).where(buffers.c.id == BUFFER)
"""An update of the row of this buffer, without its values."""


@functools.cache
def set_base_score() -> sa.Update:
    """Store the lowest score that weights are counted from, `base`; every key has moved."""
    base: sa.BindParameter[float | None] = bindparam("base", type_=sa.Double)
    return UPDATE_BUFFER.values(base_score=base, epoch=buffers.c.epoch + 1)


@functools.cache
def set_top_score() -> sa.Update:
    """Store the lowest score of samples that are marked as top, `least`; NULL: none is marked."""
    return UPDATE_BUFFER.values(top_score=bindparam("least", type_=sa.Double))


@functools.cache
def advance_epoch() -> sa.Update:
    """Store that every key has moved."""
    return UPDATE_BUFFER.values(epoch=buffers.c.epoch + 1)


@functools.cache
def limit_size() -> sa.Update:
    """Store the limit `most` of the samples that wait."""
    return UPDATE_BUFFER.values(max_size=bindparam("most", type_=BigId))


@functools.cache
def name_key() -> sa.Update:
    """Store the name of the key function in a buffer of an older release, which has none."""
    untold = UPDATE_BUFFER.where(buffers.c.key.is_(None))
    return untold.values(key=bindparam("key_name", type_=sa.Text))


UNFINISHED = "unfinished copy: "
"""How the names of copies into this database begin that are not finished."""

_IS_UNFINISHED = sa.func.substr(buffers.c.name, 1, len(UNFINISHED)) == UNFINISHED


@functools.cache
def buffer_names() -> sa.Select[Any]:
    """Names of all buffers of a database, in the order of their creation; no unfinished copies."""
    return select(buffers.c.name).where(~_IS_UNFINISHED).order_by(buffers.c.id)


@functools.cache
def finished() -> sa.Select[Any]:
    """The rows of all buffers, in the order of their creation; no unfinished copies."""
    return select(buffers).where(~_IS_UNFINISHED).order_by(buffers.c.id)


@functools.cache
def unfinished_copies() -> sa.Select[Any]:
    """Names of the unfinished copies of a database, in the order of their creation."""
    return select(buffers.c.name).where(_IS_UNFINISHED).order_by(buffers.c.id)


@functools.cache
def buffer_named() -> sa.Select[Any]:
    """The row of the buffer that has a name."""
    return select(buffers).where(buffers.c.name == bindparam("name", type_=sa.Text))


@functools.cache
def insert_buffer(dialect: Dialect) -> Any:
    """Store a new buffer; returns its id, and no row if there is a buffer of this name."""
    given = (
        *("name", "kind", "mode", "seed", "settings", "key"),
        *("max_size", "direction", "evict", "budget", "max_attempts", "keep_key"),
    )
    values: dict[str, Any] = {name: bindparam(name, type_=buffers.c[name].type) for name in given}
    versions = dict.fromkeys(("score_version", "refresh_version", "refreshed_version"), 0)
    insert = dialect.upsert(buffers).values(**values, **versions, created_at=now())
    return insert.on_conflict_do_nothing(index_elements=["name"]).returning(buffers.c.id)
