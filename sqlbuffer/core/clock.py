"""Moves of the clock, and of all keys at once: back to 0, or to weights of another lowest score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlbuffer._integrity import require_all
from sqlbuffer._numpy import np
from sqlbuffer.core import pool, race
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weighting import FLOOR, MOST, shift_base
from sqlbuffer.db import queries


def set_base(tx: Transaction, state: RaceState, base: float) -> RaceState:
    """Count weights from another lowest score, and compute each weight again from its score.

    The caller has locked the race exclusively.

    Returns:
        The state of the race afterwards.
    """
    old, new = shift_base(0.0 if state.base is None else state.base), shift_base(base)
    if new != old:
        waiting = pool.size(tx.buffer, tx.execute(queries.buffers.totals()).one())
        grown = max(old - new, 0.0) * waiting
        if race.is_blurred(state.clock, np.array([grown])):  # shorter keys would tie
            turn_back(tx)
            state = state._replace(clock=0.0)
        bounds = {"floor": FLOOR, "least": -MOST / 2, "most": MOST / 2}
        tx.execute(queries.pool.shift_weights(), base=new, clock=state.clock, **bounds)
        tx.count(touched=state.clock)
    tx.execute(queries.buffers.set_base_score(), base=base)
    return state._replace(base=base, epoch=state.epoch + 1)


def turn_back(tx: Transaction) -> None:
    """Move the clock to 0, where float64 resolves most; all differences between keys stay."""
    state = tx.lock_race(exclusive=True)
    overdue = [
        tx.execute(statement, clock=state.clock).all() for statement in queries.pool.overdue()
    ]
    for statement in (queries.pool.turn_back_keys(), *queries.pool.turn_back_open()):
        tx.execute(statement, clock=state.clock)
    _keep_apart(tx, state.clock, *overdue)
    tx.execute(queries.pool.turn_back_clocks(), passed=state.clock)
    tx.execute(queries.buffers.advance_epoch())


def take_back_clock(tx: Transaction, clock: float) -> None:
    """Move the clock back to `clock`, because the draws beyond it are undone; keys stay.

    The caller has locked the race exclusively.
    """
    tx.execute(queries.pool.take_back_clock(), new_clock=clock)


def _keep_apart(
    tx: Transaction, clock: float, waiting: Sequence[Any], drawn: Sequence[Any]
) -> None:
    """Keep the order of keys behind the clock that would tie once the clock is 0.

    These are keys of released samples, which wait, and of draws in open batches.
    """
    keys = pool.as_floats([row.race_key for row in (*waiting, *drawn)])
    linear, back = keys - clock, race.turned_back(keys, clock)
    moved = np.flatnonzero(linear != back)
    dialect, n = tx.backend, len(waiting)
    for rows, part, names, statement, shape in (
        (
            waiting,
            moved[moved < n],
            ("sample_id",),
            queries.pool.stand_at(dialect),
            queries.params.INCOMING_STANDS,
        ),
        (
            drawn,
            moved[moved >= n],
            ("batch", "position"),
            queries.pool.drawn_at(dialect),
            queries.params.INCOMING_DRAWN,
        ),
    ):
        if not len(part):
            continue
        first = 0 if rows is waiting else n
        chosen = [rows[i - first] for i in part.tolist()]
        columns: dict[str, Any] = {name: [getattr(row, name) for row in chosen] for name in names}
        columns |= {"old_key": linear[part].tolist(), "race_key": back[part].tolist()}
        n_moved = tx.execute_each(statement, shape, columns)
        require_all(n_moved, len(part), "keys were kept apart")
