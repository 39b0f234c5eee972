"""Release a batch: its samples go back to where they stood in the race."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlbuffer._typing import Floats
from sqlbuffer.core import pool
from sqlbuffer.core.claim import Claim, Closed, close
from sqlbuffer.core.race import is_blurred, rescaled, turned_back
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weights import reopen
from sqlbuffer.db import queries


def release(tx: Transaction, *, batch: int | Claim) -> bool:
    """Put a batch's samples back where they stood in the race; return False where the batch was closed before.

    With their old keys they are first in line, in the same order. Where nothing has happened in the race since, the
    clock goes back too, and the race is as if they had never been drawn.

    Args:
        tx: The transaction.
        batch: What a draw gave, or the number of a batch that was looked up in this transaction.
    """
    state = tx.lock_race(exclusive=True)
    if isinstance(batch, Claim):
        number, closed = batch.batch, batch.close(tx, "released_at")
    else:
        number, closed = batch, close(tx, queries.close_batch("released_at"), batch=batch)
    if closed is None:
        return False
    rows = tx.execute(queries.draws_of_batch(), batch=number).all()
    # A batch of which a part was reported remains a turn of the race: that part went on from it.
    is_whole = len(rows) == closed.size
    tx.count(batches=-int(is_whole), released=len(rows))
    may_go_back = is_whole and _is_as_before(state, closed)
    later = None
    if may_go_back or not tx.buffer.consumes:
        # An argmax share does not move the clock, yet it came from the samples that this draw had left.
        later = tx.execute(queries.later_draw(), batch=number).first()
    if may_go_back and later is None:
        pool.take_back_clock(tx, closed.clock_before)
        state = state._replace(clock=closed.clock_before)
    if tx.buffer.consumes:
        put_back(tx, state, rows)
        oldest = tx.execute(queries.oldest_version_of_batch(), batch=number).scalar()
        if (
            oldest is not None and pool.as_ints([oldest])[0] < state.version
        ):  # a refresh came to its end without them
            reopen(tx, version=oldest)
    else:
        _stand_again(tx, state, rows, is_last=later is None)
    return True


def _is_as_before(state: RaceState, closed: Closed) -> bool:
    """Tell whether the race, once all of a batch is back in it, is what it was before the draw, but for its clock.

    No other draw has gone beyond the batch's own end, and nothing has joined, left or got another weight since.
    Otherwise the clock stays, and the keys of the batch are overdue. (A clock below 0 has been turned back since.)
    """
    return (
        state.clock == closed.clock
        and max(state.touched, 0.0) <= closed.clock_before < closed.clock
    )


def put_back(tx: Transaction, state: RaceState, rows: Sequence[Any], *, entries: int = 1) -> None:
    """Let samples wait again: at their old keys, or at new ones where they have none or their weight is a new one.

    `entries` is how often they have entered the race then, which in replay mode names their variates.
    """
    scores, clock = pool.as_floats([row.score for row in rows]), state.clock
    lowest = np.fmin.reduce(scores, initial=math.inf)
    base = (
        math.inf if state.base is None else state.base
    )  # a refresh of what was left has raised or forgotten it
    if tx.buffer.settings.weighting.needs_base and lowest < base:
        state = pool.set_base(tx, state, float(lowest))
    weights = tx.buffer.settings.weights(scores, state.base)
    if tx.buffer.settings.weighting.needs_score:
        weights[[not row.scored for row in rows]] = math.nan
    keys, before = (
        pool.as_floats([row.race_key for row in rows]),
        pool.as_floats([row.weight for row in rows]),
    )
    joins = (keys == math.inf) | ((keys > clock) & (before != weights))
    if is_blurred(state.clock, weights[joins]):
        pool.turn_back(tx)
        state = state._replace(clock=0.0)
    if state.clock != clock:  # they would have moved with all others, had they waited
        keys = turned_back(keys, clock)
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
    """Return the keys of drawn samples at the weights that they have by now.

    A key that the clock has not reached is that of an argmax draw. It stretches as those of waiting samples did.
    """
    changed = (before > 0.0) & (weights > 0.0) & (before != weights)
    stretched = keys.copy()
    stretched[changed] = rescaled(keys[changed], state.clock, before[changed], weights[changed])
    return stretched


def _stand_again(tx: Transaction, state: RaceState, rows: Sequence[Any], *, is_last: bool) -> None:
    """Undo a draw of replay mode, after which the samples went on waiting with new keys. Reads the whole pool.

    Their next entries have new variates: later draws depended on those of the entries that are undone, and a variate
    used twice would make batches depend on each other. Where no later draw is left, an interrupted run draws as one
    that was never interrupted, so the entry is taken off too.
    """
    drawn = {row.sample_id: row for row in rows}
    standing = pool.standing(tx, list(drawn))
    ids = [row.sample_id for row in standing]
    keys = pool.as_floats([row.race_key for row in standing])
    old, before = (
        pool.as_floats([getattr(drawn[i], name) for i in ids]) for name in ("race_key", "weight")
    )
    weights = pool.as_floats([row.weight for row in standing])
    back = np.where(
        (old < math.inf) & (weights > 0.0), _stretched(old, state, before, weights), keys
    )
    entries = [row.entries - is_last for row in standing]
    scores = pool.as_floats([row.score for row in standing])
    pool.move(tx, state, ids, (keys, weights), back, weights, scores, entries)
    if np.any((old < math.inf) & (back != old)):
        tx.count(touched=state.clock)


def release_open(tx: Transaction, owners: Sequence[str]) -> int:
    """Release the open batches of some workers; return how many."""
    # The last draw of a sample is undone first.
    still_open = tx.execute(queries.open_batches_of(), owners=list(owners)).scalars().all()
    return sum(release(tx, batch=batch) for batch in still_open)
