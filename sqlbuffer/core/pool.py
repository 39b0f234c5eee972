"""The pool of waiting samples: enter, move, leave. All functions use the caller's transaction."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from sqlbuffer._integrity import numbers_of, require_all, tampered
from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._typing import Bools, Floats, Ints
from sqlbuffer.core import race
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries

_LEAST_TOP = 10_000


def as_floats(values: Sequence[float | None]) -> Floats:
    """Return (n,) float64, NaN for None.

    Raises:
        InvalidPayload: If a value is not a number: SQLite stores any value in any column.
    """
    if len(values) and values[0] is None and values.count(None) == len(values):
        return np.full(len(values), np.nan)  # numpy takes 0.15 us for each None
    try:
        floats: Floats = _packed(values, "d", np.float64)
        return floats
    except (struct.error, TypeError, ValueError, OverflowError):
        pass  # a value is missing, or no number
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        wrong = next(
            (value for value in values if not isinstance(value, (int, float, type(None)))), None
        )
        raise tampered(
            f"a weight, key, score, version or reward is stored as {shown(wrong)}, "
            "which is not a number"
        ) from exc


def _packed(numbers: Sequence[Any], kind: str, dtype: Any) -> Any:
    """Return numbers as an array: 8 us for 512 of them, of which numpy makes one in 20."""
    return np.frombuffer(struct.pack(f"{len(numbers)}{kind}", *numbers), dtype).copy()


def as_ints(values: Sequence[int]) -> Ints:
    """Return (n,) int64.

    Raises:
        InvalidPayload: If a value is not an integer: SQLite stores any value in any column.
    """
    try:
        ints: Ints = _packed(values, "q", np.int64)
        return ints
    except (struct.error, TypeError, ValueError, OverflowError):
        pass  # a value is no integer
    try:
        return np.array(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as exc:
        wrong = next((value for value in values if not isinstance(value, int)), None)
        raise tampered(
            f"the id of a sample, or the count of its entries, is stored as {shown(wrong)}, "
            "which is not an integer"
        ) from exc


def as_weights(weights: Floats) -> list[float | None]:
    """Return weights as the database stores them: None for NaN, the weight without a score."""
    is_missing = np.isnan(weights)
    return np.where(is_missing, None, weights).tolist() if is_missing.any() else weights.tolist()  # type: ignore[call-overload,no-any-return]


def _is_top(state: RaceState, weights: Floats, scores: Floats) -> list[bool]:
    if state.top_score is None:
        return [False] * len(weights)
    is_enough = (scores >= state.top_score) | (state.top_score == -math.inf)
    is_top: list[bool] = ((weights > 0.0) & is_enough).tolist()
    return is_top


def _ranked(buffer: BufferHandle, weights: Floats, scores: Floats) -> list[float | None]:
    """Return the scores to store in the pool: None if the sample cannot be drawn, or needs none."""
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
    """Put n samples into the pool, in the order of its key.

    Args:
        tx: The transaction.
        state: The state of the race.
        ids: Ids of the samples.
        keys: (n,) race keys; infinity for a sample that cannot be drawn.
        weights: (n,) weights; NaN for a sample without a score.
        scores: (n,) scores that the weights come from; NaN for none.
        entries: (n,) int, how often each sample has entered the race, this time included.
    """
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
        statement = queries.pool.enter_pool(tx.backend)
        n_entered = tx.execute_each(statement, queries.params.INCOMING_ENTRIES, columns)
        require_all(n_entered, len(ids), "samples entered the pool")


def leave(tx: Transaction, ids: Sequence[int], keys: Sequence[float]) -> int:
    """Take samples out of the pool, found by key and id; return how many were found."""
    if not ids:
        return 0
    columns = {"sample_id": ids, "race_key": keys}
    statement = queries.pool.leave_pool(tx.backend)
    return tx.execute_each(statement, queries.params.INCOMING_PLACES, columns)


def standing(tx: Transaction, ids: Sequence[int]) -> list[Any]:
    """Find waiting samples by id and lock them; reads the whole pool."""
    columns = {"sample_id": sorted(set(ids))}
    statement = queries.scores.standing_at(tx.backend)
    return list(tx.execute_with(statement, queries.params.INCOMING_IDS, columns))


def move(
    tx: Transaction,
    state: RaceState,
    ids: Sequence[int],
    old: tuple[Floats, Floats],
    keys: Floats,
    weights: Floats,
    scores: Floats,
    entries: Sequence[int],
) -> Bools:
    """Give n waiting samples new keys and weights.

    Args:
        tx: The transaction.
        state: The state of the race.
        ids: Ids of the samples.
        old: (n,) keys and (n,) weights that the samples had when they were read.
        keys: (n,) new keys.
        weights: (n,) new weights.
        scores: (n,) scores that the new weights come from.
        entries: (n,) int, how often each sample has entered the race.

    Returns:
        (n,) bool, True for a sample that still had its old key and weight, and was moved.
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
    statement = queries.pool.move_keys(tx.backend)
    return np.array(tx.changed_by_each(statement, queries.params.INCOMING_KEYS, columns))


