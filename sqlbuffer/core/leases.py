"""A job has one owner at a time: it holds a lease, renewed while the work goes on, and taken over when it is not.

Each time that a job is taken its row counts one more run. That number is the fence: a process that still works on an
earlier run, because it was paused for longer than its lease, can neither store a result nor end the run of another.
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
from sqlbuffer.core.workers import Mark, dead, worker_id
from sqlbuffer.db import disposal, queries
from sqlbuffer.errors import InvalidArgument, LeaseLost

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """The right to do a job, once.

    Attributes:
        job: Name of the job.
        owner: The worker that has it.
        run: How often the job has been taken, this time included.
        began_at: When it was taken, by the database's clock, UTC.
    """

    job: str
    owner: str
    run: int
    began_at: dt.datetime | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """Where a job stands.

    Attributes:
        name: Name of the job.
        owner: The worker that runs it, None when no process does.
        is_held: True unless its owner is known to be dead, or has been seen not to renew its lease for `grace_s`.
        lease_until: Until when the owner has it, UTC.
        last_started_at: When it last started, UTC.
        last_finished_at: When it last came to an end, with or without an error, UTC.
        last_error: What went wrong the last time, None when nothing did.
        runs: How often it was taken.
        measured: Labelled samples there were when it last started.
        schedule: When it is due, in words.
        measured_now: Labelled samples there are now.
        now: The time it is, by the database's clock, UTC.
        started_ago_s: How long ago it last started, in seconds, as this process has seen it by a clock that no process
            sets; before its first look it has the database's clock. Infinity where that says it is still to start.
        ended_run: The run that came to an end last; None before the first, and where an older release did.
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
        """True where the last run never came to an end: its owner died, was told to stop, or lost its lease."""
        if self.last_started_at is None or self.is_held:
            return False
        if self.ended_run is not None:
            return self.ended_run < self.runs
        return self.last_finished_at is None or self.last_finished_at < self.last_started_at


def find(tx: Transaction) -> list[Job]:
    """Return the jobs of a buffer."""
    began = tx.buffer.watch.begin()
    rows = tx.execute(queries.jobs_of_buffer()).mappings().all()
    lost = _seen_to_be_lost(tx.buffer, rows, began=began)
    gone = dead_workers(tx)
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


def dead_workers(tx: Transaction) -> dict[str, Mark]:
    """Return the workers of a buffer that are dead, each with its last mark."""
    return dead(tx)


def look(tx: Transaction) -> None:
    """See how the jobs stand, so that leases that are not renewed are known for it when a process asks."""
    find(tx)


def _seen_to_be_lost(buffer: BufferHandle, rows: Sequence[Any], *, began: float) -> set[str]:
    """Return the names of the jobs whose leases this process has seen not to be renewed for as long as they last."""
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
    """Give a job its row, and say in words when it is due."""
    tx.execute(queries.add_job(tx.backend), job=job, schedule=schedule)


def take(tx: Transaction, job: str, seen: int | None = None) -> Lease | None:
    """Take a job; return None where a process has it, or where it has been taken since `seen` runs were counted."""
    tx.race_state()  # or say that the buffer is another one by now
    announce(tx, job)
    began = tx.buffer.watch.begin()
    rows = tx.execute(queries.jobs_of_buffer()).mappings().all()
    lost = _seen_to_be_lost(tx.buffer, rows, began=began)
    # No process's but this one's: where it has been renewed since, it is not free.
    until = next((row["lease_until"] for row in rows if row["name"] == job and job in lost), None)
    owner, lease_s = worker_id(), tx.buffer.grace_s
    taken = {"job": job, "owner_id": owner, "lease_s": lease_s, "seen": seen, "lost_until": until}
    run = tx.execute(queries.take_job(), **taken).one_or_none()
    tx.count()  # an owner has a row among the workers, which is how its death is noticed
    return None if run is None else Lease(job, owner, int(run.runs), run.last_started_at)


