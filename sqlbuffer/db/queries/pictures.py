"""SQL of pictures: few rows of a buffer of any size, aggregated or taken evenly by the database."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId
from sqlbuffer.db.queries.params import BUFFER, total
from sqlbuffer.db.schema import batches, draws, measurements, pool, predictors, samples

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
    """How many measurements have a reward, an error and a time."""
    seconds = measurements.c.seconds
    columns: Any = [
        sa.func.count(_REWARD).label("measured"),
        sa.func.count(measurements.c.error).label("failed"),
        sa.func.count(seconds).label("timed"),
    ]
    return _measurements(*columns)


def _ends(*conditions: sa.ColumnElement[bool]) -> sa.CTE:
    """The ids of the first measurement, of each `step`th one after it, and of the newest.

    `before` is the id of the one before. Each id is found by walking over `step` rows of the
    primary key: numbering all rows by a window takes six times as long.
    """
    edges = select(sa.func.min(measurements.c.id), sa.func.max(measurements.c.id))
    first, newest = (
        _measurements(edge).where(*conditions).scalar_subquery() for edge in edges.selected_columns
    )
    ends = select(first.label("id"), (first - 1).label("before"), newest.label("newest")).cte(
        "ends", recursive=True
    )
    following = (
        _measurements(measurements.c.id)
        .where(measurements.c.id > ends.c.id, *conditions)
        .order_by(measurements.c.id)
        .limit(1)
        .offset(_STEP - 1)
        .scalar_subquery()
    )
    more = select(sa.func.coalesce(following, ends.c.newest), ends.c.id, ends.c.newest).where(
        ends.c.id < ends.c.newest
    )
    return ends.union_all(more)


@functools.cache
def parts() -> sa.Select[Any]:
    """Parts of the measurements by age: the first one, `step` at a time, and the rest.

    `last` is the id of the last one of a part, `happened_at` its time. Failures are measurements
    too.
    """
    ends = _ends()
    is_inside = measurements.c.id > ends.c.before, measurements.c.id <= ends.c.id
    end = measurements.alias("end")

    def of_part(number: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
        return _measurements(number).where(*is_inside).correlate(ends).scalar_subquery()

    columns: Any = [
        ends.c.id.label("last"),
        end.c.measured_at.label("happened_at"),
        of_part(sa.func.count(_REWARD)).label("measured"),
        sa.func.coalesce(of_part(total(measurements.c.seconds)), 0.0).label("seconds"),
    ]
    return select(*columns).join_from(ends, end, end.c.id == ends.c.id).order_by(ends.c.id)


def _better(direction: str) -> sa.Select[Any]:
    """Rewards of a range of ids that are better than `bound`."""
    bound: sa.BindParameter[float] = bindparam("bound", type_=sa.Double)
    is_better = bound > _REWARD if direction == "minimize" else bound < _REWARD
    return _measurements().where(
        measurements.c.id > bindparam("after", type_=BigId),
        measurements.c.id <= bindparam("last", type_=BigId),
        is_better,
    )


@functools.cache
def better_rewards(direction: str) -> sa.Select[Any]:
    """Up to `limit` rewards that are better than `bound`, of a range of ids, the oldest first."""
    columns: Any = [measurements.c.id, measurements.c.sample_id, _REWARD]
    return _better(direction).add_columns(*columns).order_by(measurements.c.id).limit(_LIMIT)


@functools.cache
def best_samples(direction: str) -> sa.Select[Any]:
    """The best reward of each of the `limit` best samples of a range of ids, if above `bound`."""
    best = (sa.func.min if direction == "minimize" else sa.func.max)(_REWARD)
    best_first = best.asc() if direction == "minimize" else best.desc()
    columns: Any = [measurements.c.sample_id, best.label("reward")]
    return (
        _better(direction)
        .add_columns(*columns)
        .group_by(measurements.c.sample_id)
        .order_by(best_first, measurements.c.sample_id)
        .limit(_LIMIT)
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


def _newest_draws(*columns: Any) -> sa.Select[Any]:
    """Columns of the newest draws with their batches and samples, without released batches.

    Batches are taken until they hold `limit` samples: a join with all of them would be sorted.
    """
    newest = (
        select(batches.c.id, batches.c.size, batches.c.drawn_at)
        .where(batches.c.buffer_id == BUFFER, batches.c.released_at.is_(None))
        .order_by(batches.c.id.desc())
        .limit(_LIMIT)
        .subquery("newest")
    )
    held = sa.func.sum(newest.c.size).over(order_by=newest.c.id.desc(), rows=(None, 0))
    holding = select(newest, (held - newest.c.size).label("before")).subquery("holding")
    return (
        select(*columns, holding.c.drawn_at)
        .join_from(holding, draws, draws.c.batch_id == holding.c.id)
        .join(samples, samples.c.id == draws.c.sample_id)
        .where(holding.c.before < _LIMIT)
        .limit(_LIMIT)
    )


@functools.cache
def scores_drawn() -> sa.Select[Any]:
    """The scores of the samples of the `limit` newest draws, without those of released batches."""
    return _newest_draws(samples.c.score).where(samples.c.score.is_not(None))


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
    """The score and the reward of the sample of the first and of each `step`th reward."""
    ends = _ends(_REWARD.is_not(None))
    return (
        select(samples.c.score, samples.c.score_version, _REWARD)
        .join_from(ends, measurements, measurements.c.id == ends.c.id)
        .join(samples, samples.c.id == measurements.c.sample_id)
        .where(samples.c.score.is_not(None))
    )


@functools.cache
def draws_so_far() -> sa.Select[Any]:
    """How many samples were drawn by the time of each `step`th batch, and of the `n`th one."""
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
def rewards_by_source(direction: str) -> sa.Select[Any]:
    """Measurements of the `limit` sources with most of them: failures, quartiles and best reward.

    Read are the first measurement and each `step`th one. `among_best` counts those among the best
    tenth of all that were read, `sources` all sources.
    """
    ends = _ends()
    of_source = (
        select(measurements.c.id, samples.c.source, _REWARD, measurements.c.error)
        .join_from(ends, measurements, measurements.c.id == ends.c.id)
        .join(samples, samples.c.id == measurements.c.sample_id)
        .cte("of_source")
    )
    numbers: Any = [
        of_source.c.source,
        sa.func.count(of_source.c.reward).label("measured"),
        sa.func.count(of_source.c.error).label("failed"),
        sa.func.count().over().label("sources"),
    ]
    most = (
        select(*numbers)
        .group_by(of_source.c.source)
        .order_by(sa.func.count().desc(), of_source.c.source)
        .limit(_LIMIT)
        .cte("most")
    )
    reward = of_source.c.reward
    best_first = reward.asc() if direction == "minimize" else reward.desc()
    in_source = sa.func.row_number().over(partition_by=of_source.c.source, order_by=reward)
    in_all = sa.func.row_number().over(order_by=(best_first, of_source.c.id))
    ranked = (
        select(of_source.c.source, reward, in_source.label("place"), in_all.label("rank"))
        .where(reward.is_not(None))
        .subquery("ranked")
    )

    def reward_at(place: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.max(sa.case((ranked.c.place == place, ranked.c.reward)))

    n = most.c.measured
    best = sa.func.min if direction == "minimize" else sa.func.max
    n_rewards = select(sa.func.count(of_source.c.reward)).scalar_subquery()
    is_among_best = ranked.c.rank <= (n_rewards + 9) // 10
    own = (most.c.source, most.c.measured, most.c.failed, most.c.sources)
    columns: Any = [
        *own,
        reward_at((n + 3) // 4).label("low"),
        reward_at((n + 1) // 2).label("median"),
        reward_at(n - n // 4).label("high"),
        best(ranked.c.reward).label("best"),
        sa.func.sum(sa.case((is_among_best, 1), else_=0)).label("among_best"),
    ]
    return (
        select(*columns)
        .join_from(most, ranked, ranked.c.source == most.c.source, isouter=True)
        .group_by(*own)
        .order_by((most.c.measured + most.c.failed).desc(), most.c.source)
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
    return _newest_draws(samples.c.created_at)


@functools.cache
def newest_claims() -> sa.Select[Any]:
    """When the newest settled batches were drawn and settled."""
    return (
        select(batches.c.drawn_at, batches.c.settled_at)
        .where(batches.c.buffer_id == BUFFER, batches.c.settled_at.is_not(None))
        .order_by(batches.c.id.desc())
        .limit(_LIMIT)
    )
