"""SQL of the commands that look at a buffer: one sample's story, batches, two buffers compared."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId
from sqlbuffer.db.queries.params import BUFFER, IS_OPEN, IS_TRY, mean, total
from sqlbuffer.db.queries.table import STATE
from sqlbuffer.db.schema import batches, draws, measurements, metrics, samples, workers

_SAMPLE: sa.BindParameter[int] = bindparam("sample", type_=BigId)
_LIMIT: sa.BindParameter[int] = bindparam("limit", type_=BigId)
_OTHER = samples.alias("other")


@functools.cache
def samples_by_text() -> sa.Select[Any]:
    """Return the ids of the samples with a text or a kept key: two samples may look alike."""
    wanted: sa.BindParameter[str] = bindparam("text", type_=sa.Text)
    return (
        select(samples.c.id)
        .where(samples.c.buffer_id == BUFFER)
        .where(sa.or_(samples.c.text == wanted, samples.c.key == wanted))
        .order_by(samples.c.id)
        .limit(_LIMIT)
    )


@functools.cache
def sample_by_hash() -> sa.Select[Any]:
    """Return the id of the sample with a hash."""
    wanted: sa.BindParameter[bytes] = bindparam("hash", type_=sa.LargeBinary)
    return select(samples.c.id).where(samples.c.buffer_id == BUFFER, samples.c.hash == wanted)


@functools.cache
def one_sample() -> sa.Select[Any]:
    """Return what the database knows of a sample, without its payload."""
    left_out = {"buffer_id", "payload", "codec", "text"}
    columns = (column for column in samples.c if column.name not in left_out)
    state = STATE.label("state")
    return select(samples.c.text.label("sample"), state, *columns).where(
        samples.c.buffer_id == BUFFER, samples.c.id == _SAMPLE
    )


@functools.cache
def draws_of_sample() -> sa.Select[Any]:
    """Return the draws of a sample with their batches, the oldest first; it reads all draws."""
    of_batch = (
        *("id", "worker_id", "iteration", "drawn_at", "settled_at", "released_at", "n_argmax"),
        "lease_until",
    )
    return (
        select(
            draws.c.position,
            draws.c.weight,
            draws.c.started_at,
            *(batches.c[name] for name in of_batch),
        )
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == BUFFER, draws.c.sample_id == _SAMPLE)
        .order_by(batches.c.id)
    )


@functools.cache
def measurements_of_sample() -> sa.Select[Any]:
    """Return the measurements of a sample, the oldest first."""
    return (
        select(measurements).where(measurements.c.sample_id == _SAMPLE).order_by(measurements.c.id)
    )


@functools.cache
def claimed_batches() -> sa.Select[Any]:
    """Every claimed batch of a buffer with its host and reported samples, the oldest first."""
    # A loop stores rewards before it settles: their samples are measured, but not reported.
    measured = select(measurements.c.id).where(
        measurements.c.sample_id == draws.c.sample_id,
        measurements.c.batch_id == draws.c.batch_id,
        ~IS_TRY,
    )
    of_batch = draws.c.batch_id == batches.c.id
    reported = select(sa.func.count()).where(of_batch, draws.c.reported | measured.exists())
    is_owner = sa.and_(
        workers.c.buffer_id == batches.c.buffer_id, workers.c.id == batches.c.worker_id
    )
    return (
        select(
            batches.c.id.label("batch"),
            batches.c.worker_id.label("worker"),
            workers.c.host,
            batches.c.iteration,
            batches.c.size,
            reported.scalar_subquery().label("reported"),
            batches.c.drawn_at,
            batches.c.lease_until,
        )
        .join_from(batches, workers, is_owner, isouter=True)
        .where(batches.c.buffer_id == BUFFER)
        .where(IS_OPEN)
        .order_by(batches.c.id)
    )


@functools.cache
def newest_batches() -> sa.Select[Any]:
    """Return the newest batches of a buffer, each with the measurements of its draws in numbers."""
    return _with_measurements(select(batches.c.id))


@functools.cache
def newest_open_batches() -> sa.Select[Any]:
    """Return the newest of the batches that are neither settled nor released."""
    return _with_measurements(select(batches.c.id).where(IS_OPEN))


def count_batches(*, is_open: bool) -> sa.Select[Any]:
    """How many batches a buffer has, or how many that are open."""
    n = select(sa.func.count().label("n")).where(batches.c.buffer_id == BUFFER)
    return n.where(IS_OPEN) if is_open else n


def _with_measurements(ids: sa.Select[Any]) -> sa.Select[Any]:
    ids = ids.where(batches.c.buffer_id == BUFFER).order_by(batches.c.id.desc())
    newest = ids.limit(_LIMIT).subquery("newest")
    reward = measurements.c.reward
    numbers = (
        select(
            newest.c.id,
            sa.func.count(draws.c.batch_id).label("drawn"),
            sa.func.count(reward).label("measured"),
            sa.func.count(measurements.c.error).filter(~IS_TRY).label("failed"),
            mean(reward).label("mean_reward"),
            sa.func.min(reward).label("lowest_reward"),
            sa.func.max(reward).label("highest_reward"),
        )
        .select_from(newest)
        .outerjoin(draws, draws.c.batch_id == newest.c.id)
        .outerjoin(
            measurements,
            sa.and_(
                measurements.c.sample_id == draws.c.sample_id,
                measurements.c.batch_id == newest.c.id,
            ),
        )
        .group_by(newest.c.id)
        .subquery("numbers")
    )
    return (
        select(batches, *(column for column in numbers.c if column.name != "id"))
        .join_from(numbers, batches, batches.c.id == numbers.c.id)
        .order_by(batches.c.id.desc())
    )


@functools.cache
def newest_metrics() -> sa.Select[Any]:
    """Return the metrics of the newest iterations that have any, by iteration and name."""
    newest = (
        select(metrics.c.iteration)
        .where(metrics.c.buffer_id == BUFFER)
        .distinct()
        .order_by(metrics.c.iteration.desc())
        .limit(_LIMIT)
        .subquery("newest")
    )
    return (
        select(metrics.c.iteration, metrics.c.name, metrics.c.value)
        .join_from(newest, metrics, metrics.c.iteration == newest.c.iteration)
        .where(metrics.c.buffer_id == BUFFER)
        .order_by(metrics.c.iteration, metrics.c.name)
    )


@functools.cache
def iterations_with_metrics() -> sa.Select[Any]:
    """How many iterations of a buffer have metrics."""
    n = sa.func.count(metrics.c.iteration.distinct()).label("n")
    return select(n).where(metrics.c.buffer_id == BUFFER)


@functools.cache
def costs() -> sa.Select[Any]:
    """Return the seconds that all measurements of a buffer took, under any objective."""
    seconds: Any = total(measurements.c.seconds).label("seconds")
    return select(seconds).where(measurements.c.buffer_id == BUFFER)


@functools.cache
def best_of_first(direction: str) -> sa.Select[Any]:
    """Return the best of the first `limit` rewards of a buffer under an objective."""
    reward = measurements.c.reward
    first = (
        select(reward)
        .where(measurements.c.buffer_id == BUFFER, reward.is_not(None))
        .where(measurements.c.objective == bindparam("objective", type_=sa.Text))
        .order_by(measurements.c.id)
        .limit(_LIMIT)
        .subquery("first")
    )
    best = sa.func.min if direction == "minimize" else sa.func.max
    return select(best(first.c.reward).label("best"))


def _shared(*conditions: Any) -> sa.Select[Any]:

    return (
        select(sa.func.count().label("n"))
        .join_from(samples, _OTHER, _OTHER.c.hash == samples.c.hash)
        .where(samples.c.buffer_id == BUFFER, *conditions)
        .where(_OTHER.c.buffer_id == bindparam("other", type_=sa.Integer))
    )


@functools.cache
def shared_samples() -> sa.Select[Any]:
    """Return how many samples two buffers share: the index of the hashes has all that it reads."""
    return _shared()


@functools.cache
def shared_measured() -> sa.Select[Any]:
    """Return how many samples two buffers share and both have measured, by the index of rewards."""
    return _shared(samples.c.reward.is_not(None), _OTHER.c.reward.is_not(None))
