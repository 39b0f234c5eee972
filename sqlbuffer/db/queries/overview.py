"""Lists for the command line: buffers, workers, and the batches that workers have claimed."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.queries.params import BUFFER, IS_OPEN
from sqlbuffer.db.schema import batches, buffers, draws, workers


@functools.cache
def buffers_by_age() -> sa.Select[Any]:
    """Names of all buffers of a database, in the order of their creation."""
    return select(buffers.c.name).order_by(buffers.c.id)


@functools.cache
def workers_with_claims() -> sa.Select[Any]:
    """Every worker of a buffer but the ledger, with its number of claimed batches and counters."""
    return (
        select(
            workers.c.id.label("worker"),
            workers.c.host,
            workers.c.pid,
            workers.c.created_at,
            workers.c.heartbeat_at,
            workers.c.finished_at,
            _n_claims().label("claims"),
            workers.c.added,
            workers.c.drawn,
            workers.c.settled,
        )
        .where(workers.c.buffer_id == BUFFER)
        .where(workers.c.id != bindparam("ledger", type_=sa.Text))
        .order_by(workers.c.created_at, workers.c.id)
    )


@functools.cache
def finished_workers() -> sa.Select[Any]:
    """Ids of the workers that have closed the buffer and have no claimed batch."""
    return (
        select(workers.c.id)
        .where(workers.c.buffer_id == BUFFER)
        .where(workers.c.finished_at.is_not(None))
        .where(_n_claims() == 0)
    )


@functools.cache
def claimed_batches() -> sa.Select[Any]:
    """Every claimed batch of a buffer with its number of reported samples, the oldest first."""
    reported = select(sa.func.count()).where(draws.c.batch_id == batches.c.id, draws.c.reported)
    return (
        select(
            batches.c.id.label("batch"),
            batches.c.worker_id.label("worker"),
            batches.c.iteration,
            batches.c.size,
            reported.scalar_subquery().label("reported"),
            batches.c.drawn_at,
        )
        .where(batches.c.buffer_id == BUFFER)
        .where(IS_OPEN)
        .order_by(batches.c.id)
    )


@functools.cache
def claim_owners() -> sa.Select[Any]:
    """Ids of the workers that have claimed batches, one row for each batch."""
    return select(batches.c.worker_id).where(batches.c.buffer_id == BUFFER).where(IS_OPEN)


def _n_claims() -> sa.ScalarSelect[int]:
    return (
        select(sa.func.count())
        .where(batches.c.buffer_id == workers.c.buffer_id)
        .where(batches.c.worker_id == workers.c.id)
        .where(IS_OPEN)
        .scalar_subquery()
    )
