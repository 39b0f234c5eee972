"""The pool: samples enter it, move in it, and leave it. Every function works inside the caller's transaction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sqlbuffer._integrity import numbers_of, require_all, tampered
from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core import race
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.race import FLOOR, MOST, shift_base
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.schema import buffers, workers

_LEAST_TOP = 10_000


def as_floats(values: Sequence[float | None]) -> Floats:
    """Return (n,) float64, NaN for None.

    Raises:
        InvalidPayload: Where one is no number: SQLite stores any value in any column.
    """
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        wrong = next(
            (value for value in values if not isinstance(value, (int, float, type(None)))), None
        )
        raise tampered(
            f"a weight, key, score, version or reward is stored as {shown(wrong)}, which is not a number"
        ) from exc


def as_ints(values: Sequence[int]) -> Ints:
    """Return (n,) int64.

    Raises:
        InvalidPayload: Where one is no integer: SQLite stores any value in any column.
    """
    try:
        return np.array(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as exc:
        wrong = next((value for value in values if not isinstance(value, int)), None)
        raise tampered(
            f"a number of a sample, or of its entries, is stored as {shown(wrong)}, which is not an integer"
        ) from exc


def as_weights(weights: Floats) -> list[float | None]:
    """Return weights as the database stores them: None for NaN, which stands for not scored."""
    is_missing = np.isnan(weights)
    return np.where(is_missing, None, weights).tolist() if is_missing.any() else weights.tolist()  # type: ignore[call-overload,no-any-return]


def _is_top(state: RaceState, weights: Floats, scores: Floats) -> list[bool]:
    if state.top_score is None:
        return [False] * len(weights)
    is_enough = (scores >= state.top_score) | (state.top_score == -math.inf)
    is_top: list[bool] = ((weights > 0.0) & is_enough).tolist()
    return is_top


def _ranked(buffer: BufferHandle, weights: Floats, scores: Floats) -> list[float | None]:
    """Return scores as the pool has them: none where nothing can be drawn, or where weights come from no score."""
    if not buffer.settings.weighting.needs_score:
        return [None] * len(scores)
    return as_weights(np.where(weights > 0.0, scores, math.nan))


def enter(
    tx: Transaction,
    state: RaceState,
    ids: Sequence[int],
    keys: Floats,
    weights: Floats,
    scores: Floats,
    entries: Sequence[int],
) -> None:
    """Put samples into the pool, in its own order, with the scores that weights come from; NaN: not scored."""
    if len(ids):
        numbers = np.asarray(ids)
        order = np.lexsort((numbers, keys))
        columns = {
            "sample_id": numbers[order].tolist(),
            "race_key": keys[order].tolist(),
            "weight": as_weights(weights[order]),
            "score": _ranked(tx.buffer, weights[order], scores[order]),
            "top": _is_top(state, weights[order], scores[order]),
            "entries": np.asarray(entries)[order].tolist(),
        }
        statement = queries.enter_pool(tx.backend)
        n_entered = tx.execute_each(statement, queries.INCOMING_ENTRIES, columns)
        require_all(n_entered, len(ids), "samples entered the pool")


def leave(tx: Transaction, ids: Sequence[int], keys: Sequence[float]) -> int:
    """Take samples out of the pool, found by their keys; return how many were there."""
    if not ids:
        return 0
    columns = {"sample_id": ids, "race_key": keys}
    statement = queries.leave_pool(tx.backend)
    return tx.execute_each(statement, queries.INCOMING_PLACES, columns)


def standing(tx: Transaction, ids: Sequence[int]) -> list[Any]:
    """Find waiting samples by id, which reads the whole pool, and lock them."""
    columns = {"sample_id": sorted(set(ids))}
    statement = queries.standing_at(tx.backend)
    return list(tx.execute_with(statement, queries.INCOMING_IDS, columns))


def move(
    tx: Transaction,
    state: RaceState,
    ids: Sequence[int],
    old: tuple[Floats, Floats],
    keys: Floats,
    weights: Floats,
    scores: Floats,
    entries: Sequence[int],
) -> NDArray[np.bool_]:
    """Give waiting samples new keys and weights; tell which, (n,) bool, still had their old key and weight.

    `scores` are what the new weights come from.
    """
    if not len(ids):
        return np.zeros(0, dtype=np.bool_)
    columns = {
        "sample_id": ids,
        "old_key": old[0].tolist(),
        "old_weight": as_weights(old[1]),
        "race_key": keys.tolist(),
        "weight": as_weights(weights),
        "score": _ranked(tx.buffer, weights, scores),
        "top": _is_top(state, weights, scores),
        "entries": entries,
    }
    statement = queries.move_keys(tx.backend)
    return np.array(tx.changed_by_each(statement, queries.INCOMING_KEYS, columns))


def dequeue(tx: Transaction, ids: Sequence[int]) -> None:
    """Mark samples as neither waiting nor claimed, so that adding them again requeues them."""
    if len(ids):
        statement = queries.dequeue(tx.backend)
        n_found = tx.execute_each(statement, queries.INCOMING_IDS, {"sample_id": sorted(ids)})
        require_all(n_found, len(ids), "samples left the queue")


def dequeue_known(tx: Transaction, ids: Ints, hashes: Sequence[bytes]) -> None:
    """`dequeue` of samples found by number and hash."""
    if len(ids):
        order = np.argsort(ids).tolist()
        columns = {"sample_id": ids[order].tolist(), "hash": [hashes[i] for i in order]}
        statement = queries.dequeue_known(tx.backend)
        n_found = tx.execute_each(statement, queries.INCOMING_KNOWN, columns)
        require_all(n_found, len(ids), "samples left the queue")


def take_out(tx: Transaction, rows: Sequence[Any]) -> None:
    """`remove` what a user has chosen, perhaps for having been in a draw that was released.

    The clock went back with that draw, as if it had never been: the draws to come may find these samples first. Without
    them it would only be known that no other key stands before the end of that draw. So the race goes on from there.
    """
    if not rows:
        return
    clock = tx.race_state().clock
    places = {(row.sample_id, row.race_key) for row in rows}
    drawn = tx.execute(queries.released_beyond(), clock=clock).all()
    ends = as_floats([draw.clock for draw in drawn if (draw.sample_id, draw.race_key) in places])
    remove(tx, rows, clock=float(np.max(ends, initial=clock)))


def remove(tx: Transaction, rows: Sequence[Any], *, clock: float) -> None:
    """Take rows with `sample_id`, `race_key` and `weight` out of the pool for good: filtered, or evicted.

    Where a draw is out, only what it has left can be taken: once that is done at this clock, the draw cannot be undone.
    """
    ids = [row.sample_id for row in rows]
    keys = [row.race_key for row in rows]
    n_left = leave(tx, ids, keys)
    require_all(n_left, len(ids), "samples were taken out of the pool")
    dequeue(tx, ids)
    tx.count(
        clock=clock,
        touched=clock if np.any(as_floats(keys) < math.inf) else None,
        removed=len(rows),
        unscored=-sum(row.weight is None for row in rows),
        unscorable=-sum(row.weight == 0 for row in rows),
    )


def join_race(
    buffer: BufferHandle,
    state: RaceState,
    hashes: Sequence[bytes],
    requeues: Sequence[int],
    entries: Sequence[int],
    weights: Floats,
) -> Floats:
    """Return the keys of samples that join the race now, each for the time that `entries` says."""
    variates = buffer.settings.variates(hashes, requeues, entries, turn=state.turn)
    return race.joined(state.clock, variates, weights)


def set_base(tx: Transaction, state: RaceState, base: float) -> RaceState:
    """Count weights from another lowest score: each is computed again from its own score. Return the race then.

    The caller holds the race exclusively.
    """
    old, new = shift_base(state.base or 0.0), shift_base(base)
    if new != old:
        waiting = size(tx.buffer, tx.execute(queries.totals()).one())
        grown = max(old - new, 0.0) * waiting
        if race.is_blurred(state.clock, np.array([grown])):  # so late, the shorter keys would tie
            turn_back(tx)
            state = state._replace(clock=0.0)
        bounds = {"floor": FLOOR, "least": -MOST / 2, "most": MOST / 2}
        tx.execute(queries.shift_weights(), base=new, clock=state.clock, **bounds)
        tx.count(touched=state.clock)
    this = sa.update(buffers).where(buffers.c.id == tx.buffer.buffer_id)
    tx.connection.execute(this.values(base_score=base, epoch=buffers.c.epoch + 1))
    return state._replace(base=base, epoch=state.epoch + 1)


def set_top_score(tx: Transaction, least: float | None) -> None:
    """Say from which score on samples are marked as top."""
    tx.connection.execute(
        sa.update(buffers).where(buffers.c.id == tx.buffer.buffer_id).values(top_score=least)
    )


def widen_top(tx: Transaction, *, n: int) -> None:
    """Mark more samples as top: there are fewer than the n that an argmax share wants.

    The scan of the pool pays for many draws: a fiftieth of the pool is marked, and at least twenty times n. All are
    marked where these are all, and where weights, being equal, come from no score.
    """
    tx.lock_race(exclusive=True)
    waiting = size(tx.buffer, tx.execute(queries.totals()).one())
    rank = min(max(_LEAST_TOP, 20 * n, waiting // 50) - 1, waiting)
    found = tx.execute(queries.score_at(), rank=rank).scalar()
    least = -math.inf if found is None else float(as_floats([found])[0])
    tx.execute(queries.mark_top(), least=least)
    set_top_score(tx, least)


def turn_back(tx: Transaction) -> None:
    """Let the race go on from clock 0, where float64 is finest; all differences between keys stay."""
    state = tx.lock_race(exclusive=True)
    overdue = [tx.execute(statement, clock=state.clock).all() for statement in queries.overdue()]
    for statement in (queries.turn_back_keys(), *queries.turn_back_open()):
        tx.execute(statement, clock=state.clock)
    _keep_apart(tx, state.clock, *overdue)
    clocks = {"clock": 0.0, "touched": workers.c.touched - state.clock}
    tx.connection.execute(
        sa.update(workers).where(workers.c.buffer_id == tx.buffer.buffer_id).values(clocks)
    )
    this = sa.update(buffers).where(buffers.c.id == tx.buffer.buffer_id)
    tx.connection.execute(this.values(epoch=buffers.c.epoch + 1))


def take_back_clock(tx: Transaction, clock: float) -> None:
    """Let the race go on from an earlier clock, all keys as they are: the draws beyond it are undone.

    The caller holds the race exclusively.
    """
    beyond = sa.and_(workers.c.buffer_id == tx.buffer.buffer_id, workers.c.clock > clock)
    tx.connection.execute(sa.update(workers).where(beyond).values(clock=clock))


def _keep_apart(
    tx: Transaction, clock: float, waiting: Sequence[Any], drawn: Sequence[Any]
) -> None:
    """Give keys behind the clock, of released samples and of open batches, places in their old order where they tie."""
    keys = as_floats([row.race_key for row in (*waiting, *drawn)])
    linear, back = keys - clock, race.turned_back(keys, clock)
    moved = np.flatnonzero(linear != back)
    dialect, n = tx.backend, len(waiting)
    for rows, part, names, statement, shape in (
        (
            waiting,
            moved[moved < n],
            ("sample_id",),
            queries.stand_at(dialect),
            queries.INCOMING_STANDS,
        ),
        (
            drawn,
            moved[moved >= n],
            ("batch", "position"),
            queries.drawn_at(dialect),
            queries.INCOMING_DRAWN,
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


def size(buffer: BufferHandle, totals: Any) -> int:
    """Return the size of the pool, from the totals of the counters."""
    with numbers_of(f"the counters of buffer {buffer.name!r}"):
        waiting = totals.added + totals.requeued - totals.removed
        return int(waiting - (totals.drawn - totals.released) if buffer.consumes else waiting)
