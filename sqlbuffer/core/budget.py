"""The budget of a buffer: how many samples may be measured, failed or claimed."""

from __future__ import annotations

import bisect
import itertools
import logging
import math
import operator
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlbuffer._integrity import no_progress, numbers_of
from sqlbuffer._messages import n_of, shown
from sqlbuffer._validation import LARGEST_INT, require_int
from sqlbuffer.core import pool
from sqlbuffer.core.claim import MOST_WIDENINGS, TooFewMarked
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument

log = logging.getLogger(__name__)

_LAST_ARRIVAL = sys.float_info.max
"""The largest race key of a sample that can arrive."""

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
        return None if row.budget is None else _left(row)


def _left(row: Any) -> int:
    return max(int(row.budget) - int(row.used), 0)


def cut(tx: Transaction, state: RaceState, n: int, pct_argmax: float) -> int:
    """Return the size of the longest batch of at most n samples that the budget allows.

    A sample that is measured or failed, or is claimed already, costs nothing. The transaction has
    locked draws.

    Args:
        tx: A writing transaction.
        state: The state of the race.
        n: Size of the draw; -1 for all waiting samples.
        pct_argmax: Share of the draw that is taken by weight.

    Raises:
        TooFewMarked: If more samples must be marked as top first.
    """
    allowed = _allowed(tx, state, n, pct_argmax)
    if allowed.size == 0 < allowed.most:
        _tell(tx)
    return n if allowed.size == allowed.most else allowed.size


def is_spent(buffer: BufferHandle, n: int, pct_argmax: float = 0.0) -> bool:
    """Tell whether nothing of a budget is left, and a draw would return no sample.

    Args:
        buffer: The buffer.
        n: Size of the draw; -1 for all waiting samples.
        pct_argmax: Share of the draw that is taken by weight.
    """
    for _ in range(MOST_WIDENINGS):
        try:
            return buffer.peek(draws_nothing, n, pct_argmax)
        except TooFewMarked as exc:
            buffer.write(pool.widen_top, n=exc.n)
    raise no_progress("the marking of the heaviest samples")


def draws_nothing(tx: Transaction, n: int, pct_argmax: float = 0.0) -> bool:
    """`is_spent` within a transaction.

    Raises:
        TooFewMarked: If more samples must be marked as top first.
    """
    return left(tx) == 0 and _allowed(tx, tx.race_state(), n, pct_argmax).size == 0


class _Allowed(NamedTuple):
    """How many samples a draw may take."""

    size: int
    """Samples of the longest batch that the budget allows."""
    most: int
    """Samples of the batch without a budget, or more."""


def _allowed(tx: Transaction, state: RaceState, n: int, pct_argmax: float) -> _Allowed:
    most = n if n >= 0 else pool.size(tx.buffer, tx.execute(queries.buffers.totals()).one())
    budget = left(tx)
    if budget is None or most <= budget:
        return _Allowed(most, most)
    n_heaviest = round(most * pct_argmax)
    limits = {"limit": most, "n_heaviest": n_heaviest}
    rows = tx.rows(
        queries.budget.costs_of_head(), last_key=math.inf if n < 0 else _LAST_ARRIVAL, **limits
    )
    with numbers_of(f"the budget of buffer {tx.buffer.name!r}"):
        heaviest = sorted(filter(_is_heaviest, rows), key=_by_score, reverse=True)
        waiting = sorted(itertools.filterfalse(_is_heaviest, rows), key=_by_key)
        # As it was when the rows were read: rewards may have been stored since `left`.
        budget = _left(rows[0]) if rows else 0
        if n < 0 and sum(row.costs for row in waiting) <= budget:
            return _Allowed(most, most)
        if n_heaviest and _lacks_marks(state, n_heaviest, n_found=len(heaviest)):
            raise TooFewMarked(n_heaviest)
        arrivals = [row for row in waiting if row.race_key < math.inf]
        return _longest(heaviest, arrivals, budget, most=most, pct_argmax=pct_argmax)


def _lacks_marks(state: RaceState, n: int, *, n_found: int) -> bool:
    return state.top_score is None or (n_found < n and state.top_score != -math.inf)


_is_heaviest = operator.attrgetter("is_heaviest")
_by_key = operator.attrgetter("race_key", "tie", "sample_id")


def _by_score(row: Any) -> Any:
    return 0.0 if row.score is None else row.score, row.tie, row.sample_id


def _longest(
    heaviest: Sequence[Any],
    arrivals: Sequence[Any],
    budget: int,
    *,
    most: int,
    pct_argmax: float,
) -> _Allowed:
    """Return the size of the longest batch whose samples cost no more than the budget.

    A longer batch has all samples of a shorter one, and does not cost less.
    """

    def cost(n: int) -> int:
        first = heaviest[: round(n * pct_argmax)]
        taken = {row.sample_id for row in first}
        others = (row for row in arrivals if row.sample_id not in taken)
        return sum(row.costs for row in (*first, *itertools.islice(others, n - len(first))))

    most = min(most, len({row.sample_id for row in (*heaviest, *arrivals)}))
    return _Allowed(bisect.bisect_right(range(most + 1), budget, key=cost) - 1, most)


def _tell(tx: Transaction) -> None:
    """Say once why batches are empty."""
    budget = tx.own_row(queries.budget.used()).budget
    key = (tx.buffer.database.url, tx.buffer.buffer_id, int(budget))
    if key not in _told:
        _told.add(key)
        log.warning(
            "the budget of buffer %s is used up: %s measured, failed or claimed; "
            "raise it with `store.set_budget` or `sqlbuffer budget`",
            shown(tx.buffer.name),
            n_of(budget, "sample is", "samples are"),
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
            f"the budget of buffer {tx.buffer.name!r} cannot be {budget}, because "
            f"{n_of(used, 'sample is', 'samples are')} measured, failed or claimed: give at least "
            "that many."
        )
    tx.execute(queries.budget.set_budget(), budget=budget)
