"""SQL of budgets: how many samples of a buffer are measured, failed or claimed."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.queries.params import BUFFER, IS_OPEN
from sqlbuffer.db.schema import batches, buffers, draws, samples, workers


@functools.cache
def used() -> sa.Select[Any]:
    """The budget of a buffer, and how many samples count against it.

    One statement: a sample that is settled between two would be counted by neither.
    """
    measured = select(
        sa.func.coalesce(sa.func.sum(workers.c.measured + workers.c.failed), 0)
    ).where(workers.c.buffer_id == BUFFER)
    claimed = (
        select(sa.func.count(draws.c.sample_id.distinct()))
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .join(samples, samples.c.id == draws.c.sample_id)
        .where(batches.c.buffer_id == BUFFER, IS_OPEN)
        .where(samples.c.rewarded_at.is_(None), ~draws.c.reported)
    )
    total = measured.scalar_subquery() + claimed.scalar_subquery()
    return select(buffers.c.budget, total.label("used")).where(buffers.c.id == BUFFER)


@functools.cache
def set_budget() -> sa.Update:
    """Store the budget of a buffer."""
    budget = bindparam("budget", type_=buffers.c.budget.type)
    return sa.update(buffers).where(buffers.c.id == BUFFER).values(budget=budget)
