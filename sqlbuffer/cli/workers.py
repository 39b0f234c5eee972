"""Who is at work on a buffer: what `sqlbuffer workers`, `sqlbuffer jobs` and `sqlbuffer claims` show and do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer.core import leases
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.reaper import release_dead
from sqlbuffer.core.release import release
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import (
    LEDGER,
    Mark,
    fold,
    silent_workers,
    stale_workers,
    unverifiable_workers,
    worker_id,
)
from sqlbuffer.db.schema import batches, draws
from sqlbuffer.db.schema import workers as workers_table
from sqlbuffer.errors import ClaimLost
from sqlbuffer.maintenance.repair import repair

IS_OPEN = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))


def workers(tx: Transaction) -> list[dict[str, Any]]:
    """Return the workers of a buffer, each with what it has done.

    A worker is "running"; "finished" when it has closed the buffer; "died" when it has not, and its process is gone;
    "silent" those of other hosts of which, by the database's clock, nothing was heard for the time of grace: one look
    cannot tell whether they have died, or a clock was set.
    """
    rows = tx.connection.execute(
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
        .where(workers_table.c.buffer_id == tx.buffer.buffer_id, workers_table.c.id != LEDGER)
        .order_by(workers_table.c.created_at, workers_table.c.id)
    )
    return _with_state(tx, rows)


def jobs(tx: Transaction) -> list[dict[str, Any]]:
    """Return the jobs of a buffer."""
    return [
        {
            "buffer": tx.buffer.name,
            "job": job.name,
            "state": _state(job),
            "owner": job.owner,
            "lease_until": job.lease_until,
            "last_started_at": job.last_started_at,
            "last_finished_at": job.last_finished_at,
            "runs": job.runs,
            "new": job.measured_now - job.measured,
            "schedule": job.schedule,
            "last_error": job.last_error,
        }
        for job in leases.find(tx)
    ]


def _state(job: leases.Job) -> str:
    if (
        job.is_held
    ):  # by the clock its lease may have run out, but only who looks on for so long may take it
        return "silent" if job.lease_until is not None and job.lease_until < job.now else "running"
    return "broken off" if job.is_broken_off else "idle"


def claims(tx: Transaction) -> list[dict[str, Any]]:
    """Return the open batches of a buffer, the oldest first."""
    reported = sa.select(sa.func.count()).where(draws.c.batch_id == batches.c.id, draws.c.reported)
    rows = tx.connection.execute(
        sa.select(
            batches.c.id.label("batch"),
            batches.c.worker_id.label("worker"),
            batches.c.iteration,
            batches.c.size,
            reported.scalar_subquery().label("reported"),
            batches.c.drawn_at,
        )
        .where(batches.c.buffer_id == tx.buffer.buffer_id, IS_OPEN)
        .order_by(batches.c.id)
    )
    return _with_state(tx, rows)


def _with_state(tx: Transaction, rows: sa.CursorResult[Any]) -> list[dict[str, Any]]:
    found = rows.mappings().all()
    is_done = sa.and_(workers_table.c.finished_at.is_not(None), _n_claims() == 0)
    done = sa.select(workers_table.c.id).where(
        workers_table.c.buffer_id == tx.buffer.buffer_id, is_done
    )
    state = dict.fromkeys(silent_workers(tx), "silent")
    state |= dict.fromkeys(stale_workers(tx), "died")
    state |= dict.fromkeys(tx.connection.scalars(done), "finished")
    return [
        {"buffer": tx.buffer.name, **row, "state": state.get(row["worker"], "running")}
        for row in found
    ]


def _n_claims() -> sa.ScalarSelect[int]:
    theirs = sa.and_(
        batches.c.buffer_id == workers_table.c.buffer_id, batches.c.worker_id == workers_table.c.id
    )
    return sa.select(sa.func.count()).where(theirs, IS_OPEN).scalar_subquery()


def release_batches(buffers: Sequence[BufferHandle], numbers: Sequence[int]) -> int:
    """Release open batches of these buffers; return how many.

    Raises:
        ClaimLost: Where one of them is not open, or not of these buffers. Nothing is released then.
    """
    found = {number: each for each in buffers for number in _open_batches(each)}
    if strangers := set(numbers) - set(found):
        raise ClaimLost(
            f"batch {min(strangers)} is not open: `sqlbuffer claims list` shows the open batches."
        )
    last_first = sorted(set(numbers), reverse=True)
    return sum(found[i].write(_release, batch=i) for i in last_first)


def _open_batches(buffer: BufferHandle) -> list[int]:
    return [row["batch"] for row in buffer.read(claims)]


def _release(tx: Transaction, *, batch: int) -> bool:
    is_released = release(tx, batch=batch)
    _sign_off(tx)
    return is_released


def release_all_dead(buffers: Sequence[BufferHandle], say: Callable[[str], object]) -> int:
    """Release the batches of the dead of these buffers; return how many.

    Workers of other hosts that have batches are watched until each has given a sign of life, or none for the time of
    grace.

    Args:
        buffers: The buffers.
        say: Is told when that is waited for.
    """
    n_released = sum(map(release_dead, buffers))
    found = {each.buffer_id: each.read(_unknown) for each in buffers}
    if n_watched := sum(map(len, found.values())):
        grace_s = buffers[0].grace_s
        say(
            f"{n_watched} workers of other hosts have batches: waiting for their heartbeats, at most {grace_s:g} s"
        )
    while any(found.values()):
        time.sleep(min(1.0, buffers[0].grace_s / 8))
        for each in buffers:
            n_released += release_dead(each)
            marks = each.read(_unknown)
            found[each.buffer_id] = dict(found[each.buffer_id].items() & marks.items())
    for each in buffers:
        each.write(_sign_off)
    return n_released


def _unknown(tx: Transaction) -> dict[str, Mark]:
    """Return the workers that have batches, and that only silence tells to be dead, each with its last mark."""
    owners = sa.select(batches.c.worker_id).where(
        batches.c.buffer_id == tx.buffer.buffer_id, IS_OPEN
    )
    at_work = set(tx.connection.scalars(owners))
    marks = unverifiable_workers(tx)
    return {worker: mark for worker, mark in marks.items() if worker in at_work}


def mend(tx: Transaction) -> list[str]:
    """Repair a buffer; return what was done."""
    done = repair(tx)
    _sign_off(tx)
    return done


def _sign_off(tx: Transaction) -> None:
    """Leave no row of a worker behind: a command that has ended is none."""
    fold(tx, worker=worker_id())
