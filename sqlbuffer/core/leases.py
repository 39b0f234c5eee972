"""Leases on jobs: a job has one owner at a time.

The owner renews its lease while it works. Another worker takes a job whose lease is not renewed.

The row of a job counts its runs: each taking is one more. That number is the fence: a process that
was paused for longer than its lease still works on an earlier run, so it can neither store a
result nor end the run of another worker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from sqlbuffer._messages import shown, summary
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.heartbeat import INTERVAL_S, PATIENCE_S, Beat, Heartbeat, Occasion
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import stale_workers, worker_id
from sqlbuffer.db import disposal, queries
from sqlbuffer.errors import InvalidArgument, LeaseLost

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """The right to do a job once.

    Attributes:
        job: Name of the job.
        owner: The worker that holds it.
        run: How often the job has been taken, this time included.
        began_at: When it was taken, by the database's clock, UTC.

    Examples:
        >>> with store.leased("retrain") as lease:
        ...     print(lease.job, lease.run)
        retrain 1
    """

    job: str
    owner: str
    run: int
    began_at: dt.datetime | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """The state of a job.

    Attributes:
        name: Name of the job.
        owner: The worker that runs it, None if no worker does.
        is_held: True unless there is no owner, the owner is stale, or this process has seen that
            the owner has not renewed its lease for `grace_s`.
        lease_until: When the lease ends, UTC.
        last_started_at: When the last run started, UTC.
        last_finished_at: When a run last ended, with or without an error, UTC.
        last_error: The error of the last run, None if there was none.
        runs: How often the job was taken.
        measured: Number of labelled samples when the last run started.
        schedule: When the job is due, in words.
        measured_now: Number of labelled samples now.
        now: The time now, by the database's clock, UTC.
        started_ago_s: Seconds since the last run started. This process measures them by a monotonic
            clock from its first look on; the first look uses the database's clock, and infinity
            stands for a start in the future.
        ended_run: The run that ended last; None before the first, and if an older release ran it.

    Examples:
        >>> with store.leased("retrain"):
        ...     (job,) = store.jobs()
        >>> job.name, job.is_held, job.runs, job.last_error
        ('retrain', True, 1, None)
    """

    name: str
    owner: str | None
    is_held: bool
    lease_until: dt.datetime | None
    last_started_at: dt.datetime | None
    last_finished_at: dt.datetime | None
    last_error: str | None
    runs: int
    measured: int
    schedule: str | None
    measured_now: int
    now: dt.datetime
    started_ago_s: float | None = None
    ended_run: int | None = None

    @property
    def is_broken_off(self) -> bool:
        """True if the last run never ended: its owner died, was stopped, or lost its lease."""
        if self.last_started_at is None or self.is_held:
            return False
        if self.ended_run is not None:
            return self.ended_run < self.runs
        return self.last_finished_at is None or self.last_finished_at < self.last_started_at


def find(tx: Transaction) -> list[Job]:
    """Return the jobs of a buffer."""
    began = tx.buffer.watch.begin()
    rows = tx.execute(queries.jobs.jobs_of_buffer()).mappings().all()
    lost = _seen_to_be_lost(tx.buffer, rows, began=began)
    gone = stale_workers(tx)
    return [
        Job(
            **row,
            is_held=row["owner"] is not None
            and row["name"] not in lost
            and row["owner"] not in gone,
            started_ago_s=_started_ago_s(tx.buffer, row, began=began),
        )
        for row in rows
    ]


def look(tx: Transaction) -> None:
    """Watch the leases of all jobs: an expired lease is recognised only after two looks."""
    find(tx)


def _seen_to_be_lost(buffer: BufferHandle, rows: Sequence[Any], *, began: float) -> set[str]:
    """Return the names of the jobs whose leases have not been renewed for `grace_s`, as watched."""
    held = {
        row["name"]: (row["owner"], row["runs"], row["lease_until"])
        for row in rows
        if row["owner"] is not None
    }
    gap_s = buffer.grace_s / 2
    same_s = buffer.watch.same_for_s(("leases", buffer.buffer_id), held, began=began, gap_s=gap_s)
    return {name for name, seconds in same_s.items() if seconds >= buffer.grace_s}


def _started_ago_s(buffer: BufferHandle, row: Any, *, began: float) -> float | None:
    if row["last_started_at"] is None:
        return None
    told_s = (row["now"] - row["last_started_at"]).total_seconds()
    group = ("starts", buffer.buffer_id)
    return buffer.watch.age_s(group, row["name"], row["runs"], told_s=told_s, began=began)


def announce(tx: Transaction, job: str, schedule: str | None = None) -> None:
    """Insert the row of a job, unless it is there; store in words when the job is due."""
    tx.execute(queries.jobs.add_job(tx.backend), job=job, schedule=schedule)


def take(tx: Transaction, job: str, seen: int | None = None) -> Lease | None:
    """Take a job.

    Returns:
        The lease; None if another worker holds the job, or if `seen` is given and is not the number
        of runs.
    """
    tx.race_state()  # raises if the buffer is gone
    announce(tx, job)
    began = tx.buffer.watch.begin()
    rows = tx.execute(queries.jobs.jobs_of_buffer()).mappings().all()
    lost = _seen_to_be_lost(tx.buffer, rows, began=began)
    # A lease that has been renewed since has another end, so it does not match.
    until = next((row["lease_until"] for row in rows if row["name"] == job and job in lost), None)
    owner, lease_s = worker_id(), tx.buffer.grace_s
    taken = {"job": job, "owner_id": owner, "lease_s": lease_s, "seen": seen, "lost_until": until}
    run = tx.execute(queries.jobs.take_job(), **taken).one_or_none()
    tx.count()  # registers this worker: others learn from its row whether it is stale
    return None if run is None else Lease(job, owner, int(run.runs), run.last_started_at)


def require(tx: Transaction, lease: Lease) -> None:
    """Hold the lease until this transaction ends.

    Raises:
        LeaseLost: If the job was released or taken over, or if the parent of this fork holds it.
    """
    if not isinstance(lease, Lease):
        raise InvalidArgument(f"lease must be the result of `leased`, or None; got {shown(lease)}.")
    if lease.owner != worker_id():
        raise LeaseLost(
            f"run {lease.run} of the job {lease.job!r} belongs to {lease.owner}, and this "
            f"process is {worker_id()}: nothing was stored; store the result in the process that "
            "took the job."
        )
    statement = queries.jobs.hold_job(tx.backend)
    if tx.execute(statement, **_key(lease)).one_or_none() is None:
        tx.race_state()  # raises if the buffer is gone
        raise LeaseLost(
            f"run {lease.run} of the job {lease.job!r} no longer belongs to {lease.owner}: the "
            "lease expired or the worker was considered stale, and nothing was stored; the "
            "worker that now has the job repeats it."
        )


def end(tx: Transaction, lease: Lease, *, error: str | None = None, is_over: bool = True) -> None:
    """End a run and release the job. A run that is not over is repeated.

    Raises:
        LeaseLost: If the job was released or taken over.
    """
    require(tx, lease)
    tx.execute(queries.jobs.end_job(), **_key(lease), error=error, over=is_over)


def release_jobs(tx: Transaction, owners: Sequence[str]) -> None:
    """Release the jobs of stale workers."""
    tx.execute(queries.jobs.let_go_jobs(), owner_ids=list(owners))


@contextlib.contextmanager
def renewed(buffer: BufferHandle, lease: Lease) -> Iterator[None]:
    """Renew the lease during the block, from a thread with its own connection."""
    interval_s = min(INTERVAL_S, buffer.grace_s / 4)
    renewal = Heartbeat(functools.partial(_renewals, buffer.apart(), lease), interval_s)
    patience_s = PATIENCE_S
    try:
        renewal.start()
        yield
    except GeneratorExit:  # in a finalizer
        patience_s = 0.0
        raise
    finally:
        renewal.stop(patience_s=patience_s)


@contextlib.contextmanager
def _renewals(apart: BufferHandle, lease: Lease) -> Iterator[Beat]:
    def beat(occasion: Occasion) -> None:
        if occasion is Occasion.ALIVE:
            apart.write(_renew, lease)

    with contextlib.closing(apart.database):
        yield beat


def _renew(tx: Transaction, lease: Lease) -> None:
    renewal = {**_key(lease), "lease_s": tx.buffer.grace_s}
    if not tx.execute(queries.jobs.renew_job(), **renewal).rowcount:
        log.warning(
            "run %d of the job %r was lost to another worker: its result will be discarded",
            lease.run,
            lease.job,
        )


def _key(lease: Lease) -> dict[str, object]:
    return {"job": lease.job, "owner_id": lease.owner, "run": lease.run, "began_at": lease.began_at}


@contextlib.contextmanager
def leased(buffer: BufferHandle, job: str, seen: int | None = None) -> Iterator[Lease | None]:
    """Take a job for the block, and yield the lease; None if another worker holds the job.

    An error is stored with the job and raised again. An interrupted run (Ctrl-C, SIGTERM) is
    repeated.
    """
    lease = _taken(buffer, job, seen)
    if lease is None:
        yield None
        return
    pid = os.getpid()
    try:
        with renewed(buffer, lease):
            yield lease
    except LeaseLost:
        raise
    except BaseException as exc:
        if pid != os.getpid():  # a forked child leaves the block: its parent holds the job
            raise
        # The block was never left and is garbage. A finalizer must not write to the database.
        if isinstance(exc, GeneratorExit):
            end_dropped = functools.partial(_end_dropped, buffer.in_disposal, lease)
            disposal.later(end_dropped, database=buffer.database.url)
            raise
        is_over = isinstance(exc, Exception)
        message = summary(exc) if is_over else f"interrupted: {summary(exc).replace(': ', ' ', 1)}"
        try:
            _end_surely(buffer, lease, error=message, is_over=is_over)
        except LeaseLost:
            log.debug("another worker already has the job %r", job)
        except Exception as other:  # the lease expires; the caller gets the error of the block
            log.warning("could not release the job %r: %s", job, summary(other))
        raise
    if pid == os.getpid():
        _end_surely(buffer, lease)


def _end_surely(
    buffer: BufferHandle, lease: Lease, *, error: str | None = None, is_over: bool = True
) -> None:
    """End a run; try once more after a signal, because no other worker knows of the lease."""
    try:
        buffer.write(end, lease, error=error, is_over=is_over)
    except Exception:
        raise
    except BaseException:
        with contextlib.suppress(LeaseLost):
            buffer.write(end, lease, error=error, is_over=is_over)
        raise


def _taken(buffer: BufferHandle, job: str, seen: int | None) -> Lease | None:
    """Take a job; release it if a signal comes before the caller has the lease."""
    taken: list[Lease | None] = []

    def work(tx: Transaction) -> Lease | None:
        taken.append(take(tx, job, seen))
        return taken[-1]

    try:
        return buffer.write(work)
    except Exception:
        raise
    except BaseException:
        if taken and (lease := taken[-1]) is not None:
            _release_interrupted(buffer, lease)
        raise


def _release_interrupted(buffer: BufferHandle, lease: Lease) -> None:
    """Release a job that may have been taken: the signal may have come before the commit."""
    try:
        buffer.write(end, lease, error="interrupted", is_over=False)
    except LeaseLost:
        log.debug("the job %r was not taken", lease.job)
    except Exception as other:  # the lease expires
        log.warning("could not release the job %r: %s", lease.job, summary(other))


def _end_dropped(buffer: BufferHandle, lease: Lease) -> None:
    ending = functools.partial(end, lease=lease, error="dropped", is_over=False)
    with contextlib.closing(buffer.database), contextlib.suppress(LeaseLost):
        buffer.write(ending)
    log.warning("run %d of the job %r was dropped, and will be repeated", lease.run, lease.job)