def dequeue(tx: Transaction, ids: Sequence[int], *, evicted: bool) -> None:
    """Mark samples as neither waiting nor claimed; adding evicted ones puts them back."""
    if len(ids):
        statement = queries.samples.dequeue(tx.backend, evicted=evicted)
        columns = {"sample_id": sorted(ids)}
        n_found = tx.execute_each(statement, queries.params.INCOMING_IDS, columns)
        require_all(n_found, len(ids), "samples left the queue")


def dequeue_known(tx: Transaction, ids: Ints, hashes: Sequence[bytes]) -> None:
    """`dequeue` of samples found by id and hash."""
    if len(ids):
        order = np.argsort(ids).tolist()
        columns = {"sample_id": ids[order].tolist(), "hash": [hashes[i] for i in order]}
        statement = queries.samples.dequeue_known(tx.backend)
        n_found = tx.execute_each(statement, queries.params.INCOMING_KNOWN, columns)
        require_all(n_found, len(ids), "samples left the queue")


def take_out(tx: Transaction, rows: Sequence[Any]) -> None:
    """Remove samples that the user has chosen, perhaps after seeing them in a released draw.

    The release moved the clock back, so the next draw may return these samples first. Once they
    are removed, no other key lies before the end of the released draw. The race therefore continues
    from that end.
    """
    if not rows:
        return
    clock = tx.race_state().clock
    remove(tx, rows, clock=shown_until(tx, rows, clock=clock))


def shown_until(tx: Transaction, rows: Sequence[Any], *, clock: float) -> float:
    """Return how far released draws have gone that have shown these samples; at least `clock`.

    Args:
        tx: The transaction.
        rows: Rows with `sample_id` and `race_key`.
        clock: Clock of the race.
    """
    drawn = tx.execute(queries.batches.released_beyond(), clock=clock).all()
    if not drawn:
        return clock
    places = {(row.sample_id, row.race_key) for row in rows}
    ends = as_floats([draw.clock for draw in drawn if (draw.sample_id, draw.race_key) in places])
    return float(np.max(ends, initial=clock))


def remove(tx: Transaction, rows: Sequence[Any], *, clock: float, evicted: bool = False) -> None:
    """Take samples out of the pool: filtered by the user, or evicted.

    `touched` moves to `clock`. The release of an earlier draw, if it is still open, then leaves the
    clock where it is.

    Args:
        tx: The transaction.
        rows: Rows with `sample_id`, `race_key` and `weight`.
        clock: Clock of the race at which the samples leave.
        evicted: They leave because of `max_size`, and adding them puts them back.
    """
    ids = [row.sample_id for row in rows]
    keys = [row.race_key for row in rows]
    n_left = leave(tx, ids, keys)
    require_all(n_left, len(ids), "samples were taken out of the pool")
    dequeue(tx, ids, evicted=evicted)
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
    """Return (n,) race keys of samples that join the race now (`Settings.variates`)."""
    variates = buffer.settings.variates(hashes, requeues, entries, turn=state.turn)
    return race.joined(state.clock, variates, weights)


def set_top_score(tx: Transaction, least: float | None) -> None:
    """Store the score from which on samples are marked as top; None marks no sample."""
    tx.execute(queries.buffers.set_top_score(), least=least)


def widen_top(tx: Transaction, *, n: int) -> None:
    """Mark more samples as top, because an argmax share needs n of them.

    One scan of the pool serves many draws: it marks a fiftieth of the pool, and at least 20 n and
    10,000 samples. If the pool is smaller, or if weights do not come from scores, it marks all.
    """
    tx.lock_race(exclusive=True)
    waiting = size(tx.buffer, tx.execute(queries.buffers.totals()).one())
    rank = min(max(_LEAST_TOP, 20 * n, waiting // 50) - 1, waiting)
    found = tx.execute(queries.scores.score_at(), rank=rank).scalar()
    least = -math.inf if found is None else float(as_floats([found])[0])
    tx.execute(queries.scores.mark_top(), least=least)
    set_top_score(tx, least)


def size(buffer: BufferHandle, totals: Any) -> int:
    """Return the number of waiting samples, computed from the totals of the counters."""
    with numbers_of(f"the counters of buffer {buffer.name!r}"):
        waiting = totals.added + totals.requeued - totals.removed
        return int(waiting - (totals.drawn - totals.released) if buffer.consumes else waiting)
