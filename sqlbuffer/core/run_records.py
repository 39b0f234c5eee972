"""What a run writes next to its samples: metrics, checkpoints, predictor versions."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from sqlbuffer._integrity import tampered
from sqlbuffer._json import as_measures, measures_from
from sqlbuffer._messages import shown
from sqlbuffer._validation import as_float, as_mapping, as_name, require_count, require_int
from sqlbuffer.core import leases
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.backends import now
from sqlbuffer.db.schema import buffers, checkpoints, metrics, predictors, samples
from sqlbuffer.errors import InvalidArgument


@dataclasses.dataclass(frozen=True, slots=True)
class PredictorVersion:
    """One trained state of the predictor, in numbers.

    Attributes:
        version: Score version from which it is in force.
        iteration: Batches settled when it was trained.
        rows_trained: Labelled samples it was trained on.
        rows_held_out: Labelled samples it never saw, on which it was measured.
        train_loss: Loss on the training rows.
        valid_loss: Loss on the rows by which the best epoch was chosen.
        rank_correlation: Spearman's, of predictions and rewards of the rows held out; None where undefined.
        r2: Share of the variance of the held-out rewards that it explains; None where undefined.
        metrics: Other measures of its training, `calibration` among them. In the database the texts "NaN", "Infinity"
            and "-Infinity" stand for these numbers, as PostgreSQL reads them.
        trained_at: When it was stored, UTC.
        worker_id: The worker that trained it.
        size_bytes: Size of its stored state; 0 where the state has been dropped (`keep`).
    """

    version: int
    iteration: int
    rows_trained: int
    rows_held_out: int
    train_loss: float | None
    valid_loss: float | None
    rank_correlation: float | None
    r2: float | None
    metrics: dict[str, Any]
    trained_at: dt.datetime
    worker_id: str
    size_bytes: int

    @property
    def mark(self) -> Mark:
        """What tells it from every other version, also of the same number."""
        return Mark(self.version, self.trained_at, self.worker_id)


class Mark(NamedTuple):
    """A predictor version and where it came from: a database that was set back gives its number to another one."""

    version: int
    trained_at: dt.datetime
    worker_id: str


def write_metrics(tx: Transaction, *, iteration: int, values: Mapping[str, float]) -> None:
    """Store the metrics of an iteration; a later value takes the place of an earlier one."""
    iteration = iteration_from(iteration)
    if as_mapping(values, "metrics"):
        insert = tx.backend.upsert(metrics)
        insert = insert.values(recorded_at=now()).on_conflict_do_update(
            index_elements=[metrics.c.buffer_id, metrics.c.iteration, metrics.c.name],
            set_={"value": insert.excluded.value, "recorded_at": insert.excluded.recorded_at},
        )
        key = {"buffer_id": tx.buffer.buffer_id, "iteration": iteration}
        rows = [
            {**key, "name": as_name(name, "a metric"), "value": _number(values[name], name)}
            for name in values
        ]
        tx.connection.execute(insert, rows)


def iteration_from(given: Any) -> int:
    """Return an iteration, or a number of batches."""
    return require_int(given, "iteration must be a number of batches, 0 or more", least=0)


def states_from(given: Any) -> Mapping[str, bytes]:
    """Return states to be stored as checkpoints, none for None."""
    return {} if given is None else as_mapping(given, "checkpoint")


def history(tx: Transaction) -> list[dict[str, Any]]:
    """Return all metrics as `{"iteration", "name", "value"}`, in the order of the run; NaN is a value too."""
    found = tx.connection.execute(
        sa.select(metrics.c.iteration, metrics.c.name, metrics.c.value)
        .where(metrics.c.buffer_id == tx.buffer.buffer_id)
        .order_by(metrics.c.iteration, metrics.c.name)
    )
    return [
        {"iteration": i, "name": name, "value": math.nan if v is None else v}
        for i, name, v in found
    ]


def write_checkpoints(
    tx: Transaction,
    *,
    iteration: int,
    states: Mapping[str, bytes],
    kept: Mapping[str, int | None] | None = None,
) -> None:
    """Store states to resume from; each takes the place of the one of that name before.

    Args:
        tx: A writing transaction.
        iteration: Batches settled by then.
        states: By name.
        kept: How many of a name stay, for those of which it is not the newest alone; None for all.
    """
    iteration, kept = iteration_from(iteration), {} if kept is None else as_mapping(kept, "kept")
    for name, data in as_mapping(states, "checkpoint").items():
        n = kept.get(name, 1)
        n = (
            None
            if n is None
            else require_count(
                n, f"kept[{shown(name)}] must be a number of states, or None for all"
            )
        )
        key = {"buffer_id": tx.buffer.buffer_id, "name": as_name(name, "a checkpoint")}
        data = _state_from(data, f"checkpoint {shown(name)}")
        tx.backend.require_fits(f"checkpoint {shown(name)}", len(data))
        outdated = sa.delete(checkpoints).filter_by(**key)
        if n != 1:  # batches of other workers may have been settled out of their order
            oldest = -1 if n is None else iteration - n
            outdated = outdated.where(
                (checkpoints.c.iteration <= oldest) | (checkpoints.c.iteration == iteration)
            )
        tx.connection.execute(outdated)
        tx.connection.execute(
            sa.insert(checkpoints).values(**key, iteration=iteration, data=data, created_at=now()),
        )


def _state_from(data: Any, what: str) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidArgument(f"{what} must be bytes, got {shown(data)}.")
    return bytes(data)


def read_checkpoints(tx: Transaction, *, name: str) -> list[tuple[int, bytes]]:
    """Return all checkpoints of a name as (batches settled when it was written, state), in that order."""
    rows = tx.connection.execute(
        sa.select(checkpoints.c.iteration, checkpoints.c.data)
        .where(checkpoints.c.buffer_id == tx.buffer.buffer_id)
        .where(checkpoints.c.name == as_name(name, "a checkpoint"))
        .order_by(checkpoints.c.iteration)
    )
    return [(row.iteration, row.data) for row in rows]


def read_checkpoint(tx: Transaction, *, name: str) -> tuple[int, bytes] | None:
    """Return the newest checkpoint of a name as (batches settled when it was written, state)."""
    row = tx.connection.execute(
        sa.select(checkpoints.c.iteration, checkpoints.c.data)
        .where(checkpoints.c.buffer_id == tx.buffer.buffer_id)
        .where(checkpoints.c.name == as_name(name, "a checkpoint"))
        .order_by(checkpoints.c.iteration.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else (row.iteration, row.data)


def write_predictor(
    tx: Transaction,
    *,
    state: bytes,
    rows_trained: int,
    rows_held_out: int = 0,
    measures: Mapping[str, Any],
    keep: int | None = None,
    lease: leases.Lease | None = None,
    states: Mapping[str, bytes] | None = None,
) -> int:
    """Store a predictor and return its version; scores made from now on carry it.

    Args:
        tx: A writing transaction.
        state: Its weights.
        rows_trained: Labelled samples it was trained on.
        rows_held_out: Labelled samples it never saw.
        measures: Numbers that tell how good it is; those that have a column go there.
        keep: Drop the states of all but so many of the newest; never of one whose scores are still in use.
        lease: The lease under which it was trained.
        states: Checkpoints, by name, that are stored with it.

    Raises:
        LeaseLost: Where the lease is not held any more. Nothing is stored.
    """
    state = _state_from(state, "the state of a predictor")
    tx.backend.require_fits("the state of this predictor", len(state))
    found = as_measures(measures, "metrics")
    in_columns = {name: _number(measures_from(found.pop(name, None)), name) for name in _MEASURES}
    rows_trained, rows_held_out = (
        require_int(n, f"{name} must be a number of samples", least=0)
        for name, n in {"rows_trained": rows_trained, "rows_held_out": rows_held_out}.items()
    )
    keep = (
        None
        if keep is None
        else require_count(keep, "keep must be 1 or more versions, or None for all", least=1)
    )
    if lease is not None:
        leases.require(tx, lease)
    version = tx.connection.execute(
        sa.update(buffers)
        .where(buffers.c.id == tx.buffer.buffer_id)
        .values(score_version=buffers.c.score_version + 1)
        .returning(buffers.c.score_version)
    ).scalar_one()
    newest = newest_version(tx)
    if newest is not None and version <= newest:
        raise tampered(
            f"scores of buffer {tx.buffer.name!r} have version {version - 1}, a predictor has {newest}"
        )
    iteration = tx.execute(queries.totals()).one().iterations
    write_checkpoints(tx, iteration=iteration, states=states or {})
    tx.connection.execute(
        sa.insert(predictors).values(
            buffer_id=tx.buffer.buffer_id,
            version=version,
            iteration=iteration,
            state=state,
            rows_trained=rows_trained,
            rows_held_out=rows_held_out,
            trained_at=now(),
            trained_tick=tx.tick(),
            worker_id=worker_id(),
            **in_columns,
            metrics=found,
        )
    )
    if keep is not None:
        _drop_states(tx, keep=keep)
    tx.count()
    return int(version)


_MEASURES = ("train_loss", "valid_loss", "rank_correlation", "r2")
"""The measures that have a column."""


def read_predictors(tx: Transaction) -> list[PredictorVersion]:
    """Return all predictor versions, the oldest first."""
    found = tx.connection.execute(_versions(tx.buffer).order_by(predictors.c.version))
    return [_version(row) for row in found]


def newest_version(tx: Transaction) -> int | None:
    """Return the version of the newest predictor, None before the first. It costs one look into an index."""
    newest = sa.select(sa.func.max(predictors.c.version)).where(
        predictors.c.buffer_id == tx.buffer.buffer_id
    )
    version: int | None = tx.connection.scalar(newest)
    if not isinstance(version, (int, type(None))):
        raise tampered(f"the version of a predictor is stored as {shown(version)}, no integer")
    return version


class Newer(NamedTuple):
    """The newest predictor, as one transaction has seen it.

    Attributes:
        mark: What tells it from every other; None before the first.
        version: Version of the scores that it makes now: later than its own, if a refresh has begun since.
        state: Its weights; None for who holds it already.
    """

    mark: Mark | None
    version: int
    state: bytes | None


def newer(tx: Transaction, *, held: Mark | None) -> Newer:
    """Return the newest predictor. It costs one look into an index, unless another one than this is held."""
    mark, version = _newest_mark(tx)
    found = None if mark in (None, held) else read_state(tx, version=None)
    return Newer(mark, version, None if found is None else found[1])


def _newest_mark(tx: Transaction) -> tuple[Mark | None, int]:
    newest = sa.select(sa.func.max(predictors.c.version)).where(
        predictors.c.buffer_id == tx.buffer.buffer_id
    )
    is_newest = sa.and_(
        predictors.c.buffer_id == buffers.c.id, predictors.c.version == newest.scalar_subquery()
    )
    row = tx.connection.execute(
        sa.select(*(predictors.c[name] for name in Mark._fields), buffers.c.score_version)
        .join_from(buffers, predictors, is_newest, isouter=True)
        .where(buffers.c.id == tx.buffer.buffer_id)
    ).one_or_none()
    if row is None:  # or it says that the buffer is not there any more
        return None, tx.race_state().version
    *mark, version = row
    return None if mark[0] is None else Mark(*mark), int(version)


def newest_predictor(tx: Transaction) -> PredictorVersion | None:
    """Return the newest predictor, None before the first."""
    row = tx.connection.execute(
        _versions(tx.buffer).order_by(predictors.c.version.desc()).limit(1)
    ).one_or_none()
    return None if row is None else _version(row)


def _version(row: Any) -> PredictorVersion:
    return PredictorVersion(**{**row._mapping, "metrics": measures_from(row.metrics)})


def read_state(tx: Transaction, *, version: int | None) -> tuple[int, bytes] | None:
    """Return version and state of a predictor, by default of the newest; None before the first.

    Raises:
        InvalidArgument: There is no such version, or its state has been dropped.
    """
    statement = sa.select(predictors.c.version, predictors.c.state).where(
        predictors.c.buffer_id == tx.buffer.buffer_id
    )
    if version is not None:
        version = require_int(
            version, "version must be the version of a predictor, or None for the newest", least=0
        )
        statement = statement.where(predictors.c.version == version)
    row = tx.connection.execute(
        statement.order_by(predictors.c.version.desc()).limit(1)
    ).one_or_none()
    if row is None and version is None:
        return None
    if row is None or not row.state:
        kept = [str(found.version) for found in read_predictors(tx) if found.size_bytes]
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} has no state of predictor {version!r}: it has {', '.join(kept) or 'none'}."
        )
    return row.version, row.state


def _versions(buffer: BufferHandle) -> sa.Select[Any]:
    *names, _ = (field.name for field in dataclasses.fields(PredictorVersion))
    size = sa.func.length(predictors.c.state).label("size_bytes")
    return sa.select(*(predictors.c[name] for name in names), size).where(
        predictors.c.buffer_id == buffer.buffer_id
    )


def _drop_states(tx: Transaction, *, keep: int) -> None:
    """Empty the states that are no longer needed; how good they were stays. Reads all samples where there are any."""
    stored = tx.connection.scalars(
        sa.select(predictors.c.version)
        .where(predictors.c.buffer_id == tx.buffer.buffer_id)
        .where(predictors.c.state != b"")
        .order_by(predictors.c.version.desc())
    ).all()
    candidates = stored[max(keep, 1) :]
    if not candidates:
        return
    # A score belongs to the newest predictor that is not newer than it: refreshes have versions between predictors.
    scored = tx.connection.scalars(
        sa.select(samples.c.score_version)
        .where(samples.c.buffer_id == tx.buffer.buffer_id)
        .where(samples.c.queued == sa.true())
        .where(samples.c.score_version < stored[max(keep, 1) - 1])
        .distinct()
    ).all()
    in_use = {
        max((version for version in stored if version <= score), default=0) for score in scored
    }
    gone = [version for version in candidates if version not in in_use]
    tx.connection.execute(
        sa.update(predictors)
        .where(predictors.c.buffer_id == tx.buffer.buffer_id)
        .where(predictors.c.version.in_(gone))
        .values(state=b"")
    )


def _number(value: Any, name: str) -> float | None:
    """Return the value of a metric as a column has it: NULL for NaN, which SQLite does not store."""
    try:
        number = math.nan if value is None else as_float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidArgument(
            f"metric {shown(name)} must be a number, got {shown(value)}."
        ) from exc
    return None if math.isnan(number) else number
