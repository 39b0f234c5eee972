"""SQL of pictures: few rows of a buffer of any size, aggregated or taken evenly by the database."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId
from sqlbuffer.db.queries.params import BUFFER
from sqlbuffer.db.schema import batches, buffers, draws, measurements, pool, predictors, samples
from sqlbuffer.db.views import failure_overview

_LIMIT: sa.BindParameter[int] = bindparam("limit", type_=BigId)
_OBJECTIVE: sa.BindParameter[str] = bindparam("objective", type_=sa.Text)
_STEP: sa.BindParameter[int] = bindparam("step", type_=BigId)
_REWARD = measurements.c.reward


def _measurements(*columns: Any) -> sa.Select[Any]:
    return select(*columns).where(
        measurements.c.buffer_id == BUFFER, measurements.c.objective == _OBJECTIVE
    )


@functools.cache
def numbers_of_measurements() -> sa.Select[Any]:
    """How many measurements have a reward, an error and a time, and all of their seconds."""
    seconds = measurements.c.seconds
    columns: Any = [
        sa.func.count(_REWARD).label("measured"),
        sa.func.count(measurements.c.error).label("failed"),
        sa.func.count(seconds).label("timed"),
        sa.func.sum(seconds).label("seconds"),
    ]
    return _measurements(*columns)


@functools.cache
def best_of_parts(direction: str) -> sa.Select[Any]:
    """The `keep` best samples of each part of the rewards: of `step` rewards, by their age.

    A sample counts once in a part, with its best reward in it.
    """
    place = sa.func.row_number().over(order_by=measurements.c.id)
    numbered = (
        _measurements(measurements.c.sample_id, _REWARD, place.label("place"))
        .where(_REWARD.is_not(None))
        .cte("numbered")
    )
    part = ((numbered.c.place - 1) // _STEP).label("part")
    best = sa.func.min if direction == "minimize" else sa.func.max
    of_part = (
        select(part, numbered.c.sample_id, best(numbered.c.reward).label("reward"))
        .group_by(part, numbered.c.sample_id)
        .cte("of_part")
    )
    reward = of_part.c.reward
    best_first = reward.asc() if direction == "minimize" else reward.desc()
    rank = sa.func.row_number().over(
        partition_by=of_part.c.part, order_by=(best_first, of_part.c.sample_id)
    )
    ranked = select(of_part, rank.label("rank")).subquery("ranked")
    return (
        select(ranked.c.part, ranked.c.sample_id, ranked.c.reward)
        .where(ranked.c.rank <= bindparam("keep", type_=BigId))
        .order_by(ranked.c.part, ranked.c.rank)
    )


@functools.cache
def ends_of_parts() -> sa.Select[Any]:
    """Rewards, and seconds spent, by the end of each part: of `step` rewards, by their age.

    Failed measurements are no rewards, but take their seconds.
    """
    by_age: Any = {"order_by": measurements.c.id, "rows": (None, 0)}
    seconds = sa.func.coalesce(measurements.c.seconds, 0.0)
    running = _measurements(
        _REWARD,
        sa.func.count(_REWARD).over(**by_age).label("place"),
        sa.func.sum(seconds).over(**by_age).label("spent"),
    ).subquery("running")
    part = ((running.c.place - 1) // _STEP).label("part")
    return (
        select(
            part,
            sa.func.max(running.c.place).label("measurements"),
            sa.func.max(running.c.spent).label("seconds"),
        )
        .where(running.c.reward.is_not(None))
        .group_by(part)
        .order_by(part)
    )


def _is_chosen() -> sa.ColumnElement[bool]:
    """The sample is one of those whose hash is below `bound`: an even choice, by an index."""
    return sa.and_(
        samples.c.buffer_id == BUFFER,
        samples.c.hash < bindparam("bound", type_=sa.LargeBinary),
    )


@functools.cache
def scores_waiting() -> sa.Select[Any]:
    """The scores of all waiting samples."""
    return select(pool.c.score).where(pool.c.buffer_id == BUFFER, pool.c.score.is_not(None))


@functools.cache
def scores_chosen() -> sa.Select[Any]:
    """The scores of those queued samples whose hash is below `bound`."""
    is_scored = sa.and_(samples.c.queued == sa.true(), samples.c.score.is_not(None))
    return select(samples.c.score).where(_is_chosen(), is_scored).limit(_LIMIT)


@functools.cache
def scores_drawn() -> sa.Select[Any]:
    """The scores of the samples of the `limit` newest draws, without those of released batches."""
    return (
        select(samples.c.score)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .join(samples, samples.c.id == draws.c.sample_id)
        .where(batches.c.buffer_id == BUFFER, batches.c.released_at.is_(None))
        .where(samples.c.score.is_not(None))
        .order_by(batches.c.id.desc())
        .limit(_LIMIT)
    )


@functools.cache
def versions_chosen() -> sa.Select[Any]:
    """How many of those queued samples whose hash is below `bound` have a score of each version."""
    return (
        select(samples.c.score_version, sa.func.count().label("waiting"))
        .where(_is_chosen(), samples.c.queued == sa.true())
        .group_by(samples.c.score_version)
    )


@functools.cache
def times_chosen() -> sa.Select[Any]:
    """When those samples were stored whose hash is below `bound`."""
    return (
        select(samples.c.created_at)
        .where(_is_chosen())
        .order_by(samples.c.created_at)
        .limit(_LIMIT)
    )


@functools.cache
def correlations() -> sa.Select[Any]:
    """The quality of each predictor on the rows that were held out from its training."""
    names = ("version", "rows_trained", "rows_held_out", "rank_correlation", "r2")
    return (
        select(*(predictors.c[name] for name in names))
        .where(predictors.c.buffer_id == BUFFER)
        .order_by(predictors.c.version.desc())
        .limit(_LIMIT)
    )


@functools.cache
def predictions() -> sa.Select[Any]:
    """The score and the reward of the sample of each `step`th reward."""
    place = sa.func.row_number().over(order_by=measurements.c.id)
    numbered = (
        _measurements(measurements.c.sample_id, _REWARD, place.label("place"))
        .where(_REWARD.is_not(None))
        .subquery("numbered")
    )
    return (
        select(samples.c.score, samples.c.score_version, numbered.c.reward)
        .join_from(numbered, samples, samples.c.id == numbered.c.sample_id)
        .where(numbered.c.place % _STEP == 0, samples.c.score.is_not(None))
        .order_by(numbered.c.place)
    )


@functools.cache
def draws_so_far() -> sa.Select[Any]:
    """How many samples were drawn by the time of each `step`th batch, and of the newest one."""
    by_age: Any = {"order_by": batches.c.id, "rows": (None, 0)}
    running = (
        select(
            batches.c.drawn_at.label("happened_at"),
            sa.func.sum(batches.c.size).over(**by_age).label("drawn"),
            sa.func.row_number().over(order_by=batches.c.id).label("place"),
            sa.func.count().over().label("n"),
        )
        .where(batches.c.buffer_id == BUFFER, batches.c.released_at.is_(None))
        .subquery("running")
    )
    is_shown = sa.or_(running.c.place % _STEP == 0, running.c.place.in_((1, running.c.n)))
    return select(running.c.happened_at, running.c.drawn).where(is_shown).order_by(running.c.place)


@functools.cache
def number_of_batches() -> sa.Select[Any]:
    """How many batches were drawn, without the released ones."""
    return select(sa.func.count().label("n")).where(
        batches.c.buffer_id == BUFFER, batches.c.released_at.is_(None)
    )


@functools.cache
def measurements_so_far() -> sa.Select[Any]:
    """How many rewards and failures there were by each `step`th measurement, and the newest one."""
    by_age: Any = {"order_by": measurements.c.id, "rows": (None, 0)}
    running = _measurements(
        measurements.c.measured_at.label("happened_at"),
        sa.func.count(_REWARD).over(**by_age).label("measured"),
        sa.func.count(measurements.c.error).over(**by_age).label("failed"),
        sa.func.row_number().over(order_by=measurements.c.id).label("place"),
        sa.func.count().over().label("n"),
    ).subquery("running")
    is_shown = sa.or_(running.c.place % _STEP == 0, running.c.place.in_((1, running.c.n)))
    return (
        select(running.c.happened_at, running.c.measured, running.c.failed)
        .where(is_shown)
        .order_by(running.c.place)
    )


@functools.cache
def rewards_by_source(direction: str) -> sa.Select[Any]:
    """The rewards of the `limit` sources with most rewards: how many, their quartiles, their best.

    `among_best` counts those among the best tenth of all rewards, `sources` counts all sources.
    """
    reward = _REWARD
    best_first = reward.asc() if direction == "minimize" else reward.desc()
    source = samples.c.source
    ranked = (
        _measurements(
            source,
            reward,
            sa.func.row_number().over(partition_by=source, order_by=reward).label("place"),
            sa.func.count().over(partition_by=source).label("measured"),
            sa.func.row_number().over(order_by=(best_first, measurements.c.id)).label("rank"),
            sa.func.count().over().label("total"),
        )
        .join_from(measurements, samples, samples.c.id == measurements.c.sample_id)
        .where(reward.is_not(None))
        .subquery("ranked")
    )
    n = ranked.c.measured

    def quartile(which: int) -> sa.ColumnElement[Any]:
        return sa.func.max(sa.case((ranked.c.place == (which * n + 3) // 4, ranked.c.reward)))

    best = sa.func.min if direction == "minimize" else sa.func.max
    is_among_best = ranked.c.rank * 10 <= ranked.c.total + 9
    columns: Any = [
        ranked.c.source,
        n,
        quartile(1).label("low"),
        quartile(2).label("median"),
        quartile(3).label("high"),
        best(ranked.c.reward).label("best"),
        sa.func.sum(sa.case((is_among_best, 1), else_=0)).label("among_best"),
        sa.func.count().over().label("sources"),
    ]
    return (
        select(*columns)
        .group_by(ranked.c.source, n)
        .order_by(n.desc(), ranked.c.source)
        .limit(_LIMIT)
    )


@functools.cache
def failures_by_source() -> sa.Select[Any]:
    """How many measurements of the samples of each source failed; the `limit` largest numbers."""
    n = sa.func.count()
    return (
        _measurements(samples.c.source, n.label("failed"), n.over().label("sources"))
        .join_from(measurements, samples, samples.c.id == measurements.c.sample_id)
        .where(measurements.c.error.is_not(None))
        .group_by(samples.c.source)
        .order_by(n.desc(), samples.c.source)
        .limit(_LIMIT)
    )


@functools.cache
def failures_by_reason() -> sa.Select[Any]:
    """How many measurements failed for each reason, what they took, and one error of each.

    `reasons` counts all reasons, also beyond `limit`.
    """
    failure, n = failure_overview.c, sa.func.count()
    columns: Any = [
        failure.reason,
        n.label("failures"),
        sa.func.sum(failure.seconds).label("seconds"),
        sa.func.min(failure.error).label("example"),
        sa.func.count().over().label("reasons"),
    ]
    name = select(buffers.c.name).where(buffers.c.id == BUFFER).scalar_subquery()
    return (
        select(*columns)
        .where(failure.buffer == name, failure.objective == _OBJECTIVE)
        .group_by(failure.reason)
        .order_by(n.desc(), failure.reason)
        .limit(_LIMIT)
    )


@functools.cache
def newest_seconds() -> sa.Select[Any]:
    """The seconds of the newest measurements that tell them, and whether each failed."""
    return (
        _measurements(measurements.c.seconds, _REWARD.is_(None).label("failed"))
        .where(measurements.c.seconds.is_not(None))
        .order_by(measurements.c.id.desc())
        .limit(_LIMIT)
    )


@functools.cache
def newest_waits() -> sa.Select[Any]:
    """When the samples of the newest draws were stored, and when they were drawn."""
    return (
        select(samples.c.created_at, batches.c.drawn_at)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .join(samples, samples.c.id == draws.c.sample_id)
        .where(batches.c.buffer_id == BUFFER, batches.c.released_at.is_(None))
        .order_by(batches.c.id.desc())
        .limit(_LIMIT)
    )


@functools.cache
def newest_claims() -> sa.Select[Any]:
    """When the newest settled batches were drawn and settled."""
    return (
        select(batches.c.drawn_at, batches.c.settled_at)
        .where(batches.c.buffer_id == BUFFER, batches.c.settled_at.is_not(None))
        .order_by(batches.c.id.desc())
        .limit(_LIMIT)
    )
