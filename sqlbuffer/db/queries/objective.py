"""SQL of objectives: begin another one, and read the rewards of an earlier one."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import Dialect
from sqlbuffer.db.queries.params import BUFFER, INCOMING_IDS, NEVER
from sqlbuffer.db.schema import buffers, measurements, samples

_OBJECTIVE = bindparam("objective", type_=sa.Text)


@functools.cache
def is_used() -> sa.Select[Any]:
    """True if a buffer has, or had, an objective of this name."""
    had = sa.exists(measurements.c.id).where(
        measurements.c.buffer_id == BUFFER, measurements.c.objective == _OBJECTIVE
    )
    is_current = buffers.c.objective == _OBJECTIVE
    return select(sa.or_(is_current, had).label("is_used")).where(buffers.c.id == BUFFER)


def measured() -> sa.Select[Any]:
    """The ids of measured and failed samples, by id; the user may narrow it."""
    return (
        select(samples.c.id)
        .where(samples.c.buffer_id == BUFFER, samples.c.rewarded_at.is_not(None))
        .order_by(samples.c.id)
    )


@functools.cache
def lock_measured(dialect: Dialect) -> sa.Select[Any]:
    """Lock all measured and failed samples, with the columns of `batches.draws_of_batch`."""
    found = (
        select(
            samples.c.id.label("sample_id"),
            NEVER.label("race_key"),
            sa.null().label("weight"),
            samples.c.queued,
            samples.c.reward,
            samples.c.score,
            samples.c.score_version,
            samples.c.scored_at.is_not(None).label("scored"),
            samples.c.hash,
            (samples.c.requeues + 1).label("requeues"),
        )
        .where(samples.c.buffer_id == BUFFER, samples.c.rewarded_at.is_not(None))
        .order_by(samples.c.id)
    )
    return dialect.lock_rows(found, samples)


@functools.cache
def begin() -> tuple[sa.Update, sa.Update]:
    """Store the new objective; take the rewards and failures of the old one from the samples."""
    name = sa.update(buffers).where(buffers.c.id == BUFFER).values(objective=_OBJECTIVE)
    none = dict.fromkeys(("reward", "error", "rewarded_at", "rewarded_tick"))
    return name, (
        sa.update(samples)
        .where(samples.c.buffer_id == BUFFER)
        .where(sa.or_(samples.c.rewarded_at.is_not(None), samples.c.attempts > 0))
        .values(attempts=0, **none)
    )


@functools.cache
def requeue(dialect: Dialect) -> sa.Update:
    """Mark samples as waiting again."""
    incoming = dialect.each(INCOMING_IDS)
    return (
        sa.update(samples)
        .where(samples.c.id == incoming.sample_id)
        .values(queued=True, evicted=False, requeues=samples.c.requeues + 1)
    )


@functools.cache
def newest_rewards() -> sa.Subquery:
    """The newest reward of each sample under an objective: `earlier_of, earlier`.

    No table has these names: a user's condition on `reward` means that of `samples`.
    """
    m = measurements.c
    place = sa.func.row_number().over(partition_by=m.sample_id, order_by=m.id.desc())
    numbered = (
        select(m.sample_id, m.reward, place.label("place"))
        .where(m.buffer_id == BUFFER, m.objective == _OBJECTIVE, m.reward.is_not(None))
        .subquery("numbered")
    )
    n = numbered.c
    columns: Any = (n.sample_id.label("earlier_of"), n.reward.label("earlier"))
    return select(*columns).where(n.place == 1).subquery("of_objective")
