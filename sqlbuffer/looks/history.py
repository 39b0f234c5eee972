"""The metrics of a run by iteration."""

from __future__ import annotations

from typing import Any

from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries


def metrics_by_iteration(tx: Transaction, n: int) -> list[dict[str, Any]]:
    """Return a dict for each of the n newest iterations that have metrics, the newest last."""
    found: dict[int, dict[str, Any]] = {}
    for row in tx.execute(queries.looks.newest_metrics(), limit=n):
        found.setdefault(row.iteration, {"iteration": row.iteration})[row.name] = row.value
    return list(found.values())


def count_iterations(tx: Transaction) -> int:
    """Return how many iterations have metrics."""
    return int(tx.execute(queries.looks.iterations_with_metrics()).scalar_one())
