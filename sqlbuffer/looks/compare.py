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
    """Return each buffer's rewards, how many both have had, and the best of the first so many."""
    found = [each.read(_measured) for each in (a, b)]
    n = min(found)
    return [
        {
            "measurements": measured,
            "common_measurements": n,
            "best_by_then": each.read(_best_of_first, n) if n else None,
        }
        for each, measured in zip((a, b), found, strict=True)
    ]


def _measured(tx: Transaction) -> int:
    objective = tx.execute(queries.buffers.objective()).scalar_one()
    numbers = queries.pictures.numbers_of_measurements()
    return int(tx.execute(numbers, objective=objective).one().measured)


def _best_of_first(tx: Transaction, n: int) -> float | None:
    objective = tx.execute(queries.buffers.objective()).scalar_one()
    best = queries.looks.best_of_first(tx.buffer.direction)
    found: float | None = tx.execute(best, objective=objective, limit=n).scalar_one()
    return found


def _shared(tx: Transaction, other: int) -> dict[str, int]:
    looks = queries.looks
    return {
        "shared_samples": tx.execute(looks.shared_samples(), other=other).scalar_one(),
        "shared_measured": tx.execute(looks.shared_measured(), other=other).scalar_one(),
    }
