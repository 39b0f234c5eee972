"""Refreshing with a budget: a few stale samples at a time get a new score, and their weight and key with it.

What is stale is found by one scan of the pool, which is good for many calls. The order is a function of what is stored:
the oldest score first, among these the highest, among equals the last by the end of the hash. So a queue found again,
after a kill or by another process, goes on where the one before it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_scores
from sqlbuffer.core import pool
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.metrics_and_checkpoints import write_checkpoints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weights import (
    GoneBack,
    Overtaken,
    ScoreFunction,
    begin_version,
    beginning_again,
    change_weights,
    keep,
    progress_bar,
    take_in,
)
from sqlbuffer.db import queries
from sqlbuffer.db.schema import buffers
from sqlbuffer.samples.codec import decode_all

LONGEST = 1_000_000
"""Samples that a queue holds at the most: 16 MB."""

_ROWS_AT_ONCE = 100_000


class _Due(NamedTuple):
    """Columns of `queries.still_stale`, in the order of the ids."""

    sample_id: Sequence[int]
    race_key: Sequence[float]
    weight: Sequence[float]
    entries: Sequence[int]
    hash: Sequence[bytes]
    text: Sequence[str]
    payload: Sequence[bytes | None]
    codec: Sequence[str]


class StaleQueue:
    """Where the stale samples stood when the pool was last scanned, in the order of their turn.

    It knows nothing that the database does not, and may be thrown away at any time.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let the next call scan the pool again."""
        self._made_at: tuple[Any, ...] | None = None
        self._ids: Ints = np.zeros(0, np.int64)
        self._keys: Floats = np.zeros(0)

    def drop(self, n: int) -> None:
        """Let the first n go: they have been rescored."""
        self._ids, self._keys = self._ids[n:], self._keys[n:]

    def first(self, buffer: BufferHandle, state: Any, n: int) -> list[Any]:
        """Return the next n that are still stale and wait, fewer where there are no more."""
        # A new version makes others stale, an epoch moves every key, and a release lets stale samples wait again.
        made_at = (state.score_version, state.epoch, state.released)
        if made_at == self._made_at:
            rows, is_in_step = self._check(buffer, state, n)
            if is_in_step and len(rows) == n:
                return rows
        self._ids, self._keys = buffer.read(_scan, version=state.score_version)
        self._made_at = made_at
        return self._check(buffer, state, n)[0]

    def _check(self, buffer: BufferHandle, state: Any, n: int) -> tuple[list[Any], bool]:
        """Return the first n that still stand where they stood, and whether keys are still what they were.

        What has been rescored or has left leaves the queue.
        """
        here: list[Any] = []
        lost = 0
        while len(here) < n and len(self._ids) > len(here):
            rest = slice(len(here), n)
            places = {"sample_id": self._ids[rest].tolist(), "race_key": self._keys[rest].tolist()}
            rows = buffer.read(_still_stale, version=state.score_version, places=places)
            found = {row.sample_id: row for row in rows if row.race_key is not None}
            lost += len(rows) - len(found)
            stays = np.ones(len(self._ids), dtype=np.bool_)
            stays[rest] = np.isin(self._ids[rest], list(found))
            here += [found[i] for i in self._ids[rest].tolist() if i in found]
            self._ids, self._keys = self._ids[stays], self._keys[stays]
        # Lost in the same epoch: claimed by a worker, or drawn in replay mode, in which it goes on waiting elsewhere.
        return here, buffer.consumes or not lost


def refresh_some(
    buffer: BufferHandle,
    queue: StaleQueue,
    score_fn: ScoreFunction,
    *,
    budget: int,
    again: bool,
    by: int | None = None,
    chunk: int,
    states: Mapping[str, bytes],
    silent: bool = True,
) -> int:
    """Rescore some of what is stale, in one transaction. Return the number of samples rescored.

    Args:
        buffer: The buffer.
        queue: What this process knows of what is stale.
        score_fn: Takes a list of samples, returns (n,) floats.
        budget: Samples rescored at the most.
        again: Begin a new version first: all scores are stale from now on.
        by: Version that the score function is known to be of, None where it is not known.
        chunk: Samples scored at once.
        states: Checkpoints, by name, that are stored with the scores; without a budget, with the new version.
        silent: Show no progress bar.

    Raises:
        Overtaken: There is a newer version than `by`. Nothing is rescored.
    """
    options: Any = {
        "budget": budget,
        "again": again,
        "by": by,
        "chunk": chunk,
        "states": states,
        "silent": silent,
    }
    return beginning_again("the refresh", _refresh_some, buffer, queue, score_fn, **options)


def _refresh_some(
    buffer: BufferHandle,
    queue: StaleQueue,
    score_fn: ScoreFunction,
    *,
    budget: int,
    again: bool,
    by: int | None,
    chunk: int,
    states: Mapping[str, bytes],
    silent: bool,
) -> int:
    version = by
    if again:
        version = buffer.write(_begin, by=by, states={} if budget else states)
    state = buffer.read(_state)
    if version is not None and version != state.score_version:
        if by is not None:
            raise Overtaken
        return 0  # the scorer has seen the version begin, and not the one after
    if not budget or state.refreshed_version == state.score_version:
        return 0
    rows = queue.first(buffer, state, budget)
    if not rows:
        is_full = (
            state.refresh_version != state.refreshed_version
        )  # a full refresh under way ends itself
        if not is_full and not buffer.write(_end, version=state.score_version):
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
    except GoneBack:
        queue.forget()
        raise
    queue.drop(len(rows))
    return n_rescored or 0


def _begin(tx: Transaction, *, by: int | None, states: Mapping[str, bytes]) -> int:
    state = tx.race_state()
    begun = begin_version(tx, by=by, again=True, is_full=False)
    write_checkpoints(tx, iteration=state.iteration, states=states)
    return begun


def _state(tx: Transaction) -> Any:
    return tx.own_row(queries.refresh_state())


def _scan(tx: Transaction, *, version: int) -> tuple[Ints, Floats]:
    """Return the ids and keys of what is stale, in the order of its turn."""
    parts = []
    for rows in tx.execute(queries.stale(), version=version).partitions(_ROWS_AT_ONCE):
        *columns, part_ties = zip(*rows, strict=True)
        parts.append(
            [*map(pool.as_floats, columns), np.frombuffer(b"".join(part_ties), dtype=">u8")]
        )
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0)
    ids, keys, scores, versions, ties = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    # By the score, not by the weight, which is rounded again whenever the lowest score changes.
    order = np.lexsort(
        (~ties, -np.nan_to_num(scores, nan=-math.inf), np.nan_to_num(versions, nan=-1.0))
    )[:LONGEST]
    return ids[order].astype(np.int64), keys[order]


def _still_stale(
    tx: Transaction, *, version: int, places: Mapping[str, Sequence[Any]]
) -> list[Any]:
    statement = queries.still_stale(tx.backend)
    rows = tx.execute_with(statement, queries.INCOMING_PLACES, places, version=version)
    return list(rows)


def _predict(
    buffer: BufferHandle, score_fn: ScoreFunction, due: _Due, *, chunk: int, silent: bool
) -> Floats:
    samples = decode_all(due.text, due.payload, due.codec, allow_pickle=buffer.allow_pickle)
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
    """Write scores, weights and keys of what still waits; None where that would move every key.

    Nothing is written where another refresh has begun in between.
    """
    state = tx.lock_race(exclusive=True)  # a claim would pass over the rows that are locked here
    if state.version != version:
        return 0
    taken_in = take_in(tx, state, scores, may_move_all=may_move_all)
    if taken_in is None:
        return None
    state, weights = taken_in
    ids, keys, old = (
        pool.as_ints(due.sample_id),
        pool.as_floats(due.race_key),
        pool.as_floats(due.weight),
    )
    entries = pool.as_ints(due.entries)
    hashes = due.hash
    if may_move_all:  # and they may have
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
    kept = {
        "ids": ids[moved].tolist(),
        "hashes": [hashes[i] for i in np.flatnonzero(moved).tolist()],
    }
    keep(tx, **kept, scores=scores[moved], version=version)
    write_checkpoints(tx, iteration=state.iteration, states=states)
    return int(moved.sum())


def _end(tx: Transaction, *, version: int) -> bool:
    """End the refresh if nothing is stale any more: weights count from the lowest score that waits.

    The lowest score is read under the lock that keeps others from joining, or one that joins in between would be below
    it. Return False where something is stale after all: it has joined, or was released, since the pool was scanned.
    """
    state = tx.lock_race(exclusive=True)
    found = tx.execute(queries.lowest_score()).one()
    if found.oldest is not None and found.oldest < version:
        return False
    this = sa.update(buffers).where(buffers.c.id == tx.buffer.buffer_id)
    is_alone = sa.and_(
        buffers.c.score_version == version, buffers.c.refresh_version == buffers.c.refreshed_version
    )
    ended = tx.connection.execute(
        this.where(is_alone).values(refresh_version=version, refreshed_version=version)
    )
    if (
        ended.rowcount
        and found.lowest is not None
        and state.base is not None
        and found.lowest > state.base
    ):
        pool.set_base(tx, state, found.lowest)
    return True
