"""Release a batch: put its samples back where they stood in the race."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from sqlbuffer._messages import shown, summary
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer.core import pool
from sqlbuffer.core.claim import Claim, Closed, close
from sqlbuffer.core.clock import resolved, set_base, take_back_clock
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.race import rescaled
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weights import reopen
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import disposal, queries
from sqlbuffer.errors import ClaimLost, DatabaseUnavailable

log = logging.getLogger(__name__)


class _Place(NamedTuple):
    """Where a sample waits."""

    race_key: float
    weight: float | None
    score: float | None
    entries: int


_Places: TypeAlias = dict[int, _Place]
"""Places by the id of the sample."""


def release(tx: Transaction, *, batch: int | Claim, places: _Places | None = None) -> bool:
    """Put the samples of a batch back where they stood in the race.

    With their old keys the samples come first again, in the same order. If the race has not changed
    since the draw, the clock goes back too, and the race is as if the draw had never happened. If
    it has changed, samples of mode "replay" stay where they have waited since the draw, as if the
    batch had been settled.

    Args:
        tx: A writing transaction.
        batch: The claim of a draw, or the id of a batch that was looked up in this transaction.
        places: Where the samples wait in mode "replay", if that is known; it is kept true.

    Returns:
        False if the batch was closed before.
    """
    state = tx.lock_race(exclusive=True)
    if isinstance(batch, Claim):
        number, closed = batch.batch, batch.close(tx, "released_at")
    else:
        number, closed = batch, close(tx, queries.batches.close_batch("released_at"), batch=batch)
    if closed is None:
        return False
    rows = tx.execute(queries.batches.draws_of_batch(), batch=number).all()
    # A batch that was reported in part stays a turn of the race, which its reported samples used.
    is_whole = len(rows) == closed.size
    tx.count(batches=-int(is_whole), released=len(rows))
    is_shared = _is_shared(tx, number)
    may_go_back = is_whole and _is_as_before(state, closed) and not is_shared
    later = None
    if may_go_back or not tx.buffer.consumes:
        # An argmax share does not move the clock, but it was chosen among the samples that this
        # draw had left.
        later = tx.execute(queries.batches.later_draw(), batch=number).first()
    if may_go_back and later is None:
        take_back_clock(tx, closed.clock_before)
        state = state._replace(clock=closed.clock_before)
    if tx.buffer.consumes:
        put_back(tx, state, rows)
        oldest = tx.execute(queries.batches.oldest_version_of_batch(), batch=number).scalar()
        # A refresh may have finished without these samples.
        if oldest is not None and pool.as_ints([oldest])[0] < state.version:
            reopen(tx, version=oldest)
    else:
        if places is None:
            places = _places_of(tx, [number])
        is_last = later is None and _is_untouched(state, closed) and not is_shared
        _undo_replayed(tx, state, rows, places, is_last=is_last)
    return True


def _is_as_before(state: RaceState, closed: Closed) -> bool:
    """Tell whether only the clock differs from the race before the draw, once all samples are back.

    No other draw has gone beyond the end of the batch, no sample has joined or left since, and no
    weight has changed. Otherwise the clock stays, and the keys of the batch are overdue. (A clock
    below 0 was turned back since.)
    """
    return state.clock == closed.clock > closed.clock_before and _is_untouched(state, closed)


def _is_shared(tx: Transaction, batch: int) -> bool:
    """Tell whether another worker has an open batch in mode "replay".

    Its samples may be among those of this batch. If the clock went back before their keys, their
    new priorities would show where they stand, and the next draw would end there.
    """
    if tx.buffer.consumes:
        return False
    return bool(tx.execute(queries.batches.has_open_batch_of_others(), batch=batch).scalar_one())


def _is_untouched(state: RaceState, closed: Closed) -> bool:
    """Tell whether no sample has joined or left since the draw, and no weight has changed."""
    return max(state.touched, 0.0) <= closed.clock_before


def put_back(tx: Transaction, state: RaceState, rows: Sequence[Any], *, entries: int = 1) -> None:
    """Put n samples back into the pool, with the weights of their scores.

    A sample keeps its old key, which stretches if it lies beyond the clock and the weight has
    changed. A sample without a key joins the race.

    Args:
        tx: A writing transaction that has locked the race exclusively.
        state: The state of the race.
        rows: n rows of `queries.batches.draws_of_batch`.
        entries: How often each sample has entered the race, this time included.
    """
    weighting = tx.buffer.settings.weighting
    scores = pool.as_floats([row.score for row in rows])
    keys = pool.as_floats([row.race_key for row in rows])
    lowest = np.fmin.reduce(scores, initial=math.inf)
    # A refresh of the other samples may have raised the base, or removed it.
    base = math.inf if state.base is None else state.base
    if weighting.needs_base and lowest < base:
        state = set_base(tx, state, float(lowest), carried=keys)
    weights = tx.buffer.settings.weights(scores, state.base)
    if weighting.needs_score:
        weights[[not row.scored for row in rows]] = math.nan
    before = pool.as_floats([row.weight for row in rows])
    joins = (keys == math.inf) | ((keys > state.clock) & (before != weights))
    state = resolved(tx, state, weights[joins], carried=keys)
    hashes, counts = [row.hash for row in rows], [entries] * len(rows)
    fresh = pool.join_race(
        tx.buffer, state, hashes, [row.requeues for row in rows], counts, weights
    )
    given = keys
    keys = np.where(
        (weights > 0) & (keys < math.inf), _stretched(keys, state, before, weights), fresh
    )
    ids = [row.sample_id for row in rows]
    pool.enter(tx, state, ids, keys, weights, scores, counts)
    tx.count(
        touched=state.clock if np.any(keys[weights > 0] != given[weights > 0]) else None,
        unscored=int(np.isnan(weights).sum()),
        unscorable=int((weights == 0).sum()),
    )


def _stretched(keys: Floats, state: RaceState, before: Floats, weights: Floats) -> Floats:
    """Return (n,) keys of drawn samples at their new weights.

    A key beyond the clock belongs to an argmax draw. It stretches as those of waiting samples do.
    """
    changed = (before > 0.0) & (weights > 0.0) & (before != weights)
    stretched = keys.copy()
    stretched[changed] = rescaled(keys[changed], state.clock, before[changed], weights[changed])
    return stretched


def _places_of(tx: Transaction, batches: Sequence[int]) -> _Places:
    """Return where the samples of batches wait; reads the whole pool once."""
    statement = queries.pool.standing_of_batches(tx.backend)
    return _as_places(
        tx.execute_with(statement, queries.params.INCOMING_IDS, {"sample_id": batches})
    )


def _places_with(tx: Transaction, ids: Sequence[int]) -> _Places:
    """Return where samples wait; reads the whole pool."""
    statement = queries.priorities.standing_anywhere(tx.backend)
    return _as_places(tx.execute_with(statement, queries.params.INCOMING_IDS, {"sample_id": ids}))


def _as_places(rows: Iterable[Any]) -> _Places:
    return {row.sample_id: _Place(*row[1:]) for row in rows}


def _undo_replayed(
    tx: Transaction, state: RaceState, rows: Sequence[Any], places: _Places, *, is_last: bool
) -> None:
    """Undo a draw of replay mode, in which drawn samples wait with new keys.

    The entry into the race that the draw made stays counted, so that the next entry has a new
    variate: later draws depended on the variate of the undone entry, and a variate that is used
    twice would make batches depend on each other. If no later draw is left, the entry is taken off
    too, so that an interrupted run draws the same batches as an uninterrupted one.

    A sample whose old key the clock has passed keeps its new key, and the entry: beyond the clock
    all keys are exponential, and no draw can end among keys behind it, where it tells nothing of
    the rest. The samples of an argmax share may go back to keys beyond the clock.
    """
    drawn = [row for row in rows if row.sample_id in places]
    ids = [row.sample_id for row in drawn]
    standing = [places[i] for i in ids]
    keys = pool.as_floats([place.race_key for place in standing])
    old, before = (
        pool.as_floats([getattr(row, name) for row in drawn]) for name in ("race_key", "weight")
    )
    weights = pool.as_floats([place.weight for place in standing])
    stretches = (old > state.clock) & (old < math.inf) & (before != weights)
    turned = resolved(tx, state, weights[stretches], carried=old)
    if turned.clock != state.clock:  # every key has moved
        places.update(_places_with(tx, list(places)))
        keys, state = pool.as_floats([places[i].race_key for i in ids]), turned
    goes = old > state.clock
    back = np.where(
        goes & (old < math.inf) & (weights > 0.0), _stretched(old, state, before, weights), keys
    )
    counted = pool.as_ints([place.entries for place in standing])
    entries = (counted - (goes & is_last)).tolist()
    scores = pool.as_floats([place.score for place in standing])
    pool.move(tx, state, ids, (keys, weights), back, weights, scores, entries)
    for number, key, entry in zip(ids, back.tolist(), entries, strict=True):
        places[number] = places[number]._replace(race_key=key, entries=entry)
    if np.any((old < math.inf) & (back != old)):
        tx.count(touched=state.clock)


def release_open(tx: Transaction, owners: Sequence[str]) -> int:
    """Release the open batches of some workers; return how many."""
    # The newest first: the last draw of a sample must be undone before earlier ones.
    still_open = tx.execute(queries.batches.open_batches_of(), owners=list(owners)).scalars().all()
    return release_all(tx, still_open)


def release_all(tx: Transaction, batches: Sequence[int]) -> int:
    """Release batches, the newest first; return how many. The caller has locked the race."""
    is_replayed = batches and not tx.buffer.consumes
    places = _places_of(tx, batches) if is_replayed else None
    return sum(release(tx, batch=batch, places=places) for batch in batches)


def release_later(pid: int, buffer: BufferHandle, claim: Claim) -> None:
    """Release a garbage-collected batch soon, unless this process is a forked child."""
    if pid == os.getpid():
        disposal.later(
            functools.partial(_release_dropped, buffer, claim), database=buffer.database.url
        )


def _release_dropped(buffer: BufferHandle, claim: Claim) -> None:
    # If its draw was rolled back, the batch is not found, even if another one has its id by now.
    try:
        with contextlib.closing(buffer.database):
            is_released = buffer.write(release, batch=claim)
    except Exception as exc:
        log.warning(
            "could not release the dropped batch %d: it stays claimed until this process exits: %s",
            claim.batch,
            summary(exc),
        )
        return
    if is_released:
        log.warning(
            "batch %d of buffer %s was dropped without having been settled or released: its "
            "samples wait again; settle the batch, with or without rewards, or use it in a "
            "`with` block",
            claim.batch,
            shown(buffer.name),
        )


_was_told = threading.Event()
"""Set once this process has said that a batch was released untouched."""


def tell_untouched(batch: int | None, name: str) -> None:
    """Say, once for each process, that a block has ended without a reward for its batch."""
    if not _was_told.is_set():
        _was_told.set()
        log.warning(
            "batch %s of buffer %s was released at the end of its block without a reward, and its "
            "samples wait again: call batch.settle(rewards), or batch.settle() if the samples were "
            "used without being measured",
            batch,
            shown(name),
        )


def leave_block(
    release: Callable[[], None],
    kind: type[BaseException] | None,
    *,
    batch: int | None,
    untouched_in: str | None,
) -> None:
    """Release a batch at the end of its block.

    Args:
        release: Releases it.
        kind: The exception that ends the block; None if no exception does.
        batch: Number of the batch.
        untouched_in: Name of the buffer if the batch has no reward, else None.
    """
    try:
        release()
        if kind is None and untouched_in is not None:
            tell_untouched(batch, untouched_in)
    except ClaimLost:
        if kind is None:  # else it was just settled, and the exception of the block goes on
            raise
    except DatabaseUnavailable as exc:
        if kind is None or issubclass(kind, Exception):
            raise
        # Ctrl-C, or another exception of this kind, goes on.
        log.warning(
            "could not release the batch: it stays claimed until this process exits: %s",
            summary(exc),
        )
    except BaseException as exc:
        if not isinstance(exc, Exception):  # a signal: no other process releases the batch
            with contextlib.suppress(ClaimLost):
                release()
        raise


def release_dropped(buffer: BufferHandle) -> None:
    """Release open batches of this process that are no longer used, as those of an ended loop."""
    if buffer.look(_has_open):
        gc.collect()  # a loop and its callbacks refer to each other
        disposal.wait(database=buffer.database.url)


def _has_open(tx: Transaction) -> bool:
    return bool(tx.execute(queries.batches.has_open_batch(), worker=worker_id()).scalar())
