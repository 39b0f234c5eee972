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
    has_state: bool = False,
) -> list[dict[str, Any]]:
    """Return the n best samples by "reward" or "score", the best first, each with its stored text.

    With an objective, their rewards are those under it. With `has_state` each has its state.

    The text is there for every sample; decoding may need a type that only the user's program knows.
    """
    names = "id reward score source created_iteration created_at rewarded_at meta".split()
    names += ["key"] if tx.buffer.keep_key else []
    columns = [*(samples.c[name] for name in names), samples.c.text.label("sample")]
    best = _best(tx, *columns, by=by, objective=objective)
    given = {"limit": min(n, LARGEST_INT), "objective": objective}
    with guarded(tx, where):
        rows = [dict(row) for row in tx.execute(narrowed(best, where), **given).mappings()]
    states = _states(tx, [row["id"] for row in rows]) if has_state and rows else {}
    return [
        {
            **row,
            "reward": row.pop("earlier", row["reward"]),
            **({"state": states[row["id"]]} if has_state else {}),
        }
        for row in rows
    ]


def _states(tx: Transaction, ids: list[int]) -> dict[int, str]:
    """Return the states of these samples: of all samples they would be computed to be sorted."""
    statement = queries.table.states(tx.backend)
    return {
        row.id: row.state
        for row in tx.execute_with(statement, queries.params.INCOMING_IDS, {"sample_id": ids})
    }


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