def require(tx: Transaction, lease: Lease) -> None:
    """Keep everybody from taking the job before this transaction ends.

    Raises:
        LeaseLost: Where it was let go or taken over, or is that of the process from which this one was forked.
    """
    if not isinstance(lease, Lease):
        raise InvalidArgument(f"lease must be the result of `leased`, or None; got {shown(lease)}.")
    if lease.owner != worker_id():
        raise LeaseLost(
            f"run {lease.run} of the job {lease.job!r} belongs to {lease.owner}, and this "
            f"process is {worker_id()}: nothing was stored; store the result in the process that "
            "took the job."
        )
    statement = queries.hold_job(tx.backend)
    if tx.execute(statement, **_key(lease)).one_or_none() is None:
        raise LeaseLost(
            f"run {lease.run} of the job {lease.job!r} no longer belongs to {lease.owner}: the "
            "lease expired or the worker was considered dead, and nothing was stored; the "
            "worker that now has the job repeats it."
        )


def end(tx: Transaction, lease: Lease, *, error: str | None = None, is_over: bool = True) -> None:
    """End a run and let the job go; one that is not over is to be done again.

    Raises:
        LeaseLost: Where it was let go or taken over.
    """
    require(tx, lease)
    tx.execute(queries.end_job(), **_key(lease), error=error, over=is_over)


def let_go(tx: Transaction, owners: Sequence[str]) -> None:
    """Take the jobs of workers that have died from them."""
    tx.execute(queries.let_go_jobs(), owner_ids=list(owners))


@contextlib.contextmanager
def renewed(buffer: BufferHandle, lease: Lease) -> Iterator[None]:
    """Hold the lease for as long as the block takes, from a thread with a connection of its own."""
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
    if not tx.execute(queries.renew_job(), **renewal).rowcount:
        log.warning(
            "run %d of the job %r was lost to another worker: its result will be discarded",
            lease.run,
            lease.job,
        )


def _key(lease: Lease) -> dict[str, object]:
    return {"job": lease.job, "owner_id": lease.owner, "run": lease.run, "began_at": lease.began_at}


@contextlib.contextmanager
def leased(buffer: BufferHandle, job: str, seen: int | None = None) -> Iterator[Lease | None]:
    """Take a job for the block, which is given None where another process has it.

    An error is stored with the job, and goes on its way. What is interrupted (Ctrl-C, SIGTERM) is to be done again.
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
        if pid != os.getpid():  # a forked child leaves the block: the job is its parent's
            raise
        if isinstance(
            exc, GeneratorExit
        ):  # the block was never left, and is garbage: a finalizer is no place to write
            end_dropped = functools.partial(_end_dropped, buffer.in_disposal, lease)
            disposal.later(end_dropped, database=buffer.database.url)
            raise
        is_over = isinstance(exc, Exception)
        message = summary(exc) if is_over else f"interrupted: {summary(exc).replace(': ', ' ', 1)}"
        try:
            _end_surely(buffer, lease, error=message, is_over=is_over)
        except LeaseLost:
            log.debug("another worker already has the job %r", job)
        except (
            Exception
        ) as other:  # the lease runs out; what ended the block is what the caller must hear of
            log.warning("could not release the job %r: %s", job, summary(other))
        raise
    if pid == os.getpid():
        _end_surely(buffer, lease)


def _end_surely(
    buffer: BufferHandle, lease: Lease, *, error: str | None = None, is_over: bool = True
) -> None:
    """End a run; once more if a signal comes during it, for no other process knows of the lease."""
    try:
        buffer.write(end, lease, error=error, is_over=is_over)
    except Exception:
        raise
    except BaseException:
        with contextlib.suppress(LeaseLost):
            buffer.write(end, lease, error=error, is_over=is_over)
        raise


def _taken(buffer: BufferHandle, job: str, seen: int | None) -> Lease | None:
    """Take a job; one that is taken when a signal comes, before anybody has the lease, is let go."""
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
            _let_go_interrupted(buffer, lease)
        raise


def _let_go_interrupted(buffer: BufferHandle, lease: Lease) -> None:
    """Let a job go that may have been taken: whether the transaction was committed before the signal is not known."""
    try:
        buffer.write(end, lease, error="interrupted", is_over=False)
    except LeaseLost:
        log.debug("the job %r was not taken", lease.job)
    except Exception as other:  # the lease runs out
        log.warning("could not release the job %r: %s", lease.job, summary(other))


def _end_dropped(buffer: BufferHandle, lease: Lease) -> None:
    ending = functools.partial(end, lease=lease, error="dropped", is_over=False)
    with contextlib.closing(buffer.database), contextlib.suppress(LeaseLost):
        buffer.write(ending)
    log.warning("run %d of the job %r was dropped, and will be repeated", lease.run, lease.job)
