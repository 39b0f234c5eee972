"""Builds every SQL statement and executes none. Each is built once for each backend.

A statement is in the module of the table that it is about: `queries.pool.enter_pool(backend)`.
The bound parameter `buffer` is the buffer's id. Rows that travel with a statement are relations
named `incoming_*` (`backends.Rows`).
"""

from sqlbuffer.db.queries import (
    attempts,
    audit,
    batches,
    budget,
    buffers,
    checkpoints,
    claims,
    copy,
    deletion,
    jobs,
    looks,
    measurements,
    metrics,
    moments,
    objective,
    params,
    pool,
    predictors,
    prune,
    read,
    refresh,
    rewards,
    samples,
    scores,
    table,
    workers,
)

__all__ = [
    "attempts",
    "audit",
    "batches",
    "budget",
    "buffers",
    "checkpoints",
    "claims",
    "copy",
    "deletion",
    "jobs",
    "looks",
    "measurements",
    "metrics",
    "moments",
    "objective",
    "params",
    "pool",
    "predictors",
    "prune",
    "read",
    "refresh",
    "rewards",
    "samples",
    "scores",
    "table",
    "workers",
]
