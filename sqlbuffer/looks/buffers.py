"""A buffer in one line."""

from __future__ import annotations

from typing import Any

from sqlbuffer.core import counts
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.looks.workers import find_workers

_COUNTS = (*("stored", "waiting", "claimed", "measured", "failed", "best_reward", "iteration"),)


def summary(tx: Transaction) -> dict[str, Any]:
    """Return the counts of a buffer, how many workers run, and when one was last seen."""
    found = counts.stats(tx)
    workers = find_workers(tx)
    return {
        "name": found.name,
        "kind": found.kind,
        "mode": found.mode,
        "direction": found.direction,
        **{name: getattr(found, name) for name in _COUNTS},
        "running": sum(row["state"] == "running" for row in workers),
        "seen_at": max((row["heartbeat_at"] for row in workers), default=None),
        "created_at": found.created_at,
    }
