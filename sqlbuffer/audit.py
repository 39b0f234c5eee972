"""The integrity audit: what foreign keys and counts would have enforced, checked when somebody asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import sqlalchemy as sa

from sqlbuffer import pool, statements
from sqlbuffer.attachment import Attachment
from sqlbuffer.race import FLOOR
from sqlbuffer.schema import batches, buffers, draws, samples, workers
from sqlbuffer.schema import pool as pool_table


def check(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Return what is wrong with a buffer, one sentence each; nothing when it is sound. Reads every row."""
    problems = attachment.database.dialect.damage(connection)
    for rule in (_counters, _membership, _keys, _weights, _batches):
        problems += rule(connection, attachment)
    return problems


def _count(connection: sa.Connection, *conditions: Any) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).where(*conditions)) or 0)


def _counters(connection: sa.Connection, attachment: Attachment) -> list[str]:
    totals = attachment.run(connection, statements.totals()).one()
    ours, waits = samples.c.buffer_id == attachment.buffer_id, pool_table.c.buffer_id == attachment.buffer_id
    is_open = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
    in_part = sa.exists().where(draws.c.batch_id == batches.c.id, draws.c.reported)
    expected = {
        "waiting": (pool.size(attachment, totals), _count(connection, waits)),
        "unscored": (totals.unscored, _count(connection, waits, pool_table.c.weight.is_(None))),
        "unscorable": (totals.unscorable, _count(connection, waits, pool_table.c.weight == 0.0)),
        "stored": (totals.added + totals.recorded, _count(connection, ours)),
        "measured": (totals.measured, _count(connection, ours, samples.c.reward.is_not(None))),
        "failed": (
            totals.failed,
            _count(connection, ours, samples.c.reward.is_(None), samples.c.rewarded_at.is_not(None)),
        ),
        "claimed": (
            totals.drawn - totals.released - totals.settled,
            _count(
                connection,
                batches.c.buffer_id == attachment.buffer_id,
                draws.c.batch_id == batches.c.id,
                ~draws.c.reported,
                is_open,
            ),
        ),
        "batches drawn": (
            totals.batches,
            _count(
                connection,
                batches.c.buffer_id == attachment.buffer_id,
                sa.or_(batches.c.released_at.is_(None), in_part),
            ),
        ),
    }
    return [
        f"the counters say {counted} samples {name}, the tables {found}."
        for name, (counted, found) in expected.items()
        if counted != found
    ]


def _membership(connection: sa.Connection, attachment: Attachment) -> list[str]:
    waiting = sa.select(pool_table.c.sample_id).where(pool_table.c.buffer_id == attachment.buffer_id)
    claimed = (
        sa.select(draws.c.sample_id)
        .join_from(draws, batches, batches.c.id == draws.c.batch_id)
        .where(batches.c.buffer_id == attachment.buffer_id)
        .where(batches.c.settled_at.is_(None), batches.c.released_at.is_(None), ~draws.c.reported)
    )
    queued = sa.select(samples.c.id).where(samples.c.buffer_id == attachment.buffer_id, samples.c.queued)
    in_pool = connection.scalars(waiting).all()
    in_claims = connection.scalars(claimed).all() if attachment.consumes else []  # elsewhere they go on waiting
    marked = set(connection.scalars(queued))
    problems = []
    if len(set(in_pool)) != len(in_pool):
        problems.append(f"{len(in_pool) - len(set(in_pool))} samples wait more than once.")
    if twice := set(in_pool) & set(in_claims):
        problems.append(f"{len(twice)} samples wait and are claimed at once, as sample {min(twice)}.")
    if lost := marked - set(in_pool) - set(in_claims):
        problems.append(f"{len(lost)} samples are marked as queued but neither wait nor are claimed, as {min(lost)}.")
    if extra := (set(in_pool) | set(in_claims)) - marked:
        problems.append(f"{len(extra)} samples wait or are claimed but are not marked as queued, as {min(extra)}.")
    return problems


def _keys(connection: sa.Connection, attachment: Attachment) -> list[str]:
    waits = pool_table.c.buffer_id == attachment.buffer_id
    never = pool_table.c.race_key == statements.NEVER
    weightless = sa.or_(pool_table.c.weight.is_(None), pool_table.c.weight == 0.0)
    problems = []
    if n := _count(connection, waits, never, ~weightless):
        problems.append(f"{n} waiting samples have a weight but no place in the race.")
    if n := _count(connection, waits, ~never, weightless):
        problems.append(f"{n} waiting samples stand in the race without a weight.")
    if n := _count(connection, waits, sa.or_(pool_table.c.weight < 0.0)):
        problems.append(f"{n} waiting samples have a negative weight.")
    return problems


def _weights(connection: sa.Connection, attachment: Attachment) -> list[str]:
    state = connection.execute(sa.select(buffers).where(buffers.c.id == attachment.buffer_id)).one()
    if state.refresh_version != state.refreshed_version:
        return []  # a refresh is under way: weights follow when it ends
    rows = connection.execute(
        sa.select(pool_table.c.weight, samples.c.score)
        .join_from(pool_table, samples, samples.c.id == pool_table.c.sample_id)
        .where(pool_table.c.buffer_id == attachment.buffer_id)
        .where(pool_table.c.weight.is_not(None))
    ).all()
    scores, weights = pool.as_floats([row.score for row in rows]), pool.as_floats([row.weight for row in rows])
    expected = attachment.weights(scores, state.base_score)
    # Shifted weights carry the rounding of scores of their size.
    size = float(np.nanmax(np.abs(scores), initial=0.0)) + abs(state.base_score or 0.0)
    off = np.abs(weights - expected) > 1e-9 * np.abs(expected) + 1e-12 * size + FLOOR * 1e-3
    return [f"{int(off.sum())} weights are not those of their scores."] if off.any() else []


def _batches(connection: sa.Connection, attachment: Attachment) -> list[str]:
    counted = (
        sa.select(batches.c.id)
        .outerjoin_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == attachment.buffer_id)
        .group_by(batches.c.id, batches.c.size)
        .having(sa.func.count(draws.c.sample_id) != batches.c.size)
    )
    problems = [f"batch {batch} does not have the draws that its size says." for batch in connection.scalars(counted)]
    strangers = _count(
        connection,
        batches.c.buffer_id == attachment.buffer_id,
        batches.c.settled_at.is_(None),
        batches.c.released_at.is_(None),
        ~sa.exists().where(workers.c.buffer_id == batches.c.buffer_id, workers.c.id == batches.c.worker_id),
    )
    if strangers:
        problems.append(f"{strangers} open batches belong to workers that are not there.")
    return problems
