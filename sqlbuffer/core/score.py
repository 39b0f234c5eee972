"""Scores: what is new joins the race, and a refresh rescores the whole pool.

The score function runs outside of every transaction. A refresh first predicts, chunk by chunk, while draws go on with
the old weights; then it swaps the weights. It can be stopped anywhere and gone on with: a score of an older version is
still to do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_scores
from sqlbuffer.core import pool
from sqlbuffer.core.add import evict
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.refresh import Known, swap_all
from sqlbuffer.core.run_records import write_checkpoints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weights import (
    GoneBack,
    Scored,
    ScoreFunction,
    begin_version,
    beginning_again,
    keep,
    progress_bar,
    read_scored,
    reopen,
    take_in,
)
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import no_progress
from sqlbuffer.samples.codec import decode_all

_ROWS_AT_ONCE = 100_000
_MOST_STALLED = 3
"""Walks in a row that may leave everything as it was though keys are said to have moved."""

log = logging.getLogger(__name__)


def score_missing(
    buffer: BufferHandle,
    score_fn: ScoreFunction,
    *,
    by: int | None = None,
    chunk: int,
    silent: bool = True,
) -> int:
    """Score what waits without a score; it joins the race. Return the number of samples scored.

    Args:
        buffer: The buffer.
        score_fn: Takes a list of samples, returns (n,) floats.
        by: Version that the scores are of; None for the newest when the first samples are read. It is one for all
            chunks: a predictor that is stored in between did not make these scores.
        chunk: Samples scored at once.
        silent: Show no progress bar.
    """
    if not buffer.settings.weighting.needs_score:
        return 0
    return beginning_again(
        "scoring", _score_missing, buffer, score_fn, by=by, chunk=chunk, silent=silent
    )


def _score_missing(
    buffer: BufferHandle, score_fn: ScoreFunction, *, by: int | None, chunk: int, silent: bool
) -> int:
    total = after = 0
    with progress_bar("scoring new samples", silent=silent) as advance:
        while rows := buffer.read(_unscored, after=after, limit=chunk):
            found = _Unscored(*zip(*rows, strict=True))
            by = found.version[0] if by is None else by
            scores = as_scores(score_fn(_decoded(buffer, found)), len(rows))
            _let_join(buffer, found, scores, by=by)
            if found.sample_id[-1] <= after:
                raise no_progress("the scoring of new samples")
            after = found.sample_id[-1]
            total += len(rows)
            advance(len(rows))
            if len(rows) < chunk:
                break
    return total


def refresh(
    buffer: BufferHandle,
    score_fn: ScoreFunction,
    *,
    again: bool,
    by: int | None = None,
    states: Mapping[str, bytes] | None = None,
    chunk: int,
    silent: bool = True,
) -> int:
    """Give every waiting sample a score of the newest version, and then its weight. Return the samples scored.

    Args:
        buffer: The buffer.
        score_fn: Takes a list of samples, returns (n,) floats.
        again: Begin a new version; otherwise only what is older than the newest is scored.
        by: Version that the score function is known to be of, None where it is not known.
        states: Checkpoints, by name, that are stored when the refresh begins.
        chunk: Samples scored at once.
        silent: Show no progress bar.

    Raises:
        Overtaken: There is a newer version than `by`. Nothing was written.
    """
    return beginning_again(
        "the refresh",
        _refresh,
        buffer,
        score_fn,
        again=again,
        by=by,
        states=states,
        chunk=chunk,
        silent=silent,
    )


def _refresh(
    buffer: BufferHandle,
    score_fn: ScoreFunction,
    *,
    again: bool,
    by: int | None,
    states: Mapping[str, bytes] | None,
    chunk: int,
    silent: bool,
) -> int:
    version = buffer.write(_begin, again=again, by=by, states=states)
    ids, keys = buffer.read(_waiting)
    scores = np.full(len(ids), math.nan)
    total = 0
    with progress_bar("refreshing scores", silent=silent, total=len(ids)) as advance:
        for part in _in_an_order_of_its_own(
            len(ids), chunk, interleaved=buffer.database.dialect.chunks_sharing_pages
        ):
            scores[part], n_scored = _rescore(buffer, score_fn, ids[part], version=version)
            total += n_scored
            advance(len(ids[part]))
    lowest = float(np.fmin.reduce(scores, initial=math.inf))
    buffer.write(_count_from, lowest=lowest, version=version)
    known = Known.of(version, ids, keys, scores)
    stalled, before = 0, None
    while not swap_all(buffer, known):
        log.debug("keys have moved: the walk through the weights starts again")
        state = buffer.read(Transaction.race_state)
        now = (state.epoch, state.turn, state.version, int(known.has_swapped.sum()))
        stalled, before = (stalled + 1 if now == before else 0), now
        if stalled == _MOST_STALLED:
            raise no_progress("a refresh of the weights")
    return total


def _in_an_order_of_its_own(n: int, chunk: int, *, interleaved: int) -> Iterator[slice]:
    """Walk through n samples chunk by chunk: each process in another order, so that two are seldom at the same one.

    From one end both would score everything: the second never finds what the first is at to be done. As many chunks
    as are interleaved share a stretch of the table, and each takes some rows of every page there.
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
    """Score what is stale of these samples; return the scores that all have then, and how many were given one."""
    found = buffer.read(read_scored, ids=ids)
    scores = pool.as_floats(found.score)
    stale = np.flatnonzero(
        ~(pool.as_floats(found.score_version) >= version)
    ).tolist()  # NaN is of no version
    if not stale:
        return scores, 0
    old = Scored._make([column[i] for i in stale] for column in found)
    scores[stale] = as_scores(score_fn(_decoded(buffer, old)), len(stale))
    n_stored = buffer.write(_keep, found=old, scores=scores[stale], version=version)
    if n_stored < len(stale):  # another process was at the same ones, and quicker
        now = buffer.read(read_scored, ids=ids)
        if now.hash != found.hash:
            raise GoneBack
        scores = pool.as_floats(now.score)
    return scores, n_stored


