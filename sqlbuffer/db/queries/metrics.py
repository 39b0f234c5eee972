"""Metrics of a run, by iteration and name."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import Dialect, now
from sqlbuffer.db.queries.params import BUFFER, INCOMING_METRICS
from sqlbuffer.db.schema import metrics

_ITERATION: sa.BindParameter[int] = bindparam("at_iteration", type_=sa.Integer)
_KEY = [metrics.c.buffer_id, metrics.c.iteration, metrics.c.name]


@functools.cache
def upsert_metric(dialect: Dialect) -> Any:
    """Store a metric of an iteration, or replace its value."""
    insert = dialect.upsert(metrics).values(
        buffer_id=BUFFER,
        iteration=_ITERATION,
        name=bindparam("metric", type_=sa.Text),
        value=bindparam("number", type_=sa.Double),
        recorded_at=now(),
    )
    return insert.on_conflict_do_update(
        index_elements=_KEY,
        set_={"value": insert.excluded.value, "recorded_at": insert.excluded.recorded_at},
    )


@functools.cache
def insert_metrics(dialect: Dialect) -> Any:
    """Store the metrics of an iteration that have no value."""
    incoming = dialect.each(INCOMING_METRICS)
    values = {
        "buffer_id": BUFFER,
        "iteration": _ITERATION,
        "name": incoming.metric,
        "value": incoming.number,
        "recorded_at": now(),
    }
    insert = dialect.insert_each(metrics, values)
    return insert.on_conflict_do_nothing(index_elements=_KEY)


@functools.cache
def metrics_of_buffer() -> sa.Select[Any]:
    """Return `iteration, name, value` of all metrics, by iteration and name."""
    return (
        select(metrics.c.iteration, metrics.c.name, metrics.c.value)
        .where(metrics.c.buffer_id == BUFFER)
        .order_by(metrics.c.iteration, metrics.c.name)
    )
