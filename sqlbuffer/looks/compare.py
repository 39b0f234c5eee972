"""Two buffers side by side."""

from __future__ import annotations

from typing import Any

from sqlbuffer.core import counts
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.means import mean
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.looks.top import find_best

_TOP = 10
_COUNTS = (
    *("kind", "mode", "direction", "iteration", "stored", "waiting", "claimed", "measured"),
    *("failed", "best_reward"),
)


def compare(a: BufferHandle, b: BufferHandle) -> list[dict[str, Any]]:
    """Return a row for each number: `field`, and the values of both buffers as `a` and `b`."""
    of_a, of_b = (each.read(_numbers) for each in (a, b))
    shared = a.read(lambda tx: _shared(tx, b.buffer_id))
    for row, best in zip((of_a, of_b), _after_same_number(a, b), strict=True):
        row |= best
    rows = [{"field": name, "a": of_a[name], "b": of_b[name]} for name in of_a]
    return rows + [{"field": name, "a": value, "b": value} for name, value in shared.items()]


def _numbers(tx: Transaction) -> dict[str, Any]:
    found = counts.stats(tx)
    best = [row["reward"] for row in find_best(tx, _TOP, by="reward")]
    return {
        **{name: getattr(found, name) for name in _COUNTS},
        f"mean_of_top_{_TOP}": mean(best) if best else None,
        "seconds": tx.execute(queries.looks.costs()).scalar_one(),
    }


def _after_same_number(a: BufferHandle, b: BufferHandle) -> list[dict[str, Any]]:
    """Return the rewards of each buffer, how many both have had, and the best of so many of each.

    Of more than 5,000 measurements the best is that at the last of 5,000 places before.
    """
    from sqlbuffer.plots.kinds import best  # imports numpy

    curves = [each.read(best.read, k=1) for each in (a, b)]
    n = min(curve.measured for curve in curves)
    return [
        {
            "measurements": curve.measured,
            "common_measurements": n,
            "best_by_then": best.at(curve, n) if n else None,
        }
        for curve in curves
    ]


def _shared(tx: Transaction, other: int) -> dict[str, int]:
    row = tx.execute(queries.looks.shared_samples(), other=other).one()
    return {"shared_samples": row.samples, "shared_measured": row.measured}
