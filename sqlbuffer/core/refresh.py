"""The second walk of a refresh: weights are brought to what the new scores say, chunk by chunk.

It can be stopped anywhere and gone on with: a weight that is not the one of its score is still to do. A walk begins
again where something has moved every key in between, for then some stand behind the place that it had come to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sqlbuffer._integrity import no_progress
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core import pool, race
from sqlbuffer.core.add import evict
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weights import change_weights, read_scored
from sqlbuffer.db import queries
from sqlbuffer.db.schema import buffers

SWAP_CHUNK = 5_000
"""Rows whose weights are swapped in one transaction, for which claims wait on PostgreSQL."""


class Known(NamedTuple):
    """What waited when a refresh began, in the order of the ids, with the scores of its version."""

    version: int
    ids: Ints
    keys: Floats
    scores: Floats
    has_swapped: NDArray[np.bool_]

    @classmethod
    def of(cls, version: int, ids: Ints, keys: Floats, scores: Floats) -> Known:
        """Add one with an id that is none, so that a search always ends at one of them."""
        none = (
            np.append(ids, np.iinfo(np.int64).max),
            np.append(keys, math.nan),
            np.append(scores, math.nan),
        )
        return cls(version, *none, np.zeros(len(ids) + 1, dtype=np.bool_))

    def find(self, ids: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Return where samples are among these, (n,), and which of them, (n,) bool, are."""
        at = np.searchsorted(self.ids, ids)
        return at, self.ids[at] == ids


class _Blurred(Exception):
    """The clock is too late for these weights: it must be turned back first."""


def swap_all(buffer: BufferHandle, known: Known) -> bool:
    """Bring every weight to what the score says, and say that the refresh is over.

    Return False where keys have moved in between: some then stand behind the place that the walk had come to.
    """
    begun = buffer.read(Transaction.race_state)
    n_swapped = 0
    for rows in _pages(buffer, SWAP_CHUNK):
        ids, keys, weights, ranked, entries = zip(*rows, strict=True)
        at, is_known = known.find(pool.as_ints(ids))
        due = np.flatnonzero(
            ~(known.has_swapped[at] & is_known)
        )  # others have moved ahead, and are met again
        if not len(due):
            continue
        at_keys, old, from_scores = (
            pool.as_floats(column)[due] for column in (keys, weights, ranked)
        )
        places = (pool.as_ints(ids)[due], at_keys, old, from_scores, pool.as_ints(entries)[due])
        try:
            swapped = buffer.write(_swap, known=known, begun=begun, places=places)
        except _Blurred:
            buffer.write(pool.turn_back)
            return False
        if swapped is None:
            known.has_swapped[:] = False
            return False
        known.has_swapped[swapped] = True
        n_swapped += len(swapped)
    if (
        n_swapped and not buffer.consumes
    ):  # what was drawn in between waits elsewhere, with the weight it had
        return False
    if not (is_over := buffer.write(_finish, version=known.version, begun=begun)):
        known.has_swapped[:] = False
    return is_over


def _swap(
    tx: Transaction,
    *,
    known: Known,
    begun: RaceState,
    places: tuple[Ints, Floats, Floats, Floats, Ints],
) -> Ints | None:
    """Bring weights to what the scores say, where samples stand with `places`, by the key.

    `places` are ids, keys, weights, the scores that these come from, and how often each sample has entered the race.

    Return which of the known ones have moved; None where something else has moved all.
    """
    state = tx.lock_race(exclusive=True)  # a claim would pass over the rows that are locked here
    if state.epoch != begun.epoch:
        return None
    ids, keys, old, ranked, entries = places
    at, is_known = known.find(ids)
    # Nothing but this refresh has changed the score of what still stands where it stood: who comes back has a new key.
    is_scored = (
        is_known & (known.keys[at] == keys) & (keys < math.inf) & (known.version == state.version)
    )
    scores = np.where(is_scored, known.scores[at], math.nan)
    unsure = np.flatnonzero(~is_scored)
    if len(unsure):
        unsure = unsure[np.argsort(ids[unsure])]
        found = read_scored(tx, ids=ids[unsure])
        scores[unsure] = pool.as_floats(found.score)
        is_scored[unsure] = [version is not None for version in found.score_version]
    lowest = float(np.fmin.reduce(scores[is_scored], initial=math.inf))
    if tx.buffer.settings.weighting.needs_base and lowest < (
        math.inf if state.base is None else state.base
    ):
        pool.set_base(tx, state, lowest)  # it joined while others were scored
        return None
    new = tx.buffer.settings.weights(scores, state.base)
    is_other = (new != old) | (
        (new > 0.0) & (scores != ranked) & tx.buffer.settings.weighting.needs_score
    )
    changed = np.flatnonzero(is_other & is_scored)
    if race.is_blurred(state.clock, new[changed]):
        raise _Blurred
    if not len(changed):
        return changed
    which = (
        ids[changed],
        keys[changed],
        old[changed],
        new[changed],
        scores[changed],
        entries[changed],
    )
    moved = change_weights(tx, state, *which)
    return at[changed[moved & is_known[changed]]]


def _finish(tx: Transaction, *, version: int, begun: RaceState) -> bool:
    """Say that the refresh is over, unless every key has moved since."""
    state = tx.lock_race()
    if state.epoch != begun.epoch:
        return False
    this = sa.update(buffers).where(buffers.c.id == tx.buffer.buffer_id)
    tx.connection.execute(
        this.where(buffers.c.refreshed_version < version).values(refreshed_version=version)
    )
    evict(tx, state)  # it has scored what was new, too
    return True


def _pages(buffer: BufferHandle, limit: int) -> Iterator[Sequence[Any]]:
    """Walk the pool in the order of the race. What moves ahead then is met again: all work on it is idempotent."""
    after: dict[str, Any] = {"after_key": -math.inf, "after_id": 0}
    while rows := buffer.read(_page, limit=limit, **after):
        yield rows
        last = {"after_key": rows[-1].race_key, "after_id": rows[-1].sample_id}
        if (last["after_key"], last["after_id"]) <= (after["after_key"], after["after_id"]):
            raise no_progress("a walk through the pool")
        after = last


def _page(tx: Transaction, *, after_key: float, after_id: int, limit: int) -> Sequence[Any]:
    return tx.rows(queries.pool_page(), after_key=after_key, after_id=after_id, limit=limit)
