"""Drawing: a batch is claimed in one short transaction, exactly, from an index."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from sqlbuffer._typing import Floats
from sqlbuffer._validation import LARGEST_INT, is_share, require_count, require_real
from sqlbuffer.core import pool, race
from sqlbuffer.core.batch import Batch, Drawn
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.report import Claim
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import disposal, queries
from sqlbuffer.errors import no_progress, require_all, tampered
from sqlbuffer.records import SampleInfo

EVERYTHING = -1
_KEY = operator.itemgetter(Drawn._fields.index("race_key"))
"""The key of a row of a claim: by its name it would take three times as long."""
_NO_ID = 2**63 - 1
"""More than any number of a sample."""
_MOST_WIDENINGS = 100
"""How often others may draw all that has just been marked, each time at least twenty times what was asked for."""


def claim(buffer: BufferHandle, n: int, *, pct_argmax: float = 0.0) -> Batch:
    """Draw a batch: the heaviest `round(n * pct_argmax)` samples, then the next arrivals of the race."""
    n = require_count(
        n, "n must be a number of samples, or -1 for all waiting samples", least=EVERYTHING
    )
    pct_argmax = require_real(pct_argmax, "pct_argmax is a share between 0 and 1", is_share)
    n_heaviest = round(max(n, 0) * pct_argmax)
    disposal.wait(database=buffer.database.url)  # what this process has dropped waits again
    by_tie = exclusive = False
    for _ in range(_MOST_WIDENINGS):
        try:
            batch = buffer.write(
                _draw, n=n, n_heaviest=n_heaviest, by_tie=by_tie, exclusive=exclusive
            )
            break
        except _TiedAtTheEnd:
            by_tie = True
        except _Blurred:
            exclusive = True
        except _TooFewMarked:
            buffer.write(pool.widen_top, n=n_heaviest)
    else:
        raise no_progress("the marking of the heaviest samples")
    batch.witness()
    buffer.heartbeat.start()  # who found nothing to draw may wait for what the dead have claimed
    return batch


class _TooFewMarked(Exception):
    """Fewer are marked as top than are wanted of them; raised, so that what was claimed of them goes back."""


class _TiedAtTheEnd(Exception):
    """The last arrival has the same key as the one after it: their hashes must decide which of them is drawn."""


class _Blurred(Exception):
    """The clock after the draw is too late for the samples to enter the race again: the draw must turn it back."""


def _draw(tx: Transaction, *, n: int, n_heaviest: int, by_tie: bool, exclusive: bool) -> Batch:
    """Draw.

    Raises:
        _TooFewMarked: If the top must be widened first.
        _TiedAtTheEnd: If the draw must go `by_tie`.
        _Blurred: If the draw must have the race `exclusive`.
    """
    # Samples that join the race again, and the heaviest, whose keys stand anywhere, would be in the way of other draws.
    alone = bool(n_heaviest) or not tx.buffer.consumes
    state = tx.lock_race(exclusive=True) if exclusive else tx.lock_race_to_draw(alone=alone)
    dialect = tx.backend
    if n_heaviest and state.top_score is None:  # after a refresh: marks are those of old scores
        raise _TooFewMarked
    heaviest = _head(tx, queries.first_by_score(dialect), n_heaviest)
    if len(heaviest) < n_heaviest and state.top_score != -math.inf:
        raise _TooFewMarked
    heaviest = _sorted(heaviest, "score" if tx.buffer.settings.weighting.needs_score else "weight")[
        ::-1
    ]
    if heaviest and not dialect.supports_deleting_claims:
        drawn = Drawn(*zip(*heaviest, strict=True))
        n_left = pool.leave(tx, drawn.sample_id, drawn.race_key)
        require_all(n_left, len(drawn.sample_id), "a batch was drawn")
    n_arrivals = n if n == EVERYTHING else n - len(heaviest)
    arrivals, stretch = _arrivals(tx, state.clock, n_arrivals, by_tie=by_tie)
    drawn = Drawn(*itertools.islice(zip(*heaviest, *arrivals), len(Drawn._fields)))  # noqa: B905 - more with arrivals
    weights = pool.as_floats(drawn.weight)
    clock = stretch.end
    argmax = np.arange(len(weights)) < len(heaviest)
    probability = np.ones_like(weights)
    probability[len(heaviest) :] = stretch.probability(weights[len(heaviest) :])
    info = SampleInfo(probability, argmax, pool.as_floats(drawn.reward))
    if not len(weights):
        return Batch(
            tx.buffer, drawn, claim=None, iteration=state.iteration, clock=clock, info=info
        )
    is_blurred = not tx.buffer.consumes and race.is_blurred(clock, weights)
    if is_blurred and not exclusive:
        raise _Blurred
    made = _write(tx, state, drawn, stretch, n_heaviest=len(heaviest))
    tx.count(
        clock=clock,
        batches=1,
        drawn=len(weights),
        unscored=-int(np.isnan(weights).sum()) if tx.buffer.consumes else 0,
        unscorable=-int((weights == 0).sum()) if tx.buffer.consumes else 0,
    )
    if is_blurred:  # before new keys are made: at a late clock they would all be one
        pool.turn_back(tx)
        clock = 0.0
    if not tx.buffer.consumes:
        after = state._replace(clock=clock, turn=state.turn + 1)
        entries = (pool.as_ints(drawn.entries) + 1).tolist()
        new_keys = pool.join_race(tx.buffer, after, drawn.hash, drawn.requeues, entries, weights)
        scores = pool.as_floats(drawn.score)
        pool.enter(tx, after, drawn.sample_id, new_keys, weights, scores, entries)
    return Batch(tx.buffer, drawn, claim=made, iteration=state.iteration, clock=clock, info=info)


def _sorted(rows: list[Any], column: str) -> list[Any]:
    """Sort rows by a column, equals by the end of their hash. Neither a join nor SKIP LOCKED promises an order."""
    place = operator.itemgetter(Drawn._fields.index(column))
    try:
        ordered = sorted(rows, key=place)
        if len(set(map(place, rows))) < len(rows):
            ordered.sort(key=lambda row: (place(row), row.hash[race.TIE], row.sample_id))
    except TypeError as exc:
        pool.as_floats([place(row) for row in rows])  # says which one is no number
        raise tampered("a weight or key is missing in the pool") from exc
    return ordered


class _Stretch(NamedTuple):
    """The stretch of the race that a draw goes through."""

    keys: Floats
    """Those of its arrivals, in their order."""
    clock: float
    """Where the race stood before the draw."""
    threshold: float
    """Key of the first arrival that it left, infinity where there is none."""
    is_interleaved: bool = False
    """True where other draws under way have claimed what stands among its arrivals."""

    @property
    def ends_in_a_tie(self) -> bool:
        """True if the last arrival has the same key as the first one left in the race."""
        return bool(len(self.keys) and self.keys[-1] == self.threshold < math.inf)

    @property
    def end(self) -> float:
        """Where the race stands after the draw."""
        return max(
            self.clock, float(np.max(self.keys, initial=-math.inf, where=self.keys < math.inf))
        )

    @property
    def begin(self) -> float:
        """Where the race stands if the draw is taken back: the end, where others are left that went as far."""
        return self.end if self.is_interleaved else self.clock

    def probability(self, weights: Floats) -> Floats:
        """Return the chance of each arrival to be in this draw."""
        if self.is_interleaved and self.threshold < math.inf:
            return np.full_like(weights, math.nan)
        return race.arrival_probability(weights, self.keys, self.clock, self.threshold)


def _arrivals(tx: Transaction, clock: float, n: int, *, by_tie: bool) -> tuple[list[Any], _Stretch]:
    """Claim the next n arrivals of the race; return them in their order, and the stretch of the race they are from.

    Raises:
        _TiedAtTheEnd: If the last of them has the same key as the one after, and the draw does not go `by_tie`.
    """
    dialect = tx.backend
    by_key = queries.first_in_race_by_tie if by_tie else queries.first_in_race
    build, limit = (queries.whole_pool, LARGEST_INT) if n == EVERYTHING else (by_key, n)
    found = _sorted(
        _head(tx, build(dialect), limit + (not dialect.supports_deleting_claims)), "race_key"
    )
    arrivals, after = found[:limit], found[limit:]
    keys = pool.as_floats(list(map(_KEY, arrivals)))
    if dialect.supports_deleting_claims:
        stretch = _seen(arrivals, keys, clock)
    else:
        stretch = _Stretch(
            keys, clock, pool.as_floats([after[0].race_key])[0] if after else math.inf
        )
    if stretch.ends_in_a_tie and not by_tie:
        raise _TiedAtTheEnd
    return arrivals, stretch


def _seen(arrivals: list[Any], keys: Floats, clock: float) -> _Stretch:
    """Return the stretch that arrivals are from, by what stood around them, others' claims included."""
    arriving = keys[keys < math.inf]
    if not len(arriving):
        return _Stretch(keys, clock, math.inf)
    row, last = arrivals[0], arriving[-1]
    around = pool.as_floats([row.clock, row.key_before, row.key_after])
    before, n_at_last = (arriving > arriving[0]) & (arriving < last), int((arriving == last).sum())
    after = last if row.n_at_last > n_at_last else around[2]
    return _Stretch(
        keys,
        clock=float(np.fmax(around[0], around[1])),  # others have drawn that far, committed or not
        threshold=math.inf if math.isnan(after) else float(after),
        is_interleaved=row.n_between > int(before.sum()),
    )


