"""Jobs: who does what nobody else may do at the same time, and until when."""

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
"""The fence: taken by this owner, and by nobody since. The time tells two runs of one number apart: a database that has
gone back to an earlier state counts on from there."""


@functools.cache
def add_job(dialect: Dialect) -> Any:
    """Make sure that there is a row for a job, and say when it is due if that is given."""
    insert = dialect.upsert(jobs).values(
        buffer_id=BUFFER, name=_NAME, schedule=bindparam("schedule", type_=sa.Text)
    )
    return insert.on_conflict_do_update(
        index_elements=["buffer_id", "name"],
        set_={"schedule": sa.func.coalesce(insert.excluded.schedule, jobs.c.schedule)},
    )


@functools.cache
def take_job() -> Any:
    """Take a job that nobody has, or whose lease is the one that was seen not to be renewed.

    Only where it has been taken `seen` times, if that is given. Returns the run, and when it began.
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
    """Hold a job for longer."""
    return sa.update(jobs).where(_HELD).values(lease_until=_UNTIL)


@functools.cache
def hold_job(dialect: Dialect) -> sa.Select[Any]:
    """Find a job that is still held, and let nobody take it before the transaction ends."""
    return dialect.lock_rows(select(jobs.c.runs).where(_HELD), jobs)


@functools.cache
def end_job() -> sa.Update:
    """End a run, with what went wrong if something did. A run that is not `over` is to be done again."""
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
    """Take the jobs of workers that have died from them."""
    owners = bindparam("owner_ids", type_=sa.Text, expanding=True)
    obituary = jobs.c.owner + " died in run " + sa.cast(jobs.c.runs, sa.Text)
    return (
        sa.update(jobs)
        .where(jobs.c.buffer_id == BUFFER, jobs.c.owner.in_(owners))
        .values(owner=None, lease_until=None, last_error=obituary)
    )


@functools.cache
def jobs_of_buffer() -> sa.Select[Any]:
    """Every job, with the labelled samples there are now, and the time it is now."""
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
