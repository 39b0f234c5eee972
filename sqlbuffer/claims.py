"""Drawing: a batch is claimed in one short transaction, exactly, from an index."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from sqlbuffer import pool, race, statements
from sqlbuffer.attachment import Attachment, RaceState
from sqlbuffer.batches import Batch
from sqlbuffer.dialect import now
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.records import SampleInfo
from sqlbuffer.schema import batches
from sqlbuffer.workers import worker_id

EVERYTHING = -1
_NO_LIMIT = 2**31 - 1


def claim(attachment: Attachment, n: int, *, pct_argmax: float = 0.0) -> Batch:
    """Draw a batch: the heaviest `round(n * pct_argmax)` samples, then the next arrivals of the race."""
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < EVERYTHING:
        raise InvalidArgument(f"n must be a number of samples, or -1 for all that wait; got {n!r}.")
    if not 0.0 <= pct_argmax <= 1.0:
        raise InvalidArgument(f"pct_argmax is a share between 0 and 1, got {pct_argmax!r}.")
    n_heaviest = round(max(n, 0) * pct_argmax)
    draw = functools.partial(_draw, attachment=attachment, n=int(n), n_heaviest=n_heaviest)
    while (batch := attachment.database.write(draw)) is None:
        attachment.database.write(functools.partial(pool.widen_top, attachment=attachment, n=n_heaviest))
    if not attachment.consumes and race.is_blurred(batch.clock, batch.weights):
        attachment.database.write(functools.partial(pool.turn_back, attachment=attachment))
    return batch


def _draw(connection: sa.Connection, *, attachment: Attachment, n: int, n_heaviest: int) -> Batch | None:
    """Draw, or return None where fewer are marked as top than are wanted of them."""
    state = attachment.race(connection)
    dialect = attachment.database.dialect
    heaviest = _head(connection, attachment, statements.first_by_weight(dialect), n_heaviest, order=_by_weight)
    if len(heaviest) < n_heaviest and state.top_weight != 0.0:
        return None
    pool.leave(connection, attachment, heaviest)
    if n == EVERYTHING:
        arrivals = _head(connection, attachment, statements.whole_pool(dialect), _NO_LIMIT, order=_by_key)
    else:
        arrivals = _head(connection, attachment, statements.first_in_race(dialect), n - len(heaviest), order=_by_key)
    pool.leave(connection, attachment, arrivals)
    rows = heaviest + arrivals
    keys = pool.as_floats([row.race_key for row in arrivals if row.race_key < math.inf])
    start = _start(connection, attachment, state.clock, keys)
    clock = max(state.clock, keys[-1]) if len(keys) else state.clock
    info = _info(connection, attachment, rows, n_heaviest=len(heaviest), start=start)
    if not rows:
        return Batch(attachment, rows, id=None, iteration=state.iteration, clock=clock, info=info)
    batch_id = _write(connection, attachment, state, rows, start=start, clock=clock)
    if not attachment.consumes:
        after = state._replace(clock=clock, turn=state.turn + 1)
        weights = pool.as_floats([row.weight for row in rows])
        new_keys = pool.join_race(attachment, after, rows, weights)
        pool.enter(connection, attachment, after, [row.sample_id for row in rows], new_keys, weights)
    attachment.count(
        connection,
        clock=clock,
        batches=1,
        drawn=len(rows),
        unscored=-sum(row.weight is None for row in rows) if attachment.consumes else 0,
        unscorable=-sum(row.weight == 0 for row in rows) if attachment.consumes else 0,
    )
    return Batch(attachment, rows, id=batch_id, iteration=state.iteration, clock=clock, info=info)


def _by_weight(row: Any) -> tuple[float, int]:
    return -row.weight, -row.sample_id


def _by_key(row: Any) -> tuple[float, int]:
    return row.race_key, row.sample_id


def _head(
    connection: sa.Connection,
    attachment: Attachment,
    statement: sa.Select[Any],
    limit: int,
    *,
    order: Callable[[Any], tuple[float, int]],
) -> list[Any]:
    """Claim the head of the pool, sorted: neither a join nor SKIP LOCKED promises an order."""
    return sorted(attachment.run(connection, statement, limit=limit), key=order) if limit > 0 else []


def _start(connection: sa.Connection, attachment: Attachment, clock: float, keys: race.Floats) -> float:
    """Return the clock from which this draw's probabilities count.

    Keys behind the clock belong to a batch that was released: they count from where that batch's draw began.
    """
    if not len(keys) or keys[0] > clock:
        return clock
    released = connection.execute(
        sa.select(batches.c.clock_before, batches.c.clock)
        .where(batches.c.buffer_id == attachment.buffer_id)
        .where(batches.c.released_at.is_not(None))
        .order_by(batches.c.id.desc())
        .limit(1)
    ).one_or_none()
    span = 0.0 if released is None else released.clock - released.clock_before
    return min(clock - span, float(keys[0]))


def _info(
    connection: sa.Connection, attachment: Attachment, rows: Sequence[Any], *, n_heaviest: int, start: float
) -> SampleInfo:
    argmax = np.arange(len(rows)) < n_heaviest
    threshold = attachment.run(connection, statements.next_key()).scalar()
    weights = pool.as_floats([row.weight for row in rows])
    probability = race.inclusion_probability(weights, start, math.inf if threshold is None else threshold)
    return SampleInfo(
        probability=np.where(argmax, 1.0, probability),
        argmax=argmax,
        reward=pool.as_floats([row.reward for row in rows]),
    )


def _write(
    connection: sa.Connection,
    attachment: Attachment,
    state: RaceState,
    rows: Sequence[Any],
    *,
    start: float,
    clock: float,
) -> int:
    batch_id: int = connection.execute(
        sa.insert(batches)
        .values(
            buffer_id=attachment.buffer_id,
            worker_id=worker_id(),
            iteration=state.iteration,
            size=len(rows),
            clock_before=start,
            clock=clock,
            drawn_at=now(),
        )
        .returning(batches.c.id)
    ).scalar_one()
    columns = {
        "position": range(len(rows)),
        "sample_id": [row.sample_id for row in rows],
        "race_key": [row.race_key for row in rows],
        "weight": [row.weight for row in rows],
    }
    statement = statements.insert_draws(attachment.database.dialect)
    attachment.run_with(connection, statement, statements.INCOMING_DRAWS, columns, batch=batch_id)
    return batch_id