def _leave_up_to(tx: Transaction, ids: Sequence[int], stretch: _Stretch) -> None:
    """Take the arrivals out of the pool; if the last key is tied, those with that key one by one."""
    is_tied = stretch.ends_in_a_tie
    last_key = float(stretch.keys[-1])
    last = np.flatnonzero(stretch.keys == last_key).tolist() if is_tied else []
    tx.execute(queries.leave_up_to(), last_key=last_key, last_id=0 if is_tied else _NO_ID)
    pool.leave(tx, [ids[i] for i in last], [last_key] * len(last))


def _head(tx: Transaction, statement: sa.Select[Any], limit: int) -> list[Any]:
    """Claim the head of the pool: rows of the columns of `Drawn`."""
    return tx.execute(statement, limit=limit).all() if limit > 0 else []


def _write(
    tx: Transaction, state: RaceState, drawn: Drawn, stretch: _Stretch, *, n_heaviest: int
) -> Claim:
    """Open the batch and write its draws: first the heaviest, then the arrivals, which leave the pool."""
    drawn_by, n = worker_id(), len(drawn.sample_id)
    batch = {
        "worker_id": drawn_by,
        "iteration": state.iteration,
        "size": n,
        "clock_before": stretch.begin,
        "clock": stretch.end,
    }
    opened = tx.execute(queries.insert_batch(), **batch).one()
    tx.reach(opened.drawn_tick)
    leave, keys = not tx.backend.supports_deleting_claims and n > n_heaviest, stretch.keys
    n_moved = 0
    if leave and not stretch.ends_in_a_tie and (keys[:-1] < keys[1:]).all():
        # One statement copies them within the database, in the order of their keys.
        up_to = {"last_key": float(keys[-1]), "last_id": _NO_ID}
        n_moved = tx.execute(
            queries.insert_arrivals(), batch=opened.id, first=n_heaviest, **up_to
        ).rowcount
    columns = {
        "position": range(n),
        "sample_id": drawn.sample_id,
        "race_key": drawn.race_key,
        "weight": drawn.weight,
    }
    if n_moved:
        columns = {name: values[:n_heaviest] for name, values in columns.items()}
    statement = queries.insert_draws(tx.backend)
    n_written = (
        tx.execute_each(statement, queries.INCOMING_DRAWS, columns, batch=opened.id)
        if n > n_moved
        else 0
    )
    require_all(n_moved + n_written, n, "a batch was written")
    if leave:
        _leave_up_to(tx, drawn.sample_id[n_heaviest:], stretch)
    return Claim(int(opened.id), drawn_by, opened.drawn_at)
