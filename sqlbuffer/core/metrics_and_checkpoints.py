"""Metrics of a run, and checkpoints: states to resume a run from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer._validation import as_float, as_mapping, as_name, require_count, require_int
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument

LOOP = "loop"
"""Name of the checkpoint with a loop's own state: the size of the pool, and the jobs."""


def write_metrics(tx: Transaction, *, iteration: int, values: Mapping[str, float]) -> None:
    """Store the metrics of an iteration; a later value replaces an earlier one."""
    key = {"buffer": tx.buffer.buffer_id, "at_iteration": iteration_from(iteration)}
    rows = [{**key, "metric": name, "number": number} for name, number in _numbers(values).items()]
    if rows:
        tx.connection.execute(queries.metrics.upsert_metric(tx.backend), rows)


def write_new_metrics(tx: Transaction, *, iteration: int, values: Mapping[str, float]) -> bool:
    """Store the metrics of an iteration that has none; return False if it had some."""
    numbers = _numbers(values)
    columns: dict[str, Sequence[Any]] = {
        "metric": list(numbers),
        "number": list(numbers.values()),
    }
    statement = queries.metrics.insert_metrics(tx.backend)
    shape, key = queries.params.INCOMING_METRICS, {"at_iteration": iteration}
    return tx.execute_each(statement, shape, columns, **key) == len(numbers)


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    given = as_mapping(values, "metrics")
    return {as_name(name, "a metric"): number_from(given[name], name) for name in given}


def history(tx: Transaction) -> list[dict[str, Any]]:
    """Return all metrics as `{"iteration", "name", "value"}`, by iteration; NaN is a value too."""
    return [
        {"iteration": i, "name": name, "value": math.nan if value is None else value}
        for i, name, value in tx.execute(queries.metrics.metrics_of_buffer())
    ]


def iteration_from(given: Any) -> int:
    """Return an iteration, or a number of batches."""
    return require_int(given, "iteration must be a number of batches, 0 or more", least=0)


def number_from(value: Any, name: str) -> float | None:
    """Return a metric as its column stores it: None for NaN, for which SQLite has no value."""
    try:
        number = math.nan if value is None else as_float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidArgument(
            f"metric {shown(name)} must be a number, got {shown(value)}."
        ) from exc
    return None if math.isnan(number) else number


def write_checkpoints(
    tx: Transaction,
    *,
    iteration: int,
    states: Mapping[str, bytes],
    kept: Mapping[str, int | None] | None = None,
) -> None:
    """Store states to resume from; each replaces the earlier one of its name.

    Args:
        tx: A writing transaction.
        iteration: Batches settled so far.
        states: By name.
        kept: Number of states to keep, by name, None for all; 1 for a name that is not given.
    """
    iteration, kept = iteration_from(iteration), {} if kept is None else as_mapping(kept, "kept")
    for name, data in as_mapping(states, "checkpoint").items():
        n = kept.get(name, 1)
        if n is not None:
            rule = f"kept[{shown(name)}] must be a number of states, or None for all"
            n = require_count(n, rule)
        key = {"checkpoint": as_name(name, "a checkpoint")}
        data = state_from(data, f"checkpoint {shown(name)}")
        tx.backend.require_fits(f"checkpoint {shown(name)}", len(data))
        if n == 1:
            tx.execute(queries.checkpoints.delete_checkpoints(), **key)
        else:
            oldest = -1 if n is None else iteration - n
            outdated = queries.checkpoints.delete_outdated_checkpoints()
            tx.execute(outdated, **key, oldest=oldest, at_iteration=iteration)
        statement = queries.checkpoints.upsert_checkpoint(tx.backend)
        tx.execute(statement, **key, at_iteration=iteration, state=data)


def states_from(given: Any) -> Mapping[str, bytes]:
    """Return states to store as checkpoints, an empty mapping for None."""
    return {} if given is None else as_mapping(given, "checkpoint")


def state_from(data: Any, what: str) -> bytes:
    """Return the bytes of a state, or raise `InvalidArgument`."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidArgument(f"{what} must be bytes, got {shown(data)}.")
    return bytes(data)


def read_checkpoints(tx: Transaction, *, name: str) -> list[tuple[int, bytes]]:
    """Return all checkpoints of a name as (batches settled, state), the oldest first."""
    name = as_name(name, "a checkpoint")
    rows = tx.rows(queries.checkpoints.checkpoints_of_name(), checkpoint=name)
    return [(row.iteration, row.data) for row in rows]


def read_checkpoint(tx: Transaction, *, name: str) -> tuple[int, bytes] | None:
    """Return the newest checkpoint of a name as (batches settled, state), None if there is none."""
    name = as_name(name, "a checkpoint")
    row = tx.execute(queries.checkpoints.newest_checkpoint(), checkpoint=name).one_or_none()
    return None if row is None else (row.iteration, row.data)
