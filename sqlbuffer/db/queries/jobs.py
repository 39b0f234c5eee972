"""SQL of jobs, which one worker at a time may run, under a lease."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import Dialect, Timestamp, from_now, now
from sqlbuffer.db.queries.params import BUFFER
from sqlbuffer.db.schema import jobs, workers

_NAME: sa.BindParameter[str] = bindparam("job", type_=sa.Text)
_OWNER: sa.BindParameter[str] = bindparam("owner_id", type_=sa.Text)
_UNTIL = from_now(bindparam("lease_s", type_=sa.Double))
_THIS = sa.and_(jobs.c.buffer_id == BUFFER, jobs.c.name == _NAME)
_HELD = sa.and_(
    _THIS,
    jobs.c.owner == _OWNER,
    jobs.c.runs == bindparam("run", type_=sa.BigInteger),
    jobs.c.last_started_at == bindparam("began_at", type_=Timestamp),
)
"""The fence: this owner took the job, and no worker since. The time distinguishes two runs of the
same number: a restored database counts on from an earlier run."""


@functools.cache
def add_job(dialect: Dialect) -> Any:
    """Create the row of a job if it does not exist; set its schedule if one is given."""
    insert = dialect.upsert(jobs).values(
        buffer_id=BUFFER, name=_NAME, schedule=bindparam("schedule", type_=sa.Text)
    )
    return insert.on_conflict_do_update(
        index_elements=["buffer_id", "name"],
        set_={"schedule": sa.func.coalesce(insert.excluded.schedule, jobs.c.schedule)},
    )


@functools.cache
def take_job() -> Any:
    """Take a job that has no owner, or whose lease was not renewed: `lost_until` is its end.

    If `seen` is given, only if the job has been taken `seen` times. Returns the run, and when it
    began.
    """
    owner_is_gone = jobs.c.owner.not_in(select(workers.c.id).where(workers.c.buffer_id == BUFFER))
    is_lost = jobs.c.lease_until == bindparam("lost_until", type_=Timestamp)
    is_free = sa.or_(jobs.c.owner.is_(None), is_lost, owner_is_gone)
    seen = sa.func.coalesce(bindparam("seen", type_=sa.BigInteger), jobs.c.runs)
    return (
        sa.update(jobs)
        .where(_THIS, is_free, jobs.c.runs == seen)
        .values(
            owner=_OWNER,
            lease_until=_UNTIL,
            last_started_at=now(),
            runs=jobs.c.runs + 1,
            measured=_measured(),
            ended_run=sa.func.coalesce(jobs.c.ended_run, 0),
        )
        .returning(jobs.c.runs, jobs.c.last_started_at)
    )


@functools.cache
def renew_job() -> sa.Update:
    """Renew the lease of a job."""
    return sa.update(jobs).where(_HELD).values(lease_until=_UNTIL)


@functools.cache
def hold_job(dialect: Dialect) -> sa.Select[Any]:
    """Lock a job that is still held, so that no worker takes it before the transaction ends."""
    return dialect.lock_rows(select(jobs.c.runs).where(_HELD), jobs)


@functools.cache
def end_job() -> sa.Update:
    """End a run, with its error if it failed. A run that is not `over` is due again."""
    is_over: sa.BindParameter[bool] = bindparam("over", type_=sa.Boolean)
    ended = {
        "last_finished_at": sa.case((is_over, now()), else_=jobs.c.last_finished_at),
        "ended_run": sa.case((is_over, jobs.c.runs), else_=jobs.c.ended_run),
    }
    error: sa.BindParameter[str] = bindparam("error", type_=sa.Text)
    return (
        sa.update(jobs).where(_HELD).values(owner=None, lease_until=None, last_error=error, **ended)
    )


@functools.cache
def let_go_jobs() -> sa.Update:
    """Release the jobs of workers that have died."""
    owners = bindparam("owner_ids", type_=sa.Text, expanding=True)
    died = jobs.c.owner + " died in run " + sa.cast(jobs.c.runs, sa.Text)
    return (
        sa.update(jobs)
        .where(jobs.c.buffer_id == BUFFER, jobs.c.owner.in_(owners))
        .values(owner=None, lease_until=None, last_error=died)
    )


@functools.cache
def jobs_of_buffer() -> sa.Select[Any]:
    """Every job, with the number of labelled samples and the time, both as of now."""
    return (
        select(
            *(column for column in jobs.c if column is not jobs.c.buffer_id),
            _measured().label("measured_now"),
            now().label("now"),
        )
        .where(jobs.c.buffer_id == BUFFER)
        .order_by(jobs.c.name)
    )


def _measured() -> sa.ColumnElement[int]:
    total = select(sa.cast(sa.func.sum(workers.c.measured), sa.BigInteger)).where(
        workers.c.buffer_id == BUFFER
    )
    return total.scalar_subquery()
