"""SQL of attempts and failures: started, died, failed, and to be measured again."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, now
from sqlbuffer.db.queries.params import (
    BUFFER,
    CONTENT,
    INCOMING_ATTEMPTS,
    INCOMING_IDS,
    IS_TRY,
    TRIES,
    draws_of_samples,
    n_in_details,
    total,
)
from sqlbuffer.db.schema import batches, buffers, draws, measurements, samples
from sqlbuffer.db.views import failure_overview

_BATCH: sa.BindParameter[int] = bindparam("batch", type_=BigId)
_LIMIT: sa.BindParameter[int] = bindparam("limit", type_=BigId)
_OBJECTIVE: sa.BindParameter[str] = bindparam("objective", type_=sa.Text)

_IS_UNREPORTED = sa.and_(
    ~draws.c.reported,
    ~sa.exists(measurements.c.id).where(
        measurements.c.sample_id == draws.c.sample_id,
        measurements.c.batch_id == draws.c.batch_id,
        ~IS_TRY,
    ),
)

REPLAYS = (
    select((buffers.c.mode == "replay").label("replays"))
    .where(buffers.c.id == BUFFER)
    .scalar_subquery()
)
"""Whether drawn samples of the buffer stay in the pool."""
HAS_FAILED = sa.and_(samples.c.error.is_not(None), sa.or_(~samples.c.queued, REPLAYS))
"""The condition of a failed sample; one that was added again waits, and one that replays stays."""


@functools.cache
def start(dialect: Dialect) -> Any:
    """Note that the measurement of some samples of a batch starts now."""
    return sa.update(draws).where(draws_of_samples(dialect)).values(started_at=now())


@functools.cache
def tried(dialect: Dialect) -> sa.Select[Any]:
    """Those of some samples at which an attempt was counted."""
    incoming = dialect.relation(INCOMING_IDS)
    return (
        select(samples.c.id)
        .join_from(incoming, samples, samples.c.id == incoming.c.sample_id)
        .where(samples.c.attempts > 0)
    )


@functools.cache
def interrupted() -> sa.Select[Any]:
    """The samples of a batch that were started and not measured, with the attempts at each.

    No rows if the batch does not count attempts, and the caller does not ask for `of_any` batch.
    """
    return (
        select(draws.c.sample_id, samples.c.hash, samples.c.attempts, buffers.c.max_attempts)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .join(samples, samples.c.id == draws.c.sample_id)
        .join(buffers, buffers.c.id == batches.c.buffer_id)
        .where(batches.c.id == _BATCH)
        .where(sa.or_(batches.c.counts_attempts, bindparam("of_any", type_=sa.Boolean)))
        .where(draws.c.started_at.is_not(None), _IS_UNREPORTED)
        .order_by(draws.c.sample_id)
    )


@functools.cache
def unreported_samples() -> sa.Select[Any]:
    """The samples of a batch that have neither a reward nor a failure of it, in their order."""
    of_batch = select(draws.c.sample_id).where(draws.c.batch_id == _BATCH)
    return of_batch.where(_IS_UNREPORTED).order_by(draws.c.position)


@functools.cache
def end_attempt(dialect: Dialect) -> sa.Update:
    """Note that no measurement of some samples is under way: an attempt is counted once."""
    return sa.update(draws).where(draws_of_samples(dialect)).values(started_at=None)


@functools.cache
def store_attempts(dialect: Dialect) -> sa.Update:
    """Set how many attempts at a sample were counted."""
    incoming = dialect.each(INCOMING_ATTEMPTS)
    return (
        sa.update(samples)
        .where(samples.c.id == incoming.sample_id)
        .values(attempts=incoming.attempts)
    )


def failed() -> sa.Select[Any]:
    """The samples whose measurement failed and that do not wait again; the user may narrow it."""

    def of_failure(column: Any) -> sa.ScalarSelect[Any]:
        return (
            select(column)
            .where(measurements.c.sample_id == samples.c.id, measurements.c.error.is_not(None))
            .where(~IS_TRY)
            .order_by(measurements.c.id.desc())
            .limit(1)
            .scalar_subquery()
        )

    # The last try is in `attempts` if its failure was counted: one that a loop reports is not.
    uncounted = of_failure(sa.case((n_in_details(TRIES).is_(None), 1), else_=0))
    tick = sa.func.coalesce(samples.c.rewarded_tick, 0)
    return (
        select(
            samples.c.id,
            *CONTENT,
            samples.c.key,
            samples.c.source,
            samples.c.error,
            samples.c.attempts,
            (samples.c.attempts + sa.func.coalesce(uncounted, 0)).label("tries"),
            of_failure(measurements.c.seconds).label("seconds"),
            samples.c.rewarded_at.label("failed_at"),
        )
        .where(samples.c.buffer_id == BUFFER, HAS_FAILED)
        .order_by(tick.desc(), samples.c.rewarded_at.desc(), samples.c.id.desc())
    )


@functools.cache
def failures_by_reason() -> sa.Select[Any]:
    """How many measurements failed for each reason, what they took, and its commonest error.

    `reasons` counts all reasons, also beyond `limit`.
    """
    failure, n = failure_overview.c, sa.func.count()
    name = select(buffers.c.name).where(buffers.c.id == BUFFER).scalar_subquery()
    place = sa.func.row_number().over(
        partition_by=failure.reason, order_by=[n.desc(), failure.error]
    )
    of_error: Any = [
        *(failure.reason, failure.error, n.label("failures"), place.label("place")),
        total(failure.seconds).label("seconds"),
    ]
    by_error = (
        select(*of_error)
        .where(failure.buffer == name, failure.objective == _OBJECTIVE)
        .group_by(failure.reason, failure.error)
        .cte("by_error")
    )
    failed = sa.func.sum(by_error.c.failures)
    columns: Any = [
        by_error.c.reason,
        failed.label("failures"),
        total(by_error.c.seconds).label("seconds"),
        sa.func.min(by_error.c.error).filter(by_error.c.place == 1).label("example"),
        sa.func.count().over().label("reasons"),
    ]
    return (
        select(*columns)
        .group_by(by_error.c.reason)
        .order_by(failed.desc(), by_error.c.reason)
        .limit(_LIMIT)
    )


@functools.cache
def failed_of(dialect: Dialect) -> sa.Select[Any]:
    """Lock the failed ones of some samples, with the columns of `batches.draws_of_batch`."""
    incoming = dialect.relation(INCOMING_IDS)
    found = (
        select(
            samples.c.id.label("sample_id"),
            samples.c.queued,
            bindparam("clock", type_=sa.Double).label("race_key"),
            sa.null().label("weight"),
            samples.c.score,
            samples.c.score_version,
            samples.c.scored_at.is_not(None).label("scored"),
            samples.c.hash,
            (samples.c.requeues + 1).label("requeues"),
        )
        .join_from(incoming, samples, samples.c.id == incoming.c.sample_id)
        .where(samples.c.buffer_id == BUFFER, HAS_FAILED)
        .order_by(samples.c.id)
    )
    return dialect.lock_rows(found, samples)


@functools.cache
def forget_failures(dialect: Dialect) -> sa.Update:
    """Make failed samples wait for their first measurement again."""
    incoming = dialect.each(INCOMING_IDS)
    return (
        sa.update(samples)
        .where(samples.c.id == incoming.sample_id)
        .values(
            queued=True,
            requeues=samples.c.requeues + sa.case((samples.c.queued, 0), else_=1),
            attempts=0,
            error=None,
            rewarded_at=None,
            rewarded_tick=None,
            evicted=False,
        )
    )
