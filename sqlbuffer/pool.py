"""The pool: samples enter it, move in it, and leave it. Every function works inside the caller's transaction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sqlbuffer import race, statements
from sqlbuffer.attachment import Attachment, RaceState
from sqlbuffer.errors import numbers_of, require_all, shown, tampered
from sqlbuffer.race import FLOOR, MOST, TIE, Floats, Ints, shift_base
from sqlbuffer.schema import buffers, workers

_LEAST_TOP = 10_000


def as_floats(values: Sequence[float | None]) -> Floats:
    """Return (n,) float64, NaN for None.

    Raises:
        InvalidPayload: Where one is no number: SQLite stores any value in any column.
    """
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        wrong = next((value for value in values if not isinstance(value, (int, float, type(None)))), None)
        raise tampered(f"a weight, key, score, version or reward is stored as {shown(wrong)}, no number") from exc


def as_ints(values: Sequence[int]) -> Ints:
    """Return (n,) int64.

    Raises:
        InvalidPayload: Where one is no integer: SQLite stores any value in any column.
    """
    try:
        return np.array(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as exc:
        wrong = next((value for value in values if not isinstance(value, int)), None)
        raise tampered(f"a number of a sample, or of its entries, is stored as {shown(wrong)}, no integer") from exc


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


def _ranked(attachment: Attachment, weights: Floats, scores: Floats) -> list[float | None]:
    """Return scores as the pool has them: none where nothing can be drawn, or where weights come from no score."""
    if not attachment.settings.weighting.needs_score:
        return [None] * len(scores)
    return as_weights(np.where(weights > 0.0, scores, math.nan))


def enter(
    connection: sa.Connection,
    attachment: Attachment,
    state: RaceState,
    ids: Sequence[int],
    hashes: Sequence[bytes],
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
            "score": _ranked(attachment, weights[order], scores[order]),
            "top": _is_top(state, weights[order], scores[order]),
            "tie": [hashes[i][TIE] for i in order.tolist()],
            "entries": np.asarray(entries)[order].tolist(),
        }
        statement = statements.enter_pool(attachment.database.dialect)
        n_entered = attachment.run_each(connection, statement, statements.INCOMING_ENTRIES, columns)
        require_all(n_entered, len(ids), "samples entered the pool")


def leave(connection: sa.Connection, attachment: Attachment, ids: Sequence[int], keys: Sequence[float]) -> int:
    """Take samples out of the pool, found by their keys; return how many were there."""
    if not ids:
        return 0
    columns = {"sample_id": ids, "race_key": keys}
    statement = statements.leave_pool(attachment.database.dialect)
    return attachment.run_each(connection, statement, statements.INCOMING_PLACES, columns)


def standing(connection: sa.Connection, attachment: Attachment, ids: Sequence[int]) -> list[Any]:
    """Find waiting samples by id, which reads the whole pool, and lock them."""
    columns = {"sample_id": sorted(set(ids))}
    statement = statements.standing_at(attachment.database.dialect)
    return list(attachment.run_with(connection, statement, statements.INCOMING_IDS, columns))


def move(
    connection: sa.Connection,
    attachment: Attachment,
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
        "score": _ranked(attachment, weights, scores),
        "top": _is_top(state, weights, scores),
        "entries": entries,
    }
    statement = statements.move_keys(attachment.database.dialect)
    return np.array(attachment.changed_by_each(connection, statement, statements.INCOMING_KEYS, columns))


def dequeue(connection: sa.Connection, attachment: Attachment, ids: Sequence[int]) -> None:
    """Mark samples as neither waiting nor claimed, so that adding them again requeues them."""
    if len(ids):
        statement = statements.dequeue(attachment.database.dialect)
        n_found = attachment.run_each(connection, statement, statements.INCOMING_IDS, {"sample_id": sorted(ids)})
        require_all(n_found, len(ids), "samples left the queue")


def dequeue_known(connection: sa.Connection, attachment: Attachment, ids: Ints, hashes: Sequence[bytes]) -> None:
    """`dequeue` of samples found by number and hash."""
    if len(ids):
        order = np.argsort(ids).tolist()
        columns = {"sample_id": ids[order].tolist(), "hash": [hashes[i] for i in order]}
        statement = statements.dequeue_known(attachment.database.dialect)
        n_found = attachment.run_each(connection, statement, statements.INCOMING_KNOWN, columns)
        require_all(n_found, len(ids), "samples left the queue")


def take_out(connection: sa.Connection, attachment: Attachment, rows: Sequence[Any]) -> None:
    """`remove` what a user has chosen, perhaps for having been in a draw that was released.

    The clock went back with that draw, as if it had never been: the draws to come may find these samples first. Without
    them it would only be known that no other key stands before the end of that draw. So the race goes on from there.
    """
    if not rows:
        return
    clock = attachment.race_state(connection).clock
    places = {(row.sample_id, row.race_key) for row in rows}
    drawn = attachment.run(connection, statements.released_beyond(), clock=clock).all()
    ends = as_floats([draw.clock for draw in drawn if (draw.sample_id, draw.race_key) in places])
    remove(connection, attachment, rows, clock=float(np.max(ends, initial=clock)))


def remove(connection: sa.Connection, attachment: Attachment, rows: Sequence[Any], *, clock: float) -> None:
    """Take rows with `sample_id`, `race_key` and `weight` out of the pool for good: filtered, or evicted.

    Where a draw is out, only what it has left can be taken: once that is done at this clock, the draw cannot be undone.
    """
    ids = [row.sample_id for row in rows]
    keys = [row.race_key for row in rows]
    n_left = leave(connection, attachment, ids, keys)
    require_all(n_left, len(ids), "samples were taken out of the pool")
    dequeue(connection, attachment, ids)
    attachment.count(
        connection,
        clock=clock,
        touched=clock if np.any(as_floats(keys) < math.inf) else None,
        removed=len(rows),
        unscored=-sum(row.weight is None for row in rows),
        unscorable=-sum(row.weight == 0 for row in rows),
    )


def join_race(
    attachment: Attachment,
    state: RaceState,
    hashes: Sequence[bytes],
    requeues: Sequence[int],
    entries: Sequence[int],
    weights: Floats,
) -> Floats:
    """Return the keys of samples that join the race now, each for the time that `entries` says."""
    variates = attachment.variates(hashes, requeues, entries, turn=state.turn)
    return race.joined(state.clock, variates, weights)


def set_base(connection: sa.Connection, attachment: Attachment, state: RaceState, base: float) -> RaceState:
    """Count weights from another lowest score: each is computed again from its own score. Return the race then.

    The caller holds the race exclusively.
    """
    old, new = shift_base(state.base or 0.0), shift_base(base)
    if new != old:
        waiting = size(attachment, attachment.run(connection, statements.totals()).one())
        grown = max(old - new, 0.0) * waiting
        if race.is_blurred(state.clock, np.array([grown])):  # so late, the shorter keys would tie
            turn_back(connection, attachment=attachment)
            state = state._replace(clock=0.0)
        bounds = {"floor": FLOOR, "least": -MOST / 2, "most": MOST / 2}
        attachment.run(connection, statements.shift_weights(), base=new, clock=state.clock, **bounds)
        attachment.count(connection, touched=state.clock)
    this = sa.update(buffers).where(buffers.c.id == attachment.buffer_id)
    connection.execute(this.values(base_score=base, epoch=buffers.c.epoch + 1))
    return state._replace(base=base, epoch=state.epoch + 1)


def set_top_score(connection: sa.Connection, attachment: Attachment, least: float | None) -> None:
    """Say from which score on samples are marked as top."""
    connection.execute(sa.update(buffers).where(buffers.c.id == attachment.buffer_id).values(top_score=least))


def widen_top(connection: sa.Connection, *, attachment: Attachment, n: int) -> None:
    """Mark more samples as top: there are fewer than the n that an argmax share wants.

    The scan of the pool pays for many draws: a fiftieth of the pool is marked, and at least twenty times n. All are
    marked where these are all, and where weights, being equal, come from no score.
    """
    attachment.race(connection, exclusive=True)
    waiting = size(attachment, attachment.run(connection, statements.totals()).one())
    rank = min(max(_LEAST_TOP, 20 * n, waiting // 50) - 1, waiting)
    found = attachment.run(connection, statements.score_at(), rank=rank).scalar()
    least = -math.inf if found is None else float(as_floats([found])[0])
    attachment.run(connection, statements.mark_top(), least=least)
    set_top_score(connection, attachment, least)


def turn_back(connection: sa.Connection, *, attachment: Attachment) -> None:
    """Let the race go on from clock 0, where float64 is finest; all differences between keys stay."""
    state = attachment.race(connection, exclusive=True)
    overdue = [attachment.run(connection, statement, clock=state.clock).all() for statement in statements.overdue()]
    for statement in (statements.turn_back_keys(), *statements.turn_back_open()):
        attachment.run(connection, statement, clock=state.clock)
    _keep_apart(connection, attachment, state.clock, *overdue)
    clocks = {"clock": 0.0, "touched": workers.c.touched - state.clock}
    connection.execute(sa.update(workers).where(workers.c.buffer_id == attachment.buffer_id).values(clocks))
    this = sa.update(buffers).where(buffers.c.id == attachment.buffer_id)
    connection.execute(this.values(epoch=buffers.c.epoch + 1))


def take_back_clock(connection: sa.Connection, attachment: Attachment, clock: float) -> None:
    """Let the race go on from an earlier clock, all keys as they are: the draws beyond it are undone.

    The caller holds the race exclusively.
    """
    beyond = sa.and_(workers.c.buffer_id == attachment.buffer_id, workers.c.clock > clock)
    connection.execute(sa.update(workers).where(beyond).values(clock=clock))


def _keep_apart(
    connection: sa.Connection, attachment: Attachment, clock: float, waiting: Sequence[Any], drawn: Sequence[Any]
) -> None:
    """Give keys behind the clock, of released samples and of open batches, places in their old order where they tie."""
    keys = as_floats([row.race_key for row in (*waiting, *drawn)])
    linear, back = keys - clock, race.turned_back(keys, clock)
    moved = np.flatnonzero(linear != back)
    dialect, n = attachment.database.dialect, len(waiting)
    for rows, part, names, statement, shape in (
        (waiting, moved[moved < n], ("sample_id",), statements.stand_at(dialect), statements.INCOMING_STANDS),
        (drawn, moved[moved >= n], ("batch", "position"), statements.drawn_at(dialect), statements.INCOMING_DRAWN),
    ):
        if not len(part):
            continue
        first = 0 if rows is waiting else n
        chosen = [rows[i - first] for i in part.tolist()]
        columns: dict[str, Any] = {name: [getattr(row, name) for row in chosen] for name in names}
        columns |= {"old_key": linear[part].tolist(), "race_key": back[part].tolist()}
        n_moved = attachment.run_each(connection, statement, shape, columns)
        require_all(n_moved, len(part), "keys were kept apart")


def size(attachment: Attachment, totals: Any) -> int:
    """Return the size of the pool, from the totals of the counters."""
    with numbers_of(f"the counters of buffer {attachment.name!r}"):
        waiting = totals.added + totals.requeued - totals.removed
        return int(waiting - (totals.drawn - totals.released) if attachment.consumes else waiting)
