"""The best samples of a buffer."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sqlbuffer._validation import LARGEST_INT
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.where import Checked, guarded, narrowed
from sqlbuffer.db import queries
from sqlbuffer.db.schema import samples


def find_best(
    tx: Transaction,
    n: int,
    *,
    by: str,
    where: Checked = None,
    objective: str | None = None,
) -> list[dict[str, Any]]:
    """Return the n best samples by "reward" or "score", the best first, each with its stored text.

    With an objective, their rewards are those under it.

    The text is there for every sample; decoding may need a type that only the user's program knows.
    """
    names = "id reward score source created_iteration created_at rewarded_at meta".split()
    names += ["key"] if tx.buffer.keep_key else []
    columns = [*(samples.c[name] for name in names), samples.c.text.label("sample")]
    best = _best(tx, *columns, by=by, objective=objective)
    given = {"limit": min(n, LARGEST_INT), "objective": objective}
    with guarded(tx, where):
        rows = [dict(row) for row in tx.execute(narrowed(best, where), **given).mappings()]
    return [{**row, "reward": row.pop("earlier", row["reward"])} for row in rows]


def count_best(tx: Transaction, *, by: str, where: Checked, objective: str | None) -> int:
    """Return how many samples `find_best` has without a limit."""
    best = _best(tx, samples.c.id, by=by, objective=objective)
    with guarded(tx, where):
        counted = queries.read.count_of(narrowed(best, where))
        return int(tx.execute(counted, objective=objective).scalar_one())


def _best(tx: Transaction, *columns: Any, by: str, objective: str | None) -> sa.Select[Any]:
    """Return the statement of the best samples; of those with rewards under an objective."""
    if objective is not None:
        from sqlbuffer.core.read import require_objective  # imports numpy and the codec

        require_objective(tx, objective)
    is_earlier = objective is not None
    return queries.read.best(by, tx.buffer.direction, *columns, of_earlier=is_earlier)