def _keep(tx: Transaction, *, found: Scored, scores: Floats, version: int) -> int:
    """Store the scores of a refresh, where another process has not.

    Raises:
        GoneBack: Where the database has lost the beginning of this refresh, or the samples.
    """
    if tx.race_state().version < version:
        raise GoneBack
    ids, hashes = found.sample_id, found.hash
    n_stored = keep(tx, ids=ids, hashes=hashes, scores=scores, version=version, only_older=True)
    tx.count()
    return n_stored


def is_refreshed(tx: Transaction) -> bool:
    """Tell whether the newest refresh that was begun has also come to its end."""
    this = sa.select(buffers.c.refreshed_version == buffers.c.refresh_version)
    return bool(tx.connection.scalar(this.where(buffers.c.id == tx.buffer.buffer_id)))


class _Unscored(NamedTuple):
    """Columns of `queries.unscored`."""

    sample_id: Sequence[int]
    hash: Sequence[bytes]
    requeues: Sequence[int]
    entries: Sequence[int]
    text: Sequence[str]
    payload: Sequence[bytes | None]
    codec: Sequence[str]
    version: Sequence[int]


def _unscored(tx: Transaction, *, after: int, limit: int) -> Sequence[Any]:
    return tx.rows(queries.unscored(), after=after, limit=limit)


def _decoded(buffer: BufferHandle, found: _Unscored | Scored) -> list[Any]:
    return decode_all(found.text, found.payload, found.codec, allow_pickle=buffer.allow_pickle)


