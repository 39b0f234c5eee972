"""What a run writes beside its samples: metrics, checkpoints, predictor versions."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from sqlbuffer import statements
from sqlbuffer.attachment import Attachment
from sqlbuffer.dialect import now
from sqlbuffer.schema import buffers, checkpoints, metrics, predictors
from sqlbuffer.workers import worker_id


@dataclasses.dataclass(frozen=True, slots=True)
class PredictorVersion:
    """One trained state of the predictor.

    Attributes:
        version: Score version from which it is in force.
        iteration: Batches settled when it was trained.
        state: Its weights, as safetensors.
        rows_trained: Labelled samples it was trained on.
        train_loss: Loss on the training rows.
        valid_loss: Loss on the held-out rows.
        metrics: Other measures of its training.
        trained_at: When it was stored, UTC.
    """

    version: int
    iteration: int
    state: bytes = dataclasses.field(repr=False)
    rows_trained: int
    train_loss: float | None
    valid_loss: float | None
    metrics: dict[str, Any]
    trained_at: dt.datetime


def write_metrics(
    connection: sa.Connection, attachment: Attachment, *, iteration: int, values: Mapping[str, float]
) -> None:
    """Store the metrics of an iteration; a later value takes the place of an earlier one."""
    if values:
        insert = attachment.database.dialect.upsert(metrics)
        insert = insert.values(recorded_at=now()).on_conflict_do_update(
            index_elements=[metrics.c.buffer_id, metrics.c.iteration, metrics.c.name],
            set_={"value": insert.excluded.value, "recorded_at": insert.excluded.recorded_at},
        )
        key = {"buffer_id": attachment.buffer_id, "iteration": iteration}
        rows = [{**key, "name": name, "value": _finite(value)} for name, value in values.items()]
        connection.execute(insert, rows)


def history(connection: sa.Connection, attachment: Attachment) -> list[dict[str, Any]]:
    """Return all metrics as `{"iteration", "name", "value"}`, in the order of the run; a missing value is NaN."""
    found = connection.execute(
        sa.select(metrics.c.iteration, metrics.c.name, metrics.c.value)
        .where(metrics.c.buffer_id == attachment.buffer_id)
        .order_by(metrics.c.iteration, metrics.c.name)
    )
    return [{"iteration": i, "name": name, "value": math.nan if v is None else v} for i, name, v in found]


def write_checkpoints(
    connection: sa.Connection, attachment: Attachment, *, iteration: int, states: Mapping[str, bytes]
) -> None:
    """Store states to resume from; each takes the place of the one of that name before."""
    for name, data in states.items():
        key = {"buffer_id": attachment.buffer_id, "name": name}
        connection.execute(sa.delete(checkpoints).filter_by(**key))
        connection.execute(
            sa.insert(checkpoints).values(**key, iteration=iteration, data=data, created_at=now()),
        )


def read_checkpoint(connection: sa.Connection, attachment: Attachment, *, name: str) -> tuple[int, bytes] | None:
    """Return the newest checkpoint of a name as (batches settled when it was written, state)."""
    row = connection.execute(
        sa.select(checkpoints.c.iteration, checkpoints.c.data)
        .where(checkpoints.c.buffer_id == attachment.buffer_id)
        .where(checkpoints.c.name == name)
        .order_by(checkpoints.c.iteration.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else (row.iteration, row.data)


def write_predictor(
    connection: sa.Connection,
    attachment: Attachment,
    *,
    state: bytes,
    rows_trained: int,
    train_loss: float | None,
    valid_loss: float | None,
    measures: Mapping[str, Any],
) -> int:
    """Store a predictor and return its version; scores made from now on carry it."""
    version = connection.execute(
        sa.update(buffers)
        .where(buffers.c.id == attachment.buffer_id)
        .values(score_version=buffers.c.score_version + 1)
        .returning(buffers.c.score_version)
    ).scalar_one()
    connection.execute(
        sa.insert(predictors).values(
            buffer_id=attachment.buffer_id,
            version=version,
            iteration=attachment.run(connection, statements.totals()).one().iterations,
            state=state,
            rows_trained=rows_trained,
            train_loss=_finite(train_loss),
            valid_loss=_finite(valid_loss),
            metrics={name: _finite(value) for name, value in measures.items()},
            trained_at=now(),
            worker_id=worker_id(),
        )
    )
    return int(version)


def newest_predictor(connection: sa.Connection, attachment: Attachment) -> PredictorVersion | None:
    """Return the newest predictor, None before the first."""
    columns = [predictors.c[field.name] for field in dataclasses.fields(PredictorVersion)]
    row = connection.execute(
        sa.select(*columns)
        .where(predictors.c.buffer_id == attachment.buffer_id)
        .order_by(predictors.c.version.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else PredictorVersion(*row)


def _finite(value: Any) -> Any:
    """Neither database stores NaN in a column or in JSON as both read it back: NULL stands for it."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
