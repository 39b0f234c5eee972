"""SQL of budgets: how many samples of a buffer are measured, failed or claimed."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.queries.params import BUFFER, OPEN_HERE, TIE
from sqlbuffer.db.schema import batches, buffers, draws, pool, samples, workers

_CLAIMED = (
    select(draws.c.sample_id)
    .join_from(batches, draws, draws.c.batch_id == batches.c.id)
    .where(OPEN_HERE, ~draws.c.reported)
)
"""The samples that open batches hold and have not reported."""


def _used() -> sa.ColumnElement[int]:
    """How many samples count against the budget of a buffer."""
    measured = select(
        sa.func.coalesce(sa.func.sum(workers.c.measured + workers.c.failed), 0)
    ).where(workers.c.buffer_id == BUFFER)
    claimed = (
        _CLAIMED.with_only_columns(sa.func.count(draws.c.sample_id.distinct()))
        .join(samples, samples.c.id == draws.c.sample_id)
        .where(samples.c.rewarded_at.is_(None))
    )
    return measured.scalar_subquery() + claimed.correlate(None).scalar_subquery()


@functools.cache
def used() -> sa.Select[Any]:
    """The budget of a buffer, and how many samples count against it.

    One statement: a sample that is settled between two would be counted by neither.
    """
    return select(buffers.c.budget, _used().label("used")).where(buffers.c.id == BUFFER)


@functools.cache
def costs_of_head() -> sa.Select[Any]:
    """The first `limit` samples of the race up to `last_key`, and the `n_heaviest` best scores.

    `costs` is true for a sample that is neither measured nor failed nor claimed. `budget` and
    `used` are those of `used()`, in the same state of the database.
    """
    tie = select(TIE.label("tie")).where(samples.c.id == pool.c.sample_id).scalar_subquery()
    by_key = (pool.c.buffer_id, pool.c.race_key, tie, pool.c.sample_id)
    by_score = (pool.c.buffer_id, pool.c.score, pool.c.tie, pool.c.sample_id)
    columns = (pool.c.sample_id, pool.c.race_key, pool.c.score)
    waiting = select(*columns).where(pool.c.buffer_id == BUFFER)
    up_to = pool.c.race_key <= bindparam("last_key", type_=sa.Double)

    def first(rows: sa.Select[Any], name: str, limit: str) -> sa.Select[Any]:
        found = rows.limit(bindparam(limit, type_=sa.Integer)).subquery(name)
        is_heaviest = sa.literal(name == "heaviest", sa.Boolean).label("is_heaviest")
        return select(is_heaviest, *found.c)

    found = sa.union_all(
        first(waiting.where(up_to).order_by(*by_key), "arrivals", "limit"),
        first(
            waiting.where(pool.c.top).order_by(*(column.desc() for column in by_score)),
            "heaviest",
            "n_heaviest",
        ),
    ).subquery("head")
    is_new = sa.and_(samples.c.rewarded_at.is_(None), found.c.sample_id.not_in(_CLAIMED))
    return select(
        *found.c,
        TIE.label("tie"),
        is_new.label("costs"),
        select(buffers.c.budget).where(buffers.c.id == BUFFER).scalar_subquery().label("budget"),
        _used().label("used"),
    ).join_from(found, samples, samples.c.id == found.c.sample_id)


@functools.cache
def set_budget() -> sa.Update:
    """Store the budget of a buffer."""
    budget = bindparam("budget", type_=buffers.c.budget.type)
    return sa.update(buffers).where(buffers.c.id == BUFFER).values(budget=budget)
