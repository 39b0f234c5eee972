"""Who is at work on a buffer: what `sqlbuffer workers`, `sqlbuffer jobs` and `sqlbuffer claims` show and do."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer import leases
from sqlbuffer.attachment import Attachment
from sqlbuffer.batches import release, release_dead
from sqlbuffer.dialect import ago
from sqlbuffer.errors import ClaimLost
from sqlbuffer.heartbeat import INTERVAL_S
from sqlbuffer.repair import repair
from sqlbuffer.schema import batches, draws
from sqlbuffer.schema import workers as workers_table
from sqlbuffer.workers import LEDGER, dead, fold, worker_id

SILENT_S = 3 * INTERVAL_S
"""After so long without a heartbeat a worker is called silent."""

IS_OPEN = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))


def workers(connection: sa.Connection, attachment: Attachment) -> list[dict[str, Any]]:
    """Return the workers of a buffer, each with what it has done.

    A worker is "running"; "silent" when nothing was heard of it for three heartbeats; "finished" when it has closed the
    buffer; "died" when it has not, and is gone.
    """
    rows = connection.execute(
        sa.select(
            workers_table.c.id.label("worker"),
            workers_table.c.host,
            workers_table.c.pid,
            workers_table.c.created_at,
            workers_table.c.heartbeat_at,
            workers_table.c.finished_at,
            _n_claims().label("claims"),
            workers_table.c.added,
            workers_table.c.drawn,
            workers_table.c.settled,
        )
        .where(workers_table.c.buffer_id == attachment.buffer_id, workers_table.c.id != LEDGER)
        .order_by(workers_table.c.created_at, workers_table.c.id)
    )
    return _with_state(connection, attachment, rows)


def jobs(connection: sa.Connection, attachment: Attachment) -> list[dict[str, Any]]:
    """Return the jobs of a buffer."""
    return [
        {
            "buffer": attachment.name,
            "job": job.name,
            "state": "running" if job.is_held else "broken off" if job.is_broken_off else "idle",
            "owner": job.owner,
            "lease_until": job.lease_until,
            "last_started_at": job.last_started_at,
            "last_finished_at": job.last_finished_at,
            "runs": job.runs,
            "new": job.measured_now - job.measured,
            "schedule": job.schedule,
            "last_error": job.last_error,
        }
        for job in leases.find(connection, attachment)
    ]


def claims(connection: sa.Connection, attachment: Attachment) -> list[dict[str, Any]]:
    """Return the open batches of a buffer, the oldest first."""
    reported = sa.select(sa.func.count()).where(draws.c.batch_id == batches.c.id, draws.c.reported)
    rows = connection.execute(
        sa.select(
            batches.c.id.label("batch"),
            batches.c.worker_id.label("worker"),
            batches.c.iteration,
            batches.c.size,
            reported.scalar_subquery().label("reported"),
            batches.c.drawn_at,
        )
        .where(batches.c.buffer_id == attachment.buffer_id, IS_OPEN)
        .order_by(batches.c.id)
    )
    return _with_state(connection, attachment, rows)


def _with_state(connection: sa.Connection, attachment: Attachment, rows: sa.CursorResult[Any]) -> list[dict[str, Any]]:
    found = rows.mappings().all()
    this = workers_table.c.buffer_id == attachment.buffer_id
    is_done = sa.and_(workers_table.c.finished_at.is_not(None), _n_claims() == 0)
    ids = sa.select(workers_table.c.id).where(this)
    states = dict.fromkeys(connection.scalars(ids.where(workers_table.c.heartbeat_at < ago(SILENT_S))), "silent")
    states |= dict.fromkeys(dead(connection, attachment.buffer_id, grace_s=attachment.grace_s), "died")
    states |= dict.fromkeys(connection.scalars(ids.where(is_done)), "finished")
    return [{"buffer": attachment.name, **row, "state": states.get(row["worker"], "running")} for row in found]


def _n_claims() -> sa.ScalarSelect[int]:
    theirs = sa.and_(batches.c.buffer_id == workers_table.c.buffer_id, batches.c.worker_id == workers_table.c.id)
    return sa.select(sa.func.count()).where(theirs, IS_OPEN).scalar_subquery()


def release_batches(attachments: Sequence[Attachment], numbers: Sequence[int]) -> int:
    """Release open batches of these buffers; return how many.

    Raises:
        ClaimLost: Where one of them is not open, or not of these buffers. Nothing is released then.
    """
    found = {number: each for each in attachments for number in _open_batches(each)}
    if strangers := set(numbers) - set(found):
        raise ClaimLost(f"batch {min(strangers)} is not open: `sqlbuffer claims list` shows those that are.")
    last_first = sorted(set(numbers), reverse=True)
    return sum(found[i].database.write(functools.partial(_release, attachment=found[i], batch=i)) for i in last_first)


def _open_batches(attachment: Attachment) -> list[int]:
    return [row["batch"] for row in attachment.database.read(functools.partial(claims, attachment=attachment))]


def _release(connection: sa.Connection, *, attachment: Attachment, batch: int) -> bool:
    is_released = release(connection, attachment=attachment, batch=batch)
    _sign_off(connection, attachment=attachment)
    return is_released


def release_all_dead(attachment: Attachment) -> int:
    """Release the batches of the dead of a buffer; return how many."""
    n_released = release_dead(attachment)
    attachment.database.write(functools.partial(_sign_off, attachment=attachment))
    return n_released


def mend(connection: sa.Connection, *, attachment: Attachment) -> list[str]:
    """Repair a buffer; return what was done."""
    done = repair(connection, attachment=attachment)
    _sign_off(connection, attachment=attachment)
    return done


def _sign_off(connection: sa.Connection, *, attachment: Attachment) -> None:
    """Leave no row of a worker behind: a command that has ended is none."""
    fold(connection, attachment.buffer_id, worker=worker_id())
