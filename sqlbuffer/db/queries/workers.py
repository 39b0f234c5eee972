"""Workers: their rows, heartbeats and counters, and the ledger of the workers that are gone."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import Dialect, from_now, now, right_now
from sqlbuffer.db.queries.buffers import COUNTERS
from sqlbuffer.db.queries.params import BUFFER, IS_OPEN
from sqlbuffer.db.schema import batches, jobs, receipts, workers

LEDGER = "ledger"
"""Id of the row to which the counters of workers that are gone are added."""

_CLOCKS = ("clock", "touched", "tick")
_WORKER: sa.BindParameter[str] = bindparam("worker", type_=sa.Text)
_MINUS_SECONDS: sa.BindParameter[float] = bindparam("minus_seconds", type_=sa.Double)
_THIS = sa.and_(workers.c.buffer_id == BUFFER, workers.c.id == _WORKER)
_LEDGER = sa.and_(workers.c.buffer_id == BUFFER, workers.c.id == LEDGER)


@functools.cache
def register_worker(dialect: Dialect) -> Any:
    """Insert the row of a worker, unless it is there."""
    given = {"host": "at_host", "pid": "process", "process_started_at": "started_at"}
    columns = {
        name: bindparam(given_as, type_=workers.c[name].type) for name, given_as in given.items()
    }
    return (
        dialect.upsert(workers)
        .values(
            buffer_id=BUFFER,
            id=_WORKER,
            **columns,
            created_at=now(),
            heartbeat_at=right_now(),
            clock=0.0,
            **dict.fromkeys(COUNTERS, 0),
        )
        .on_conflict_do_nothing(index_elements=[workers.c.buffer_id, workers.c.id])
    )


@functools.cache
def beat_worker() -> sa.Update:
    """Store the heartbeat of a worker."""
    return sa.update(workers).where(_THIS).values(heartbeat_at=right_now(), finished_at=None)


@functools.cache
def finish_worker() -> sa.Update:
    """Note that a worker has closed the buffer."""
    return sa.update(workers).where(_THIS).values(finished_at=right_now())


@functools.cache
def attached_workers() -> sa.Select[Any]:
    """Return the workers of a buffer with all that tells whether they are alive, by id.

    `finished` is true for a worker that has closed the buffer and has no open batch or job left.
    `database` is the parameter `origin`, the identity of the database of this connection.
    """
    columns = ("id", "host", "pid", "process_started_at", "heartbeat_at", "tick")
    origin: sa.BindParameter[str] = bindparam("origin", type_=sa.Text)
    return (
        select(
            *(workers.c[name] for name in columns),
            _has_finished().label("finished"),
            origin.label("database"),
        )
        .where(workers.c.buffer_id == BUFFER)
        .where(workers.c.id != LEDGER)
        .order_by(workers.c.id)
    )


@functools.cache
def lock_workers(dialect: Dialect) -> sa.Select[Any]:
    """`attached_workers` of these ids; lock their rows."""
    ids = bindparam("worker_ids", type_=sa.Text, expanding=True)
    return dialect.lock_rows(attached_workers().where(workers.c.id.in_(ids)), workers)


@functools.cache
def silent_workers() -> sa.Select[Any]:
    """`attached_workers` without a heartbeat for some seconds, by the clock of the database."""
    return attached_workers().where(workers.c.heartbeat_at < from_now(_MINUS_SECONDS))


def _has_finished() -> sa.ColumnElement[bool]:
    its_batches = sa.exists(batches.c.id).where(
        batches.c.buffer_id == workers.c.buffer_id,
        batches.c.worker_id == workers.c.id,
        batches.c.settled_at.is_(None),
        batches.c.released_at.is_(None),
    )
    its_jobs = sa.exists(jobs.c.name).where(
        jobs.c.buffer_id == workers.c.buffer_id, jobs.c.owner == workers.c.id
    )
    return sa.and_(workers.c.finished_at.is_not(None), ~its_batches, ~its_jobs)


@functools.cache
def delete_worker() -> Any:
    """Delete the row of a worker; return its clocks and counters."""
    return (
        sa.delete(workers)
        .where(_THIS)
        .returning(*(workers.c[name] for name in (*_CLOCKS, *COUNTERS)))
    )


@functools.cache
def add_to_ledger() -> sa.Update:
    """Add counters to the ledger and move its clocks forward; a clock of NULL moves nothing.

    The parameters are named `d_*`, by column.
    """
    given = {
        name: bindparam(f"d_{name}", type_=workers.c[name].type) for name in (*_CLOCKS, *COUNTERS)
    }
    largest = {
        name: sa.case((workers.c[name] < given[name], given[name]), else_=workers.c[name])
        for name in _CLOCKS
    }
    added = {name: workers.c[name] + given[name] for name in COUNTERS}
    return sa.update(workers).where(_LEDGER).values(**largest, **added)


@functools.cache
def ledger() -> sa.Select[Any]:
    """Return the id of the ledger, if there is one."""
    return select(workers.c.id).where(_LEDGER)


def set_ledger(values: dict[str, Any]) -> sa.Update:
    """Set columns of the ledger."""
    return sa.update(workers).where(_LEDGER).values(values)


@functools.cache
def delete_receipts() -> sa.Delete:
    """Delete receipts of all buffers that are older than some seconds."""
    return sa.delete(receipts).where(receipts.c.written_at < from_now(_MINUS_SECONDS))


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


def _n_claims() -> sa.ScalarSelect[int]:
    return (
        select(sa.func.count())
        .where(batches.c.buffer_id == workers.c.buffer_id)
        .where(batches.c.worker_id == workers.c.id)
        .where(IS_OPEN)
        .scalar_subquery()
    )
