"""Predictor versions: their states, measures and times of training."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import now
from sqlbuffer.db.queries.params import BUFFER, TICK
from sqlbuffer.db.schema import buffers, predictors, samples

_OF_BUFFER = predictors.c.buffer_id == BUFFER
_NEWEST = select(sa.func.max(predictors.c.version).label("version")).where(_OF_BUFFER)


@functools.cache
def insert_predictor() -> sa.Insert:
    """Store a predictor version."""
    given = (
        *("version", "iteration", "state", "rows_trained", "rows_held_out", "worker_id"),
        *("train_loss", "valid_loss", "rank_correlation", "r2", "metrics"),
    )
    columns = {name: bindparam(name, type_=predictors.c[name].type) for name in given}
    return sa.insert(predictors).values(
        buffer_id=BUFFER, trained_at=now(), trained_tick=TICK, **columns
    )


@functools.cache
def begin_predictor_version() -> sa.Update:
    """Count one more version of scores; return it as `score_version`."""
    return (
        sa.update(buffers)
        .where(buffers.c.id == BUFFER)
        .values(score_version=buffers.c.score_version + 1)
        .returning(buffers.c.score_version)
    )


@functools.cache
def predictor_versions() -> sa.Select[Any]:
    """Return all predictor versions without their states, the oldest first."""
    left_out = {"buffer_id", "state", "trained_tick"}
    size = sa.func.length(predictors.c.state).label("size_bytes")
    columns = (column for column in predictors.c if column.name not in left_out)
    return select(*columns, size).where(_OF_BUFFER).order_by(predictors.c.version)


@functools.cache
def newest_predictor() -> sa.Select[Any]:
    """Return the newest row of `predictor_versions`."""
    newest = predictor_versions().order_by(None).order_by(predictors.c.version.desc())
    return newest.limit(1)


@functools.cache
def newest_predictor_version() -> sa.Select[Any]:
    """Return the version of the newest predictor, NULL before the first."""
    return _NEWEST


@functools.cache
def newest_predictor_mark() -> sa.Select[Any]:
    """Return `version, trained_at, worker_id` of the newest predictor, and the version of scores.

    The first three are NULL before the first predictor.
    """
    is_newest = sa.and_(
        predictors.c.buffer_id == buffers.c.id, predictors.c.version == _NEWEST.scalar_subquery()
    )
    mark = (predictors.c.version, predictors.c.trained_at, predictors.c.worker_id)
    return (
        select(*mark, buffers.c.score_version)
        .join_from(buffers, predictors, is_newest, isouter=True)
        .where(buffers.c.id == BUFFER)
    )


@functools.cache
def newest_training() -> sa.Select[Any]:
    """Return `trained_at, trained_tick` of the newest predictor."""
    return _newest(predictors.c.trained_at, predictors.c.trained_tick)


@functools.cache
def newest_predictor_state() -> sa.Select[Any]:
    """Return `version, state` of the newest predictor."""
    return _newest(predictors.c.version, predictors.c.state)


def _newest(*columns: sa.Column[Any]) -> sa.Select[Any]:
    return select(*columns).where(_OF_BUFFER).order_by(predictors.c.version.desc()).limit(1)


@functools.cache
def predictor_state() -> sa.Select[Any]:
    """Return `version, state` of a predictor."""
    wanted: sa.BindParameter[int] = bindparam("wanted", type_=sa.Integer)
    return select(predictors.c.version, predictors.c.state).where(
        _OF_BUFFER, predictors.c.version == wanted
    )


@functools.cache
def versions_with_state() -> sa.Select[Any]:
    """Return the versions whose states have not been dropped, the newest first."""
    return (
        select(predictors.c.version)
        .where(_OF_BUFFER, predictors.c.state != b"")
        .order_by(predictors.c.version.desc())
    )


@functools.cache
def score_versions_below() -> sa.Select[Any]:
    """Return the distinct versions below `bound` of scores of queued samples."""
    bound: sa.BindParameter[int] = bindparam("bound", type_=sa.Integer)
    return (
        select(samples.c.score_version)
        .where(samples.c.buffer_id == BUFFER)
        .where(samples.c.queued == sa.true())
        .where(samples.c.score_version < bound)
        .distinct()
    )


@functools.cache
def drop_predictor_states() -> sa.Update:
    """Empty the states of these versions."""
    versions = bindparam("versions", type_=sa.Integer, expanding=True)
    return (
        sa.update(predictors)
        .where(_OF_BUFFER, predictors.c.version.in_(versions))
        .values(state=b"")
    )
