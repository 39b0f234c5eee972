"""The budget of a buffer: how many samples may be measured, failed or claimed."""

from __future__ import annotations

import logging
from typing import Any

from sqlbuffer._integrity import numbers_of
from sqlbuffer._messages import shown
from sqlbuffer._validation import LARGEST_INT, require_int
from sqlbuffer.core import pool
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument

log = logging.getLogger(__name__)

_told: set[tuple[str, int, int]] = set()
"""Databases, buffers and budgets of which this process has said that they are used up."""


def as_budget(budget: Any) -> int | None:
    """Return a number of samples; None for any number."""
    rule = "budget must be a number of samples, or None for any number"
    return None if budget is None else require_int(budget, rule, least=0, most=LARGEST_INT)


def left(tx: Transaction) -> int | None:
    """Return how many more samples may be claimed; None for any number.

    In a transaction that has locked draws the number stays valid until its end.
    """
    row = tx.own_row(queries.budget.used())
    with numbers_of(f"the budget of buffer {tx.buffer.name!r}"):
        return None if row.budget is None else max(int(row.budget) - int(row.used), 0)


def cut(tx: Transaction, n: int) -> int:
    """Return how many samples a draw of n samples may take; n is -1 for all waiting ones."""
    most = left(tx)
    if most is None:
        return n
    if not most:
        _tell(tx)
    if n < 0:  # everything, unless the budget is smaller
        waiting = pool.size(tx.buffer, tx.execute(queries.buffers.totals()).one())
        return n if waiting <= most else most
    return min(n, most)


def _tell(tx: Transaction) -> None:
    """Say once why batches are empty."""
    budget = tx.own_row(queries.budget.used()).budget
    key = (tx.buffer.database.url, tx.buffer.buffer_id, int(budget))
    if key not in _told:
        _told.add(key)
        log.warning(
            "the budget of buffer %s is used up: %d samples are measured, failed or claimed; "
            "raise it with `store.set_budget`",
            shown(tx.buffer.name),
            budget,
        )


def set_budget(tx: Transaction, budget: int | None) -> None:
    """Store the budget.

    Raises:
        InvalidArgument: If more samples are measured, failed or claimed already.
    """
    tx.lock_race(exclusive=True)
    used = int(tx.own_row(queries.budget.used()).used)
    if budget is not None and budget < used:
        raise InvalidArgument(
            f"the budget of buffer {tx.buffer.name!r} cannot be {budget}, because {used} samples "
            "are measured, failed or claimed: give at least that many."
        )
    tx.execute(queries.budget.set_budget(), budget=budget)
