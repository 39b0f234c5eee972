"""SQL of `store.table`: the samples of a buffer with all that is known of each, page by page."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect
from sqlbuffer.db.queries import audit
from sqlbuffer.db.queries.attempts import REPLAYS
from sqlbuffer.db.queries.params import BUFFER, INCOMING_IDS
from sqlbuffer.db.schema import batches, buffers, draws, measurements, predictors, samples

_IS_CLAIMED = sa.and_(samples.c.queued, samples.c.id.in_(audit.claimed_ids().correlate(None)))

STATE: sa.ColumnElement[str] = sa.case(
    (_IS_CLAIMED, "claimed"),
    (sa.and_(samples.c.queued, ~REPLAYS), "waiting"),
    (samples.c.reward.is_not(None), "measured"),
    (samples.c.error.is_not(None), "failed"),
    (samples.c.queued, "waiting"),
    else_="out",
)
"""The state of a sample.

A sample that was added again waits, whatever was measured before. A sample that replays waits all
the time, so its state tells of its measurement. `attempts.HAS_FAILED` has the same order. "out":
removed, evicted, or settled without a measurement.
"""

OF_SAMPLES: dict[str, sa.ColumnElement[Any]] = {
    "sample_id": samples.c.id,
    "sample": samples.c.text,
    "key": samples.c.key,
    "source": samples.c.source,
    "state": STATE,
    "score": samples.c.score,
    "score_version": samples.c.score_version,
    "reward": samples.c.reward,
    "error": samples.c.error,
    "attempts": samples.c.attempts,
    "created_iteration": samples.c.created_iteration,
    "created_at": samples.c.created_at,
    "scored_at": samples.c.scored_at,
    "measured_at": samples.c.rewarded_at,
    "meta": samples.c.meta,
    "queued": samples.c.queued,
    "requeues": samples.c.requeues,
    "hash": samples.c.hash,
    "payload": samples.c.payload,
    "codec": samples.c.codec,
}
"""Columns of `store.table` that come from `samples`; a condition may use them."""

OF_VIEW: dict[str, sa.ColumnElement[Any]] = {
    "buffer": select(buffers.c.name).where(buffers.c.id == BUFFER).scalar_subquery(),
    "predictor": (
        select(sa.func.max(predictors.c.version).label("version"))
        .where(predictors.c.buffer_id == BUFFER)
        .where(predictors.c.version <= samples.c.score_version)
        .correlate(samples)
        .scalar_subquery()
    ),
}
"""Columns of `sample_overview` that `store.table` does not have; a condition may use them."""

OF_MEASUREMENTS: dict[str, sa.ColumnElement[Any]] = {
    "objective": measurements.c.objective,
    "seconds": measurements.c.seconds,
    "details": measurements.c.details,
    "worker_id": measurements.c.worker_id,
    "measured_iteration": batches.c.iteration,
}
"""Columns of `store.table` that come from the measurement that gave the reward or error."""


@functools.cache
def states(dialect: Dialect) -> sa.Select[Any]:
    """Return `id, state` of the samples with these ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return select(samples.c.id, STATE.label("state")).join_from(
        incoming, samples, samples.c.id == incoming.c.sample_id
    )


_ZERO: sa.BindParameter[int] = bindparam("zero", 0, type_=sa.Integer)


@functools.cache
def ids_of_page() -> sa.Select[Any]:
    """The ids of samples in a range of ids; the user may narrow it.

    A range and no limit: for the first samples that meet a condition databases may read the whole
    buffer, for every page. `+ zero` keeps SQLite from doing so by another index.
    """
    return (
        select(samples.c.id)
        .where(samples.c.buffer_id + _ZERO == BUFFER)
        .where(samples.c.id > bindparam("after", type_=BigId))
        .where(samples.c.id <= bindparam("last", type_=BigId))
    )


@functools.cache
def lowest_id_after() -> sa.Select[Any]:
    """The lowest id of any sample after an id; NULL if there is none."""
    after = bindparam("after", type_=BigId)
    return select(sa.func.min(samples.c.id).label("id")).where(samples.c.id > after)


def rows_of_page(ids: sa.Select[Any], names: Sequence[str]) -> sa.Select[Any]:
    """The columns of these names, for the samples that `ids` selects.

    The condition of a user is in `ids` alone: its SQL may use names that other tables have, too.
    """
    page = ids.subquery("page")
    known = OF_SAMPLES | OF_MEASUREMENTS
    rows = (
        select(*(known[name].label(name) for name in names))
        .select_from(page)
        .join(samples, samples.c.id == page.c.id)
        .order_by(samples.c.id)
    )
    if OF_MEASUREMENTS.keys().isdisjoint(names):
        return rows
    return rows.outerjoin(measurements, measurements.c.id == _measured_by()).outerjoin(
        batches, batches.c.id == measurements.c.batch_id
    )


def _measured_by() -> sa.ScalarSelect[Any]:
    """The newest measurement with the reward, or with the error, of the sample.

    Without `+ zero` PostgreSQL would look for the newest of all measurements from the end on.
    """
    made = measurements.alias("made")
    gave = sa.or_(
        made.c.reward == samples.c.reward,
        sa.and_(samples.c.error.is_not(None), made.c.error == samples.c.error),
    )
    return (
        select(sa.func.max(made.c.id + _ZERO).label("id"))
        .where(made.c.sample_id == samples.c.id, gave)
        .correlate(samples)
        .scalar_subquery()
    )


@functools.cache
def times_drawn() -> sa.Select[Any]:
    """How often each sample was drawn, without the draws of released batches."""
    return (
        select(draws.c.sample_id, sa.func.count().label("drawn"))
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == BUFFER, batches.c.released_at.is_(None))
        .group_by(draws.c.sample_id)
        .order_by(draws.c.sample_id)
    )
