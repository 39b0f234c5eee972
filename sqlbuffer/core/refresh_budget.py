"""A refresh with a budget: a call rescores a few stale samples, and changes their weights and keys.

One scan of the pool finds the stale samples for many calls. Their order follows from stored values:
the oldest score first, then the highest score, then the last by the end of the hash. So a call in
another process, or after a kill, goes on where the last call was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_scores
from sqlbuffer.core import pool
from sqlbuffer.core.clock import set_base
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.metrics_and_checkpoints import write_checkpoints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weights import (
    ROWS_AT_ONCE,
    DatabaseReverted,
    Overtaken,
    ScoreFunction,
    begin_refresh,
    change_weights,
    decoded,
    progress_bar,
    restarted_if_reverted,
    store_scores,
    weigh,
)
from sqlbuffer.db import queries

LONGEST = 1_000_000
"""Most samples that a queue holds: 16 MB."""


class _Due(NamedTuple):
    """Columns of `queries.scores.still_stale`, in the order of the ids."""

    sample_id: Sequence[int]
    race_key: Sequence[float]
    weight: Sequence[float]
    entries: Sequence[int]
    hash: Sequence[bytes]
    text: Sequence[str]
    payload: Sequence[bytes | None]
    codec: Sequence[str]


class StaleQueue:
    """Ids and keys of the stale samples at the last scan of the pool, in the order of their turn.

    A cache: it may be dropped at any time.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Scan the pool at the next call."""
        self._made_at: tuple[Any, ...] | None = None
        self._ids: Ints = np.zeros(0, np.int64)
        self._keys: Floats = np.zeros(0)

    def drop(self, n: int) -> None:
        """Remove the first n, which have been rescored."""
        self._ids, self._keys = self._ids[n:], self._keys[n:]

    def first(self, buffer: BufferHandle, state: Any, n: int) -> list[Any]:
        """Return the rows of the next n stale waiting samples, fewer if there are no more."""
        # A new version makes all scores stale, a new epoch moves every key, and a release returns
        # stale samples to the pool.
        made_at = (state.score_version, state.epoch, state.released)
        if made_at == self._made_at:
            rows, is_in_step = self._check(buffer, state, n)
            if is_in_step and len(rows) == n:
                return rows
        self._ids, self._keys = buffer.peek(_scan, version=state.score_version)
        self._made_at = made_at
        return self._check(buffer, state, n)[0]

    def _check(self, buffer: BufferHandle, state: Any, n: int) -> tuple[list[Any], bool]:
        """Return the rows of the first n samples at unchanged keys, and whether keys are unchanged.

        Removes samples that have been rescored or have left the pool.
        """
        here: list[Any] = []
        lost = 0
        while len(here) < n and len(self._ids) > len(here):
            rest = slice(len(here), n)
            places = {"sample_id": self._ids[rest].tolist(), "race_key": self._keys[rest].tolist()}
            rows = buffer.peek(_still_stale, version=state.score_version, places=places)
            found = {row.sample_id: row for row in rows if row.race_key is not None}
            lost += len(rows) - len(found)
            stays = np.ones(len(self._ids), dtype=np.bool_)
            stays[rest] = np.isin(self._ids[rest], list(found))
            here += [found[i] for i in self._ids[rest].tolist() if i in found]
            self._ids, self._keys = self._ids[stays], self._keys[stays]
        # Lost in the same epoch: claimed, or drawn in replay mode, where it waits at another key.
        return here, buffer.consumes or not lost


@restarted_if_reverted("the refresh")
def refresh_some(
    buffer: BufferHandle,
    queue: StaleQueue,
    score_fn: ScoreFunction,
    *,
    budget: int,
    new_version: bool,
    by: int | None = None,
    chunk: int,
    states: Mapping[str, bytes],
    silent: bool = True,
) -> int:
    """Rescore some stale samples, in one transaction. Return how many were rescored.

    Args:
        buffer: The buffer.
        queue: The stale samples that this process has found.
        score_fn: Takes a list of n samples, returns (n,) floats.
        budget: Most samples to rescore.
        new_version: Begin a new version first: all scores are stale from now on.
        by: Version of the score function, None if unknown.
        chunk: Samples scored at once.
        states: Checkpoints, by name, to store with the scores; with the new version if the budget
            is 0.
        silent: Show no progress bar.

    Raises:
        Overtaken: If there is a newer version than `by`. Nothing is rescored.
    """
    version = by
    if new_version:
        begun: Any = {"by": by, "new_version": True, "is_full": False}
        version = buffer.write(begin_refresh, **begun, states={} if budget else states)
    state = buffer.peek(_state)
    if version is not None and version != state.score_version:
        if by is not None:
            raise Overtaken
        return 0  # another version has begun since: the scores would be stale
    if not budget or state.refreshed_version == state.score_version:
        return 0
    rows = queue.first(buffer, state, budget)
    if not rows:
        is_full = state.refresh_version != state.refreshed_version  # it finishes itself
        if not is_full and not buffer.write(_finish, version=state.score_version):
            queue.forget()
        return 0
    due = _Due(*zip(*sorted(rows), strict=True))
    scores = _predict(buffer, score_fn, due, chunk=chunk, silent=silent)
    given: Any = {"due": due, "scores": scores, "version": state.score_version, "states": states}
    try:
        n_rescored = buffer.write(_rescore, **given)
        if n_rescored is None:
            n_rescored = buffer.write(_rescore, **given, may_move_all=True)
            queue.forget()
    except DatabaseReverted:
        queue.forget()
        raise
    queue.drop(len(rows))
    return n_rescored or 0


def _state(tx: Transaction) -> Any:
    return tx.own_row(queries.scores.refresh_state())


def _scan(tx: Transaction, *, version: int) -> tuple[Ints, Floats]:
    """Return the ids and keys of the stale samples, in the order of their turn."""
    parts = []
    for rows in tx.execute(queries.scores.stale(), version=version).partitions(ROWS_AT_ONCE):
        *columns, part_ties = zip(*rows, strict=True)
        parts.append(
            [*map(pool.as_floats, columns), np.frombuffer(b"".join(part_ties), dtype=">u8")]
        )
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0)
    ids, keys, scores, versions, ties = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    # By the score: a weight is rounded again whenever the lowest score changes.
    order = np.lexsort(
        (~ties, -np.nan_to_num(scores, nan=-math.inf), np.nan_to_num(versions, nan=-1.0))
    )[:LONGEST]
    return ids[order].astype(np.int64), keys[order]


def _still_stale(
    tx: Transaction, *, version: int, places: Mapping[str, Sequence[Any]]
) -> list[Any]:
    statement = queries.scores.still_stale(tx.backend)
    rows = tx.execute_with(statement, queries.params.INCOMING_PLACES, places, version=version)
    return list(rows)


def _predict(
    buffer: BufferHandle, score_fn: ScoreFunction, due: _Due, *, chunk: int, silent: bool
) -> Floats:
    samples = decoded(buffer, due)
    found = []
    with progress_bar("refreshing scores", silent=silent, total=len(samples)) as advance:
        for start in range(0, len(samples), chunk):
            part = samples[start : start + chunk]
            found.append(as_scores(score_fn(part), len(part)))
            advance(len(part))
    return np.concatenate(found)


def _rescore(
    tx: Transaction,
    *,
    due: _Due,
    scores: Floats,
    version: int,
    states: Mapping[str, bytes],
    may_move_all: bool = False,
) -> int | None:
    """Store scores, weights and keys of the samples that still wait; return how many.

    Returns None if that would move every key and `may_move_all` is false. Writes nothing if another
    refresh has begun since.
    """
    state = tx.lock_race(exclusive=True)  # a claim would skip the rows that are locked here
    if state.version != version:
        return 0
    weighed = weigh(tx, state, scores, may_move_all=may_move_all)
    if weighed is None:
        return None
    state, weights = weighed
    ids, entries, hashes = pool.as_ints(due.sample_id), pool.as_ints(due.entries), due.hash
    keys, old = pool.as_floats(due.race_key), pool.as_floats(due.weight)
    if may_move_all:  # keys may have moved: read them again
        standing = {row.sample_id: row for row in pool.standing(tx, due.sample_id)}
        same = zip(due.sample_id, due.hash, strict=True)
        waits = np.array(
            [i in standing and standing[i].hash == known for i, known in same], dtype=np.bool_
        )
        ids, scores, weights = ids[waits], scores[waits], weights[waits]
        hashes = [due.hash[i] for i in np.flatnonzero(waits).tolist()]
        keys = pool.as_floats([standing[i].race_key for i in ids.tolist()])
        old = pool.as_floats([standing[i].weight for i in ids.tolist()])
        entries = pool.as_ints([standing[i].entries for i in ids.tolist()])
    moved = change_weights(tx, state, ids, keys, old, weights, scores, entries)
    moved_hashes = [hashes[i] for i in np.flatnonzero(moved).tolist()]
    stored: Any = {"ids": ids[moved].tolist(), "hashes": moved_hashes, "scores": scores[moved]}
    store_scores(tx, **stored, version=version)
    write_checkpoints(tx, iteration=state.iteration, states=states)
    return int(moved.sum())


def _finish(tx: Transaction, *, version: int) -> bool:
    """Finish the refresh, and count weights from the lowest score in the pool.

    The lowest score is read under the lock that keeps samples from joining: one that joined after
    the reading could be lower.

    Returns:
        False if a sample is stale: it has joined, or was released, since the pool was scanned.
    """
    state = tx.lock_race(exclusive=True)
    found = tx.execute(queries.scores.lowest_score()).one()
    if found.oldest is not None and found.oldest < version:
        return False
    finished = tx.execute(queries.refresh.finish_refresh_in_steps(), refresh=version)
    if not finished.rowcount or state.base is None:
        return True
    if found.lowest is None:  # no waiting sample has a weight that counts from a lowest score
        tx.execute(queries.buffers.set_base_score(), base=None)
    elif found.lowest > state.base:
        set_base(tx, state, found.lowest)
    return True
