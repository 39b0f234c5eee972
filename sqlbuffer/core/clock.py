"""Moves of the clock, and of all keys at once: back to 0, or to weights of another lowest score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlbuffer._integrity import require_all
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer.core import pool, race
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weighting import FLOOR, MOST, shift_base
from sqlbuffer.db import queries


class Moment(NamedTuple):
    """How often keys had moved: all of them at once, and those of released draws."""

    epoch: int
    released: int


def moment_of(tx: Transaction) -> Moment:
    """Return the moment that a transaction sees."""
    row = tx.own_row(queries.scores.refresh_state())
    return Moment(int(row.epoch), int(row.released))


class Blurred(Exception):
    """The clock is too large for new keys: it must be turned back, with the race locked alone."""


def resolved(
    tx: Transaction,
    state: RaceState,
    weights: Floats,
    *,
    may_turn_back: bool = True,
    carried: Floats | None = None,
) -> RaceState:
    """Return the race at a clock where float64 tells new keys of n samples apart.

    Every caller that makes keys, or stretches them beyond the clock, asks here or in `set_base`
    first. If the clock is too large, it is turned back, and all keys that were read have moved.

    Args:
        tx: A writing transaction.
        state: The state of the race.
        weights: (n,) weights of the samples.
        may_turn_back: True if the caller has locked the race exclusively.
        carried: See `turn_back`.

    Raises:
        Blurred: If the clock is too large, and `may_turn_back` is False.
    """
    if not race.is_blurred(state.clock, weights):
        return state
    if not may_turn_back:
        raise Blurred
    turn_back(tx, carried)
    return state._replace(clock=0.0)


def set_base(
    tx: Transaction, state: RaceState, base: float, *, carried: Floats | None = None
) -> RaceState:
    """Count weights from another lowest score, and compute each weight again from its score.

    The caller has locked the race exclusively.

    Args:
        tx: A writing transaction.
        state: The state of the race.
        base: The lowest score.
        carried: See `turn_back`.

    Returns:
        The state of the race afterwards.
    """
    old, new = shift_base(0.0 if state.base is None else state.base), shift_base(base)
    if new != old:
        waiting = pool.size(tx.buffer, tx.execute(queries.buffers.totals()).one())
        grown = max(old - new, 0.0) * waiting
        state = resolved(tx, state, np.array([grown]), carried=carried)  # shorter keys would tie
        bounds = {"floor": FLOOR, "least": -MOST / 2, "most": MOST / 2}
        tx.execute(queries.pool.shift_weights(), base=new, clock=state.clock, **bounds)
        tx.count(touched=state.clock)
    tx.execute(queries.buffers.set_base_score(), base=base)
    return state._replace(base=base, epoch=state.epoch + 1)


def turn_back(tx: Transaction, carried: Floats | None = None) -> None:
    """Move the clock to 0, where float64 resolves most; all differences between keys stay.

    Args:
        tx: A writing transaction.
        carried: (n,) keys of samples on their way back into the pool, which are moved in place.
            Moved by themselves, they could tie with others behind the clock.
    """
    state = tx.lock_race(exclusive=True)
    overdue = [
        tx.execute(statement, clock=state.clock).all() for statement in queries.pool.overdue()
    ]
    for statement in (queries.pool.turn_back_keys(), *queries.pool.turn_back_open()):
        tx.execute(statement, clock=state.clock)
    _keep_apart(tx, state.clock, *overdue, carried=np.zeros(0) if carried is None else carried)
    tx.execute(queries.pool.turn_back_clocks(), passed=state.clock)
    tx.execute(queries.buffers.advance_epoch())


def take_back_clock(tx: Transaction, clock: float) -> None:
    """Move the clock back to `clock`, because the draws beyond it are undone; keys stay.

    The caller has locked the race exclusively.
    """
    tx.execute(queries.pool.take_back_clock(), new_clock=clock)


def _keep_apart(
    tx: Transaction, clock: float, waiting: Sequence[Any], drawn: Sequence[Any], *, carried: Floats
) -> None:
    """Keep the order of keys behind the clock that would tie once the clock is 0.

    These are keys of released samples, which wait, of draws in open batches, and carried ones.
    """
    keys = pool.as_floats([row.race_key for row in (*waiting, *drawn)])
    linear, back = keys - clock, race.turned_back(np.append(keys, carried), clock)
    carried[:] = back[len(keys) :]
    moved = np.flatnonzero(linear != back[: len(keys)])
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
