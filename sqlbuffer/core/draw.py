"""Draw a batch: claim its samples exactly, from an index, in one short transaction."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer._integrity import no_progress, require_all, tampered
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer._validation import LARGEST_INT, is_share, require_count, require_real
from sqlbuffer.core import budget, pool, race
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.claim import (
    MOST_WIDENINGS,
    WHILE_ALIVE,
    Claim,
    Drawn,
    Terms,
    TooFewMarked,
)
from sqlbuffer.core.clock import Blurred, turn_back
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.stretch import Stretch, seen
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import disposal, queries
from sqlbuffer.db.backends import driver
from sqlbuffer.records import SampleInfo

EVERYTHING = -1
_KEY, _ID, _HASH = (
    operator.itemgetter(Drawn._fields.index(name)) for name in ("race_key", "sample_id", "hash")
)
"""Return a value of a row of a claim, which is a plain tuple: that takes a third of the time."""
_NO_ID = 2**63 - 1  # larger than any id of a sample


def claim(
    buffer: BufferHandle, n: int, *, pct_argmax: float = 0.0, terms: Terms = WHILE_ALIVE
) -> Batch:
    """Draw a batch: the heaviest `round(n * pct_argmax)` samples, then arrivals of the race.

    Args:
        buffer: The buffer.
        n: Size of the batch, or -1 for all waiting samples.
        pct_argmax: Share of the batch that is taken by weight, in [0, 1].
        terms: How the batch is claimed.

    Returns:
        The claimed batch, which is smaller than n if fewer samples can be drawn.

    Raises:
        InvalidArgument: If n or `pct_argmax` is out of range.
    """
    n = require_count(
        n, "n must be a number of samples, or -1 for all waiting samples", least=EVERYTHING
    )
    pct_argmax = require_real(pct_argmax, "pct_argmax is a share between 0 and 1", is_share)
    disposal.wait(database=buffer.database.url)  # release dropped batches of this process first
    by_tie = exclusive = False
    for _ in range(MOST_WIDENINGS):
        try:
            batch = buffer.write(
                _draw,
                n=n,
                pct_argmax=pct_argmax,
                by_tie=by_tie,
                exclusive=exclusive,
                terms=terms,
            )
            break
        except _TiedAtTheEnd:
            by_tie = True
        except (Blurred, _Budgeted):
            exclusive = True
        except TooFewMarked as exc:
            buffer.write(pool.widen_top, n=exc.n)
    else:
        raise no_progress("the marking of the heaviest samples")
    batch._witness()
    buffer.heartbeat.start()  # even if the batch is empty: it releases claims of stale workers
    return batch


class _TiedAtTheEnd(Exception):
    """The last arrival and the next one have the same key: their hashes must decide."""


class _Budgeted(Exception):
    """The buffer has a budget: the draw must know what other draws have claimed."""


def _draw(
    tx: Transaction,
    *,
    n: int,
    pct_argmax: float = 0.0,
    by_tie: bool = False,
    exclusive: bool = False,
    terms: Terms = WHILE_ALIVE,
) -> Batch:
    """Draw a batch within a transaction.

    Raises:
        TooFewMarked: If more samples must be marked as top first.
        _TiedAtTheEnd: If the draw must be repeated with `by_tie`.
        Blurred, _Budgeted: If the draw must be repeated with `exclusive`.
    """
    # In replay mode drawn samples get new keys, and the heaviest samples have any key: other draws
    # would meet them.
    alone = bool(round(max(n, 0) * pct_argmax)) or not tx.buffer.consumes
    state = tx.lock_race(exclusive=True) if exclusive else tx.lock_race_to_draw(alone=alone)
    if state.has_budget:
        if tx.backend.has_concurrent_writers and not exclusive:
            raise _Budgeted
        n = budget.cut(tx, state, n, pct_argmax)
    n_heaviest = round(max(n, 0) * pct_argmax)
    heaviest = _heaviest(tx, state, n_heaviest)
    n_arrivals = n if n == EVERYTHING else n - len(heaviest)
    arrivals, stretch = _arrivals(tx, state.clock, n_arrivals, by_tie=by_tie)
    # An arrival may have more columns than `Drawn`, so `zip` is not strict.
    drawn = Drawn(*itertools.islice(zip(*heaviest, *arrivals), len(Drawn._fields)))  # noqa: B905
    weights = pool.as_floats(drawn.weight)
    probability, argmax = np.ones(len(weights)), np.zeros(len(weights), dtype=np.bool_)
    probability[len(heaviest) :] = stretch.probability(weights[len(heaviest) :])
    argmax[: len(heaviest)] = True
    info = SampleInfo(probability, argmax, pool.as_floats(drawn.reward))
    made, clock, new_keys = None, stretch.end, None
    if len(weights):
        given: Any = {"n_heaviest": len(heaviest), "exclusive": exclusive, "terms": terms}
        made, clock, new_keys = _take(tx, state, drawn, stretch, weights, **given)
    about: Any = {"iteration": state.iteration, "objective": state.objective, "info": info}
    about |= {"weights": weights, "new_keys": new_keys}
    return Batch(tx.buffer, drawn, claim=made, clock=clock, **about)


def _take(
    tx: Transaction,
    state: RaceState,
    drawn: Drawn,
    stretch: Stretch,
    weights: Floats,
    *,
    n_heaviest: int,
    exclusive: bool,
    terms: Terms,
) -> tuple[Claim, float, Floats | None]:
    """Store a batch, and give samples of replay mode new keys; return claim, clock and new keys."""
    consumes, clock, new_keys = tx.buffer.consumes, stretch.end, None
    is_blurred = not consumes and race.is_blurred(clock, weights)
    if is_blurred and not exclusive:
        raise Blurred
    made = _write(tx, state, drawn, stretch, n_heaviest=n_heaviest, terms=terms)
    tx.count(
        clock=clock,
        batches=1,
        drawn=len(weights),
        unscored=-int(np.count_nonzero(np.isnan(weights))) if consumes else 0,
        unscorable=-int(np.count_nonzero(weights == 0)) if consumes else 0,
    )
    if terms.settles:
        made.settle_at_once(tx, len(weights))
    if is_blurred:  # before new keys are made: at a large clock they would all be equal
        turn_back(tx)
        clock = 0.0
    if not consumes:
        after = state._replace(clock=clock, turn=state.turn + 1)
        entries = (pool.as_ints(drawn.entries) + 1).tolist()
        new_keys = pool.join_race(tx.buffer, after, drawn.hash, drawn.requeues, entries, weights)
        scores = pool.as_floats(drawn.score)
        pool.enter(tx, after, drawn.sample_id, new_keys, weights, scores, entries)
    return made, clock, new_keys


def _heaviest(tx: Transaction, state: RaceState, n: int) -> list[Any]:
    """Claim the n samples with the best scores, the best first; equal scores by their hashes."""
    if n == 0:
        return []
    if state.top_score is None:  # a refresh was made: the marks belong to old scores
        raise TooFewMarked(n)
    found = _head(tx, queries.claims.first_by_score(tx.backend), n)
    if len(found) < n and state.top_score != -math.inf:
        raise TooFewMarked(n)
    column = "score" if tx.buffer.settings.weighting.needs_score else "weight"
    found = _sorted(found, column)[::-1]
    if found and not tx.backend.supports_deleting_claims:
        drawn = Drawn(*zip(*found, strict=True))
        n_left = pool.leave(tx, drawn.sample_id, drawn.race_key)
        require_all(n_left, len(drawn.sample_id), "a batch was drawn")
    return found


def _sorted(rows: list[Any], column: str) -> list[Any]:
    """Sort rows by a column, ties by hash; neither a join nor SKIP LOCKED promises an order."""
    place = operator.itemgetter(Drawn._fields.index(column))
    try:
        ordered = sorted(rows, key=place)
        if len(set(map(place, rows))) < len(rows):
            ordered.sort(key=lambda row: (place(row), _HASH(row)[race.TIE], _ID(row)))
    except TypeError as exc:
        pool.as_floats([place(row) for row in rows])  # raises for a value that is no number
        raise tampered("a weight or key is missing in the pool") from exc
    return ordered


def _by_key(rows: list[Any]) -> tuple[list[Any], Floats]:
    """Sort rows by race key, ties by hash; return them and their keys."""
    keys = pool.as_floats(list(map(_KEY, rows)))
    if race.is_ascending(keys):  # no tie, and none is missing
        return rows, keys
    rows = _sorted(rows, "race_key")
    return rows, pool.as_floats(list(map(_KEY, rows)))


def _arrivals(tx: Transaction, clock: float, n: int, *, by_tie: bool) -> tuple[list[Any], Stretch]:
    """Claim the next n arrivals of the race; return them in order, and their part of the race.

    Raises:
        _TiedAtTheEnd: If the last arrival has the same key as the next one, and `by_tie` is False.
    """
    dialect = tx.backend
    by_key = queries.claims.first_in_race_by_tie if by_tie else queries.claims.first_in_race
    build, limit = (queries.claims.whole_pool, LARGEST_INT) if n == EVERYTHING else (by_key, n)
    found, all_keys = _by_key(
        _head(tx, build(dialect), limit + (not dialect.supports_deleting_claims))
    )
    arrivals, keys = found[:limit], all_keys[:limit]
    if dialect.supports_deleting_claims:
        stretch = seen(arrivals, keys, clock)
    else:
        stretch = Stretch(keys, clock, all_keys[limit] if len(found) > limit else math.inf)
    if stretch.ends_in_a_tie and not by_tie:
        raise _TiedAtTheEnd
    return arrivals, stretch


def _leave_up_to(tx: Transaction, ids: Sequence[int], stretch: Stretch) -> None:
    """Take the arrivals out of the pool; those with a tied last key one by one."""
    is_tied = stretch.ends_in_a_tie
    last_key = float(stretch.keys[-1])
    last = np.flatnonzero(stretch.keys == last_key).tolist() if is_tied else []
    tx.execute(queries.pool.leave_up_to(), last_key=last_key, last_id=0 if is_tied else _NO_ID)
    pool.leave(tx, [ids[i] for i in last], [last_key] * len(last))


def _head(tx: Transaction, statement: sa.Select[Any], limit: int) -> list[Any]:
    """Claim the first `limit` rows of a statement, with the columns of `Drawn`."""
    return list(tx.execute(statement, limit=limit).tuples()) if limit > 0 else []


def _write(
    tx: Transaction,
    state: RaceState,
    drawn: Drawn,
    stretch: Stretch,
    *,
    n_heaviest: int,
    terms: Terms,
) -> Claim:
    """Store the batch and its draws, the heaviest first; the arrivals leave the pool."""
    drawn_by, n = worker_id(), len(drawn.sample_id)
    batch = {
        "worker_id": drawn_by,
        "iteration": state.iteration,
        "size": n,
        "clock_before": stretch.begin,
        "clock": stretch.end,
        "n_argmax": n_heaviest,
        **terms.columns(),
    }
    opened = tx.execute(queries.batches.insert_batch(), **batch).one()
    tx.reach(opened.drawn_tick)
    leave, keys = not tx.backend.supports_deleting_claims and n > n_heaviest, stretch.keys
    n_moved = 0
    if leave and not stretch.ends_in_a_tie and race.is_ascending(keys):
        # One statement copies the arrivals within the database, in the order of their keys.
        up_to = {"last_key": float(keys[-1]), "last_id": _NO_ID}
        first = n_heaviest - driver.next_place(tx.connection)
        n_moved = tx.execute(
            queries.batches.insert_arrivals(), batch=opened.id, first=first, **up_to
        ).rowcount
    columns = {
        "position": range(n),
        "sample_id": drawn.sample_id,
        "race_key": drawn.race_key,
        "weight": drawn.weight,
    }
    if n_moved:
        columns = {name: values[:n_heaviest] for name, values in columns.items()}
    statement = queries.batches.insert_draws(tx.backend)
    n_written = (
        tx.execute_each(statement, queries.params.INCOMING_DRAWS, columns, batch=opened.id)
        if n > n_moved
        else 0
    )
    require_all(n_moved + n_written, n, "a batch was written")
    if leave:
        _leave_up_to(tx, drawn.sample_id[n_heaviest:], stretch)
    return Claim(int(opened.id), drawn_by, opened.drawn_at)
