"""Scoring of new samples: a waiting sample without a score gets one and joins the race.

The score function runs outside of every transaction, chunk by chunk. A run that is stopped goes on
where it was: samples without a score are pending. `refresh.py` scores samples that have a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlbuffer._integrity import no_progress
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer._validation import as_scores
from sqlbuffer.core import pool
from sqlbuffer.core.evict import evict
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weights import (
    ScoreFunction,
    decoded,
    progress_bar,
    reopen,
    restarted_if_reverted,
    store_scores,
    weigh,
)
from sqlbuffer.db import queries

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Unscored(NamedTuple):
    """Columns of `queries.scores.unscored`."""

    sample_id: Sequence[int]
    hash: Sequence[bytes]
    requeues: Sequence[int]
    entries: Sequence[int]
    text: Sequence[str]
    payload: Sequence[bytes | None]
    codec: Sequence[str]
    version: Sequence[int]


@restarted_if_reverted("scoring")
def score_missing(
    buffer: BufferHandle,
    score_fn: ScoreFunction,
    *,
    by: int | None = None,
    chunk: int,
    silent: bool = True,
) -> int:
    """Score waiting samples without a score; they join the race. Return how many were scored.

    Args:
        buffer: The buffer.
        score_fn: Takes a list of n samples, returns (n,) floats.
        by: Version of the scores; None for the newest when the first samples are read. All chunks
            have the same version: a predictor that is stored during the call did not make them.
        chunk: Samples scored at once.
        silent: Show no progress bar.
    """
    total = after = 0
    if not buffer.settings.weighting.needs_score:
        return total
    with progress_bar("scoring new samples", silent=silent) as advance:
        while rows := buffer.peek(_unscored, after=after, limit=chunk):
            found = _Unscored(*zip(*rows, strict=True))
            by = found.version[0] if by is None else by
            scores = as_scores(score_fn(decoded(buffer, found)), len(rows))
            _join(buffer, found, scores, by=by)
            if found.sample_id[-1] <= after:
                raise no_progress("the scoring of new samples")
            after = found.sample_id[-1]
            total += len(rows)
            advance(len(rows))
            if len(rows) < chunk:
                break
    return total


def _unscored(tx: Transaction, *, after: int, limit: int) -> Sequence[Any]:
    return tx.rows(queries.scores.unscored(), after=after, limit=limit)


class _MovesAllKeys(Exception):
    """The new scores move every key, which needs the race exclusively."""


class _NotWaiting(Exception):
    """Some samples no longer wait for a score; `still_wait`, (n,) bool, marks the others."""

    def __init__(self, still_wait: NDArray[np.bool_]) -> None:
        super().__init__()
        self.still_wait = still_wait


def _join(buffer: BufferHandle, found: _Unscored, scores: Floats, *, by: int) -> None:
    """Put scored samples into the race; skip those that no longer wait for a score."""
    exclusive = False
    while len(scores):
        try:
            buffer.write(_try_to_join, found=found, scores=scores, by=by, exclusive=exclusive)
        except _MovesAllKeys:
            exclusive = True
        except _NotWaiting as error:
            places = np.flatnonzero(error.still_wait).tolist()
            found = _Unscored._make([column[i] for i in places] for column in found)
            scores = scores[error.still_wait]
        else:
            return


def _try_to_join(
    tx: Transaction, *, found: _Unscored, scores: Floats, by: int, exclusive: bool
) -> None:
    """Put scored samples into the race.

    Raises:
        _MovesAllKeys: If `exclusive` must be true.
        _NotWaiting: If some samples no longer wait for a score.
    """
    state = tx.lock_race(exclusive=exclusive)
    # These scores are stale if a newer version has begun. If the database has returned to an
    # earlier state, its version is the lower one.
    version = min(by, state.version)
    ids = found.sample_id
    store_scores(tx, ids=ids, hashes=found.hash, scores=scores, version=version)
    state = tx.lock_race_to_join(state)
    weighed = weigh(tx, state, scores, may_move_all=exclusive)
    if weighed is None:
        raise _MovesAllKeys
    state, weights = weighed
    entries = (pool.as_ints(found.entries) + 1).tolist()
    keys = pool.join_race(tx.buffer, state, found.hash, found.requeues, entries, weights)
    never = np.full(len(scores), math.inf)
    unscored = np.full(len(scores), math.nan)
    moved = pool.move(tx, state, ids, (never, unscored), keys, weights, scores, entries)
    if not moved.all():
        raise _NotWaiting(moved)
    if version < state.version:
        reopen(tx, version=version)
    evict(tx, state, scored=len(ids), unscored=-len(ids))
    tx.count(
        touched=state.clock if (weights > 0).any() else None,
        unscored=-len(ids),
        unscorable=int((weights == 0).sum()),
    )