def _waiting(tx: Transaction) -> tuple[Ints, Floats]:
    """Return ids and keys of all that waits, by id: samples are read and written in the order they are stored in."""
    ids, keys = [np.zeros(0, np.int64)], [np.zeros(0)]
    for part in tx.execute(queries.waiting_places()).partitions(_ROWS_AT_ONCE):
        some_ids, some_keys = zip(*part, strict=True)
        ids.append(pool.as_ints(some_ids))
        keys.append(pool.as_floats(some_keys))
    order = np.argsort(np.concatenate(ids))
    return np.concatenate(ids)[order], np.concatenate(keys)[order]


class _MovesAll(Exception):
    """Letting samples join moves every key, which needs the race exclusively."""


class _Left(Exception):
    """Some of the samples do not wait for a score any more; tells which, (n,) bool, still do."""

    def __init__(self, still_wait: NDArray[np.bool_]) -> None:
        super().__init__()
        self.still_wait = still_wait


def _let_join(buffer: BufferHandle, found: _Unscored, scores: Floats, *, by: int) -> None:
    """Let scored samples join the race, those that still wait for a score."""
    exclusive = False
    while len(scores):
        try:
            buffer.write(_join, found=found, scores=scores, by=by, exclusive=exclusive)
        except _MovesAll:
            exclusive = True
        except _Left as left:
            places = np.flatnonzero(left.still_wait).tolist()
            found, scores = (
                _Unscored._make([column[i] for i in places] for column in found),
                scores[left.still_wait],
            )
        else:
            return


def _join(tx: Transaction, *, found: _Unscored, scores: Floats, by: int, exclusive: bool) -> None:
    """Let scored samples join the race.

    Raises:
        _MovesAll: If it must be done `exclusive`.
        _Left: If some do not wait for a score any more.
    """
    state = tx.lock_race(exclusive=exclusive)
    # If a newer version has begun since, these scores are stale.
    version = min(by, state.version)  # the lower one where the database has gone back
    ids = found.sample_id
    keep(tx, ids=ids, hashes=found.hash, scores=scores, version=version)
    state = tx.lock_race_to_join(state)
    taken_in = take_in(tx, state, scores, may_move_all=exclusive)
    if taken_in is None:
        raise _MovesAll
    state, weights = taken_in
    entries = (pool.as_ints(found.entries) + 1).tolist()
    keys = pool.join_race(tx.buffer, state, found.hash, found.requeues, entries, weights)
    never = np.full(len(scores), math.inf)
    unscored = np.full(len(scores), math.nan)
    moved = pool.move(tx, state, ids, (never, unscored), keys, weights, scores, entries)
    if not moved.all():
        raise _Left(moved)
    if version < state.version:
        reopen(tx, version=version)
    evict(tx, state, scored=len(ids), unscored=-len(ids))
    tx.count(
        touched=state.clock if (weights > 0).any() else None,
        unscored=-len(ids),
        unscorable=int((weights == 0).sum()),
    )


def _begin(
    tx: Transaction, *, again: bool, by: int | None, states: Mapping[str, bytes] | None
) -> int:
    state = tx.race_state()
    begun = begin_version(tx, by=by, again=again, is_full=True)
    write_checkpoints(tx, iteration=state.iteration, states=states or {})
    return begun


def _count_from(tx: Transaction, *, lowest: float, version: int) -> None:
    """Let weights count from the new lowest score, and the top begin again; the swap brings every row there.

    Until then the refresh is not over, even if nothing was stale. A newer one does all of this by itself.
    """
    if tx.lock_race(exclusive=True).version != version:
        return
    pool.set_top_score(tx, None)
    this = sa.update(buffers).where(buffers.c.id == tx.buffer.buffer_id)
    tx.connection.execute(
        this.where(buffers.c.refreshed_version >= version).values(refreshed_version=version - 1)
    )
    if tx.buffer.settings.weighting.needs_base:
        base = lowest if math.isfinite(lowest) else None
        tx.connection.execute(
            this.values(base_score=base, epoch=buffers.c.epoch + 1)
        )  # who swaps by the old one begins again
