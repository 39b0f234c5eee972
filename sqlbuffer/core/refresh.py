"""A full refresh: every waiting sample gets a score of the newest version, then its new weight.

The score function runs outside of every transaction, chunk by chunk, while draws go on with the old
weights. A second walk then changes the weights. A refresh that is stopped is resumable: samples
with a score of an older version are pending, and so are rows whose weight does not match their
score. The walk starts again if every key has moved since it began.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlbuffer._integrity import no_progress
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_scores
from sqlbuffer.core import pool
from sqlbuffer.core.clock import Blurred, Moment, moment_of, resolved, set_base, turn_back
from sqlbuffer.core.evict import evict
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weights import (
    ROWS_AT_ONCE,
    DatabaseReverted,
    Scored,
    ScoreFunction,
    begin_refresh,
    change_weights,
    decoded,
    progress_bar,
    read_scored,
    restarted_if_reverted,
    store_scores,
)
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS_CHUNK = 5_000
"""Rows whose weights change in one transaction, for which claims wait on PostgreSQL."""

_MOST_STALLED = 3
"""Walks in a row that may change nothing although keys are said to have moved."""

log = logging.getLogger(__name__)


class Known(NamedTuple):
    """The samples that waited when a refresh began, by id, with the scores of its version."""

    version: int
    ids: Ints
    keys: Floats
    entries: Ints
    """How often each sample had entered the race; a user's priority counts as one more."""
    scores: Floats
    is_done: NDArray[np.bool_]
    """True for a sample that already has its new weight."""
    released: int
    """Draws that had been released. A sample that is released later may have another score."""

    @classmethod
    def of(
        cls, version: int, ids: Ints, keys: Floats, entries: Ints, scores: Floats, *, released: int
    ) -> Known:
        """Append an id that no sample has, so that every search ends at one of the ids."""
        ids, entries = np.append(ids, np.iinfo(np.int64).max), np.append(entries, 0)
        keys, scores = np.append(keys, math.nan), np.append(scores, math.nan)
        is_done = np.zeros(len(ids), dtype=np.bool_)
        return cls(version, ids, keys, entries, scores, is_done, released)

    def find(self, ids: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Return the places, (n,), of n samples, and which of them, (n,) bool, are known."""
        at = np.searchsorted(self.ids, ids)
        return at, self.ids[at] == ids


@restarted_if_reverted("the refresh")
def refresh(
    buffer: BufferHandle,
    score_fn: ScoreFunction,
    *,
    new_version: bool,
    by: int | None = None,
    states: Mapping[str, bytes] | None = None,
    chunk: int,
    silent: bool = True,
) -> int:
    """Rescore all stale samples, then change all weights. Return how many samples were scored.

    Args:
        buffer: The buffer.
        score_fn: Takes a list of n samples, returns (n,) floats.
        new_version: Begin a new version: all scores are stale from now on.
        by: Version of the score function, None if unknown.
        states: Checkpoints, by name, to store when the refresh begins.
        chunk: Samples scored at once.
        silent: Show no progress bar.

    Raises:
        Overtaken: If there is a newer version than `by`. Nothing was written.
    """
    begun: Any = {"by": by, "new_version": new_version, "is_full": True, "states": states}
    version = buffer.write(begin_refresh, **begun)
    epoch, released = buffer.peek(moment_of)
    ids, keys, entries = buffer.peek(_waiting)
    scores = np.full(len(ids), math.nan)
    total = 0
    chunks = _shuffled(len(ids), chunk, interleaved=buffer.database.dialect.chunks_sharing_pages)
    with progress_bar("refreshing scores", silent=silent, total=len(ids)) as advance:
        for part in chunks:
            scores[part], n_scored = _rescore(buffer, score_fn, ids[part], version=version)
            total += n_scored
            advance(len(ids[part]))
    lowest = float(np.fmin.reduce(scores, initial=math.inf))
    quiet = buffer.write(_begin_weights, lowest=lowest, version=version, epoch=epoch)
    known = Known.of(version, ids, keys, entries, scores, released=released)
    _update_weights(buffer, known, quiet)
    return total


def _waiting(tx: Transaction) -> tuple[Ints, Floats, Ints]:
    """Return ids, keys and entries of all waiting samples by id, the order of their table."""
    kinds = (pool.as_ints, pool.as_floats, pool.as_ints)
    parts: list[Any] = [[kind([]) for kind in kinds]]
    for rows in tx.execute(queries.scores.waiting_places()).partitions(ROWS_AT_ONCE):
        columns = zip(kinds, zip(*rows, strict=True), strict=True)
        parts.append([kind(column) for kind, column in columns])
    ids, keys, entries = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(ids)
    return ids[order], keys[order], entries[order]


def _shuffled(n: int, chunk: int, *, interleaved: int) -> Iterator[slice]:
    """Divide n samples into chunks, in an order that differs between workers.

    Two workers that refresh at once then seldom score the same chunk. In the same order both would
    score everything: the second would always be at the samples that the first has not stored yet.
    `interleaved` chunks share a stretch of the table; each takes some rows of every page there.
    """
    rng = np.random.default_rng(list(worker_id().encode()))
    stretch = chunk * interleaved
    for i in rng.permutation(math.ceil(n / stretch)):
        start, stop = i * stretch, min((i + 1) * stretch, n)
        step = math.ceil((stop - start) / chunk)
        for first in rng.permutation(step):
            yield slice(start + first, stop, step)


def _rescore(
    buffer: BufferHandle, score_fn: ScoreFunction, ids: Ints, *, version: int
) -> tuple[Floats, int]:
    """Score the stale ones of these samples; return the scores of all, and how many were stored."""
    found = buffer.peek(read_scored, ids=ids)
    scores = pool.as_floats(found.score)
    is_stale = ~(pool.as_floats(found.score_version) >= version)  # also where it is NaN
    stale = np.flatnonzero(is_stale).tolist()
    if not stale:
        return scores, 0
    old = Scored._make([column[i] for i in stale] for column in found)
    scores[stale] = as_scores(score_fn(decoded(buffer, old)), len(stale))
    n_stored = buffer.write(_store_scores, found=old, scores=scores[stale], version=version)
    if n_stored < len(stale):  # another process has scored some of them during this time
        now = buffer.peek(read_scored, ids=ids)
        if now.hash != found.hash:
            raise DatabaseReverted
        scores = pool.as_floats(now.score)
    return scores, n_stored


def _store_scores(tx: Transaction, *, found: Scored, scores: Floats, version: int) -> int:
    """Store scores with the samples that still have an older one; return how many.

    Raises:
        DatabaseReverted: If the database has lost the beginning of this refresh, or the samples.
    """
    if tx.race_state().version < version:
        raise DatabaseReverted
    given: Any = {"ids": found.sample_id, "hashes": found.hash, "scores": scores}
    n_stored = store_scores(tx, **given, version=version, only_older=True)
    tx.count()
    return n_stored


def _begin_weights(tx: Transaction, *, lowest: float, version: int, epoch: int) -> int | None:
    """Count weights from the new lowest score, and forget the top; then each row must be updated.

    The refresh is not finished until then, even if no score was stale. Does nothing if a newer
    version has begun, whose refresh does the same.

    Returns:
        The epoch from now on; None if it was another than `epoch`, in which the refresh has begun:
        samples with older scores may have come back.
    """
    state = tx.lock_race(exclusive=True)
    if state.version != version:
        return None
    pool.set_top_score(tx, None)
    tx.execute(queries.refresh.unfinish_refresh(), refresh=version)
    needs_base = tx.buffer.settings.weighting.needs_base
    if needs_base:
        base = lowest if math.isfinite(lowest) else None
        tx.execute(queries.buffers.set_base_score(), base=base)  # restarts walks of other processes
    return state.epoch + needs_base if state.epoch == epoch else None


def _update_weights(buffer: BufferHandle, known: Known, quiet: int | None) -> None:
    """Change every weight that does not match its score, and finish the refresh."""
    stalled, before = 0, None
    while not update_weights(buffer, known, quiet):
        log.debug("keys have moved: the walk through the weights starts again")
        state, moment = buffer.peek(Transaction.race_state), buffer.peek(moment_of)
        now = (*moment, state.turn, state.version, int(known.is_done.sum()))
        stalled, before = (stalled + 1 if now == before else 0), now
        if stalled == _MOST_STALLED:
            raise no_progress("a refresh of the weights")


def update_weights(buffer: BufferHandle, known: Known, quiet: int | None = None) -> bool:
    """Walk the pool once, change weights, and finish the refresh.

    Args:
        buffer: The buffer.
        known: The samples with their new scores.
        quiet: The epoch in which no sample with an older score has come back; None for none.

    Returns:
        False if keys have moved during the walk: it may have passed some rows.
    """
    begun = buffer.peek(moment_of)
    n_changed = 0
    for rows in _pages(buffer, WEIGHTS_CHUNK):
        ids, keys, weights, ranked, entries = zip(*rows, strict=True)
        at, is_known = known.find(pool.as_ints(ids))
        due = np.flatnonzero(~(known.is_done[at] & is_known))  # keys that moved ahead come again
        if not len(due):
            continue
        floats = (pool.as_floats(column)[due] for column in (keys, weights, ranked))
        places = (pool.as_ints(ids)[due], *floats, pool.as_ints(entries)[due])
        try:
            changed = buffer.write(_change_page, known=known, begun=begun, places=places)
        except Blurred:
            buffer.write(turn_back)
            return False
        if changed is None:
            known.is_done[:] = False
            return False
        known.is_done[changed] = True
        n_changed += len(changed)
    if n_changed and not buffer.consumes:  # drawn samples wait at other keys with their old weights
        return False
    ended = functools.partial(_finish, version=known.version, begun=begun, quiet=quiet)
    if not (is_over := buffer.write(ended)):
        known.is_done[:] = False
    return is_over


def _change_page(
    tx: Transaction, *, known: Known, begun: Moment, places: tuple[Any, ...]
) -> Ints | None:
    """Change the weights of a page of the pool.

    Args:
        tx: A writing transaction.
        known: The samples with their new scores.
        begun: The moment at which the walk began.
        places: (n,) each: ids, keys, weights, the scores that gave them, and entries into the race.

    Returns:
        Which of the known samples have changed; None if every key has moved since `begun`.
    """
    state = tx.lock_race(exclusive=True)  # a claim would skip the rows that are locked here
    if state.epoch != begun.epoch:
        return None
    ids, keys, old, ranked, entries = places
    at, is_known = known.find(ids)
    # A sample at its old key still has the score of this refresh: one that returns has a new key,
    # unless its draw was released, and one that a user has given a priority has one more entry.
    is_scored = is_known & (known.keys[at] == keys) & (keys < math.inf)
    is_scored &= known.entries[at] == entries
    is_scored &= (known.version, known.released) == (state.version, moment_of(tx).released)
    scores = np.where(is_scored, known.scores[at], math.nan)
    unsure = np.flatnonzero(~is_scored)
    if len(unsure):
        unsure = unsure[np.argsort(ids[unsure])]
        found = read_scored(tx, ids=ids[unsure])
        scores[unsure] = pool.as_floats(found.score)
        is_scored[unsure] = [version is not None for version in found.score_version]
    weighting, base = tx.buffer.settings.weighting, state.base
    lowest = float(np.fmin.reduce(scores[is_scored], initial=math.inf))
    if weighting.needs_base and lowest < (math.inf if base is None else base):
        set_base(tx, state, lowest)  # this sample joined while others were scored
        return None
    new = tx.buffer.settings.weights(scores, base)
    is_other = (new != old) | ((new > 0.0) & (scores != ranked) & weighting.needs_score)
    changed = np.flatnonzero(is_other & is_scored)
    resolved(tx, state, new[changed], may_turn_back=False)  # the caller begins the walk again
    if not len(changed):
        return changed
    which: Any = (column[changed] for column in (ids, keys, old, new, scores, entries))
    moved = change_weights(tx, state, *which)
    return at[changed[moved & is_known[changed]]]


def _finish(tx: Transaction, *, version: int, begun: Moment, quiet: int | None) -> bool:
    """Finish the refresh; return False if keys have moved since the walk began.

    Every key has, in another epoch. A release in mode "replay" moves samples back, past the walk.

    Samples that came back with older scores since the refresh began were not known to it. They are
    looked for under the lock that keeps others from coming back, and count as if they had come
    afterwards. To look for them reads the whole pool, a tenth of the time of a refresh.
    """
    state = tx.lock_race(exclusive=True)
    now = moment_of(tx)
    if now.epoch != begun.epoch or not (tx.buffer.consumes or now.released == begun.released):
        return False
    oldest = (
        None if state.epoch == quiet else tx.execute(queries.scores.lowest_score()).one().oldest
    )
    reached = version if oldest is None else max(0, min(version, int(oldest)))
    tx.execute(queries.refresh.finish_refresh(), refresh=version, reached=reached)
    evict(tx, state)  # the refresh has scored new samples too
    return True


def _pages(buffer: BufferHandle, limit: int) -> Iterator[Sequence[Any]]:
    """Walk the pool in the order of the race; a sample whose key moves ahead comes again."""
    after: dict[str, Any] = {"after_key": -math.inf, "after_id": 0}
    while rows := buffer.peek(_page, limit=limit, **after):
        yield rows
        last = {"after_key": rows[-1].race_key, "after_id": rows[-1].sample_id}
        if (last["after_key"], last["after_id"]) <= (after["after_key"], after["after_id"]):
            raise no_progress("a walk through the pool")
        after = last


def _page(tx: Transaction, *, after_key: float, after_id: int, limit: int) -> Sequence[Any]:
    return tx.rows(queries.scores.pool_page(), after_key=after_key, after_id=after_id, limit=limit)
