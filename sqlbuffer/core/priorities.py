"""Priorities: scores that the user gives to samples, whose weights and keys follow at once.

A waiting sample gets its weight and its key with its score. A sample that is claimed in mode
"consume" has no key: it gets its score, and the rest when it is released. A sample that neither
waits nor is claimed keeps the score that it had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from sqlbuffer._integrity import require_all
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer._validation import as_ids, as_priorities
from sqlbuffer.core import pool
from sqlbuffer.core.evict import evict
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.measured import Known
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weights import moved_keys, weigh
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Columns
from sqlbuffer.errors import InvalidArgument, StaleIds


class Given(NamedTuple):
    """Scores of n samples, by ascending id."""

    ids: Sequence[int]
    scores: Floats
    hashes: Mapping[int, bytes] | None
    """Of the samples of a batch; None for ids that the user has kept."""


class _Found(NamedTuple):
    """The samples that get their scores."""

    waiting: list[Any]
    """Rows of the pool, by ascending id."""
    hashes: dict[int, bytes]
    """Of the waiting and the claimed samples."""


class Updated(NamedTuple):
    """What a transaction has done."""

    n: int
    keys: dict[int, float]
    """The keys of the waiting samples from now on."""
    epoch: int
    counts: dict[str, Any]
    """What `Transaction.count` is to be called with."""


def of_batch(
    buffer: BufferHandle, known: Known, priorities: Any, ids: Sequence[int] | None, *, hint: str
) -> Given:
    """`prepare` priorities of samples of a batch, all of them by default."""
    hashes = dict(zip(known.ids.tolist(), known.hash, strict=True))
    numbers = list(hashes) if ids is None else as_ids(ids)
    if unknown := set(numbers) - set(hashes):
        raise InvalidArgument(f"sample {min(unknown)} is not in this batch: give ids of batch.ids.")
    return prepare(buffer, numbers, priorities, hashes, hint=hint)


def prepare(
    buffer: BufferHandle,
    ids: Sequence[int],
    priorities: Any,
    hashes: Mapping[int, bytes] | None = None,
    *,
    hint: str = "",
) -> Given:
    """Check priorities, and return them as scores.

    Args:
        buffer: The buffer.
        ids: n ids of samples; of equal ids the last one counts.
        priorities: (n,) non-negative finite numbers.
        hashes: The hashes of the samples, if they are known; None for ids that the user has kept.
        hint: Where a NaN may come from, as a sentence.

    Raises:
        InvalidArgument: If the buffer draws uniformly, or if the priorities are not n non-negative
            finite numbers.
    """
    _require_weighted(buffer)
    values = as_priorities(priorities, len(ids), hint=hint)
    last = {number: i for i, number in enumerate(ids)}
    numbers = sorted(last)
    places = np.array([last[number] for number in numbers], dtype=np.int64)
    return Given(numbers, _as_scores(buffer, values[places]), hashes)


def update(buffer: BufferHandle, given: Given) -> int:
    """Give samples new priorities, in one transaction.

    Returns:
        The number of samples that have their new priorities.

    Raises:
        InvalidArgument: If the buffer has no sample of an id.
        StaleIds: If the ids may belong to other samples by now.
    """
    updated = buffer.write(write, given=given)
    remember(buffer, updated)
    return updated.n


def remember(buffer: BufferHandle, updated: Updated) -> None:
    """Remember the keys at which the samples wait, once the transaction has committed."""
    buffer.places.correct(updated.keys)
    buffer.places.epoch = updated.epoch


def _require_weighted(buffer: BufferHandle) -> None:
    if not buffer.settings.weighting.needs_score:
        raise InvalidArgument(
            f"buffer {buffer.name!r} draws uniformly, so that priorities have no effect: make a "
            'copy with another weighting (store.copy(name, weighting="power")).'
        )


def _as_scores(buffer: BufferHandle, priorities: Floats) -> Floats:
    """Return the scores of priorities; NaN, which is never drawn, for a 0 that would have a weight.

    A score of 0 has the weight 0 under `Power` alone.
    """
    if priorities.all() or buffer.settings.weights(np.zeros(1), None)[0] == 0.0:
        return priorities
    return np.where(priorities == 0.0, math.nan, priorities)


def write(tx: Transaction, *, given: Given) -> Updated:
    """`update` within a transaction."""
    # Exclusive: no draw moves the clock or a key, and no sample joins, until this commits.
    updated = apply(tx, tx.lock_race(exclusive=True), given=given)
    tx.count(**updated.counts)
    return updated


def apply(tx: Transaction, state: RaceState, *, given: Given) -> Updated:
    """`write` without its counts, in a transaction that has locked the race exclusively."""
    found = _find(tx, given, epoch=state.epoch)
    state = _past_shown(tx, state, found.waiting)
    scores = dict(zip(given.ids, given.scores.tolist(), strict=True))
    n_scored, deltas, keys = _move(tx, state, found, scores)
    n = _store(tx, found, scores, version=state.version)
    if n_scored:
        evict(tx, tx.race_state(), scored=n_scored, unscored=-n_scored)
    # A claimed sample was chosen among those that were drawn. If its release turned the clock back,
    # its key would stretch although the draw has shown it.
    is_claimed = len(found.hashes) > len(found.waiting)
    is_moved = deltas.pop("moved")
    counts = {"touched": state.clock if is_claimed or is_moved else None, **deltas}
    return Updated(n, keys, state.epoch, counts)


# -- where the samples stand ----------------------------------------------------------------------


def _find(tx: Transaction, given: Given, *, epoch: int) -> _Found:
    """Find the samples that wait or are claimed: at the remembered keys, else by a scan."""
    rows = at_remembered_keys(tx, given.ids)
    hashes = {row.sample_id: row.hash for row in rows}
    standing = {row.sample_id: row for row in rows}
    if rest := [number for number in given.ids if number not in standing]:
        others = _queued(tx, given, rest)
        hashes |= others
        lost = set(others)
        if lost and tx.buffer.consumes:
            lost -= _claimed(tx, sorted(lost))
        if lost:
            standing |= scanned(tx, lost, epoch=epoch)
        # A claimed sample may be settled by now, and neither waits nor is claimed.
    _require_same(given, hashes)
    return _Found([standing[number] for number in given.ids if number in standing], hashes)


def at_remembered_keys(tx: Transaction, ids: Sequence[int]) -> Sequence[Any]:
    """Return the rows of those of the samples that stand at the keys where they were last seen."""
    if not (known := tx.buffer.places.find(ids)):
        return []
    columns: Columns = {"sample_id": list(known), "race_key": list(known.values())}
    statement = queries.priorities.at_places(tx.backend)
    rows = tx.execute_with(statement, queries.params.INCOMING_PLACES, columns).all()
    return [row for row in rows if row.race_key is not None]


def _queued(tx: Transaction, given: Given, ids: Sequence[int]) -> dict[int, bytes]:
    """Return the hashes of those of the samples that wait or are claimed."""
    if given.hashes is None:
        tx.require_ids(given.ids)
    statement = queries.priorities.stored_with(tx.backend)
    rows = tx.execute_with(statement, queries.params.INCOMING_IDS, {"sample_id": ids}).all()
    hashes = {row.id: row.hash for row in rows}
    _require_same(given, hashes)
    if given.hashes is None and (unknown := set(ids) - set(hashes)):
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} has no sample {min(unknown)}: give ids of its samples, "
            "such as batch.ids."
        )
    return {row.id: row.hash for row in rows if row.queued}


def _require_same(given: Given, hashes: Mapping[int, bytes]) -> None:
    """Raise StaleIds if a sample has another hash than that of the batch."""
    if given.hashes is None:
        return
    for number, digest in hashes.items():
        if given.hashes[number] != digest:
            raise StaleIds(
                f"number {number} now belongs to another sample: the database has returned to an "
                "earlier state (failover, restore); draw again."
            )


def _claimed(tx: Transaction, ids: Sequence[int]) -> set[int]:
    statement = queries.priorities.claimed_with(tx.backend)
    found = tx.execute_with(statement, queries.params.INCOMING_IDS, {"sample_id": ids})
    return set(found.scalars())


def scanned(tx: Transaction, ids: set[int], *, epoch: int) -> dict[int, Any]:
    """Find samples in the pool; and if every key has moved, all remembered ones at once."""
    places = tx.buffer.places
    wanted = ids if places.epoch == epoch else ids | set(places.all_ids())
    statement = queries.priorities.standing_anywhere(tx.backend)
    columns = {"sample_id": sorted(wanted)}
    rows = tx.execute_with(statement, queries.params.INCOMING_IDS, columns).all()
    places.correct({row.sample_id: row.race_key for row in rows})  # at worst another scan
    return {row.sample_id: row for row in rows if row.sample_id in ids}


# -- keys that a released draw has shown ----------------------------------------------------------


def _past_shown(tx: Transaction, state: RaceState, rows: Sequence[Any]) -> RaceState:
    """Move the clock to the end of the released draws that have shown these samples.

    The weights may have been chosen by it, as samples are by `pool.take_out`.
    """
    ends = pool.shown_until(tx, rows, clock=state.clock)
    if ends <= state.clock:
        return state
    tx.count(clock=ends)
    return state._replace(clock=ends)


# -- what is written ------------------------------------------------------------------------------


def _move(
    tx: Transaction, state: RaceState, found: _Found, scores: Mapping[int, float]
) -> tuple[int, dict[str, int], dict[int, float]]:
    """Give the waiting samples their weights and keys.

    Each counts one more entry into the race: a refresh that is under way sees by it that the score
    is not its own any more, even if weight and key are the same.

    Returns:
        How many had no score before; the changes of the counters; and the keys from now on, by id.
    """
    rows = found.waiting
    if not rows:
        return 0, {"moved": 0, "unscored": 0, "unscorable": 0}, {}
    ids = pool.as_ints([row.sample_id for row in rows])
    values = np.array([scores[row.sample_id] for row in rows])
    after, new = cast("tuple[RaceState, Floats]", weigh(tx, state, values, may_move_all=True))
    if (after.base, after.clock) != (state.base, state.clock):  # every key has moved
        standing = scanned(tx, set(ids.tolist()), epoch=after.epoch)
        rows = [standing[number] for number in ids.tolist()]
    keys = pool.as_floats([row.race_key for row in rows])
    old = pool.as_floats([row.weight for row in rows])
    entries = pool.as_ints([row.entries for row in rows])
    moving, entries = moved_keys(tx, after, ids, keys, old, new, entries + 1)
    moved = pool.move(tx, after, ids.tolist(), (keys, old), moving, new, values, entries.tolist())
    require_all(int(moved.sum()), len(ids), "priorities were written")
    unscored = int(np.count_nonzero(np.isnan(old)))
    deltas = {
        "moved": int(np.count_nonzero(moving != keys)),
        "unscored": -unscored,
        "unscorable": int(np.count_nonzero(new == 0) - np.count_nonzero(old == 0)),
    }
    return unscored, deltas, dict(zip(ids.tolist(), moving.tolist(), strict=True))


def _store(tx: Transaction, found: _Found, scores: Mapping[int, float], *, version: int) -> int:
    """Store the scores of samples that wait or are claimed; return how many."""
    ids = sorted(found.hashes)
    columns: Columns = {
        "sample_id": ids,
        "hash": [found.hashes[number] for number in ids],
        "score": pool.as_weights(np.array([scores[number] for number in ids])),
    }
    statement = queries.samples.store_priorities(tx.backend)
    more = {"version": version, "tick": tx.tick()}
    return tx.execute_each(statement, queries.params.INCOMING_SCORES, columns, **more)
