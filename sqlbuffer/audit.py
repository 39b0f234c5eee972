"""The integrity audit: what foreign keys and counts would have enforced, checked when somebody asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sqlbuffer import pool, statements
from sqlbuffer.attachment import Attachment
from sqlbuffer.database import Database
from sqlbuffer.errors import numbers_of, printable, shown
from sqlbuffer.names import LARGEST_INT
from sqlbuffer.schema import batches, buffers, checkpoints, draws, jobs, metrics, predictors, samples, workers
from sqlbuffer.schema import pool as pool_table
from sqlbuffer.workers import LEDGER


def check(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Return what is wrong with a buffer, one sentence each; nothing when it is sound. Reads every row.

    What is wrong with the storage is said too, for which the whole database is read.
    """
    return [*damage(connection, attachment.database), *check_buffer(connection, attachment)]


def damage(connection: sa.Connection, database: Database) -> list[str]:
    """Return what is wrong with the storage that all buffers share, one sentence each."""
    return list(map(printable, database.dialect.damage(connection)))


def check_buffer(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Return what is wrong with the rows of a buffer, whatever the storage that all buffers share is like."""
    problems: list[str] = []
    if wrong := wrong_types(connection, attachment):
        return wrong  # what else there may be is reckoned from these
    if wrong := _settings(connection, attachment):
        return list(map(printable, wrong))
    if not has_ledger(connection, attachment):
        return ["the row of the counters of the dead is missing: nothing can be counted without it."]
    for rule in (_counters, _membership, _keys, _weights, _batches, _ticks):
        problems += rule(connection, attachment)
    return list(map(printable, problems))  # SQLite names what a stranger has called a table


def of_buffer(attachment: Attachment, table: sa.Table) -> sa.ColumnElement[bool]:
    """Return which rows of a table are those of a buffer."""
    if table is buffers:
        return buffers.c.id == attachment.buffer_id
    if table is draws:
        return draws.c.batch_id.in_(sa.select(batches.c.id).where(batches.c.buffer_id == attachment.buffer_id))
    return table.c.buffer_id == attachment.buffer_id


_TABLES = (buffers, samples, pool_table, batches, draws, workers, predictors, jobs, checkpoints, metrics)


def wrong_types(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Return what of a buffer is stored as another type than its column has, one sentence for each column."""
    find = attachment.database.dialect.wrong_types
    return [words for table in _TABLES for words in find(connection, table, of_buffer(attachment, table))]


def _settings(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Find what the row of the buffer says and cannot be; what else is checked is reckoned from it."""
    row = attachment.own_row(connection, sa.select(buffers).where(of_buffer(attachment, buffers)))
    known, problems = attachment.settings, []
    for name, ours in (("kind", known.weighting.name), ("mode", known.mode), ("seed", str(known.seed))):
        if (stored := getattr(row, name)) != ours:
            problems.append(f"the buffer is stored with {name} {shown(stored)}, and was opened with {shown(ours)}.")
    versions = (row.refreshed_version, row.refresh_version, row.score_version)
    if not 0 <= versions[0] <= versions[1] <= versions[2] <= LARGEST_INT:
        problems.append(f"the versions of finished refresh, refresh and scores are {versions}, which cannot be.")
    newest = connection.scalar(
        sa.select(sa.func.max(predictors.c.version)).where(predictors.c.buffer_id == attachment.buffer_id)
    )
    if newest is not None and newest > row.score_version:
        problems.append(f"there is a predictor of version {newest}, but scores have only come to {row.score_version}.")
    if row.epoch < 0 or (row.max_size is not None and row.max_size < 1):
        problems.append(f"the buffer is stored with epoch {row.epoch} and max_size {row.max_size}, which cannot be.")
    return problems


def _count(connection: sa.Connection, *conditions: Any) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).where(*conditions)) or 0)


def has_ledger(connection: sa.Connection, attachment: Attachment) -> bool:
    """Tell whether the row to which the counters of the dead are added is there."""
    return _count(connection, workers.c.buffer_id == attachment.buffer_id, workers.c.id == LEDGER) == 1


def tallies(connection: sa.Connection, attachment: Attachment) -> dict[str, tuple[int, int]]:
    """Return what is counted, each as (what the counters say, what the tables have)."""
    totals = attachment.run(connection, statements.totals()).one()
    ours, waits = samples.c.buffer_id == attachment.buffer_id, pool_table.c.buffer_id == attachment.buffer_id
    is_open = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
    in_part = sa.exists().where(draws.c.batch_id == batches.c.id, draws.c.reported)
    return {
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


def _counters(connection: sa.Connection, attachment: Attachment) -> list[str]:
    return [
        f"the counters say {counted} samples {name}, the tables {found}."
        for name, (counted, found) in tallies(connection, attachment).items()
        if counted != found
    ]


class Members(NamedTuple):
    """Where the samples of a buffer are: ids that wait, are claimed, and are marked as either."""

    waiting: list[int]
    claimed: set[int]
    queued: set[int]


def members(connection: sa.Connection, attachment: Attachment) -> Members:
    """Find out where the samples are. Those claimed in replay mode go on waiting, and count as waiting only."""
    waiting = sa.select(pool_table.c.sample_id).where(pool_table.c.buffer_id == attachment.buffer_id)
    claimed = (
        sa.select(draws.c.sample_id)
        .join_from(draws, batches, batches.c.id == draws.c.batch_id)
        .where(batches.c.buffer_id == attachment.buffer_id)
        .where(batches.c.settled_at.is_(None), batches.c.released_at.is_(None), ~draws.c.reported)
    )
    queued = sa.select(samples.c.id).where(samples.c.buffer_id == attachment.buffer_id, samples.c.queued)
    return Members(
        list(connection.scalars(waiting)),
        set(connection.scalars(claimed)) if attachment.consumes else set(),
        set(connection.scalars(queued)),
    )


def _membership(connection: sa.Connection, attachment: Attachment) -> list[str]:
    in_pool, claimed, marked = members(connection, attachment)
    waiting = set(in_pool)
    problems = []
    if len(waiting) != len(in_pool):
        problems.append(f"{len(in_pool) - len(waiting)} samples wait more than once.")
    if twice := waiting & claimed:
        problems.append(f"{len(twice)} samples wait and are claimed at once, as sample {min(twice)}.")
    if lost := marked - waiting - claimed:
        problems.append(f"{len(lost)} samples are marked as queued but neither wait nor are claimed, as {min(lost)}.")
    if extra := (waiting | claimed) - marked:
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
    if n := _count(connection, waits, samples.c.id == pool_table.c.sample_id, pool_table.c.tie != statements.TIE):
        problems.append(f"{n} waiting samples have a tie that is not the end of their hash.")
    # NaN is beyond infinity in PostgreSQL; SQLite has none.
    if n := _count(connection, waits, sa.or_(pool_table.c.race_key == -math.inf, pool_table.c.race_key > math.inf)):
        problems.append(f"{n} waiting samples stand at a key that is no number.")
    if n := _count(connection, waits, pool_table.c.weight < 0.0):
        problems.append(f"{n} waiting samples have a negative weight.")
    return problems


def _weights(connection: sa.Connection, attachment: Attachment) -> list[str]:
    rows = connection.execute(
        sa.select(pool_table.c.weight, samples.c.score, pool_table.c.score.label("ranked"))
        .join_from(pool_table, samples, samples.c.id == pool_table.c.sample_id)
        .where(pool_table.c.buffer_id == attachment.buffer_id)
        .where(pool_table.c.weight.is_not(None))
    ).all()
    off = off_weights(connection, attachment, rows)
    problems = [f"{int(off.sum())} weights are not those of their scores."] if off.any() else []
    if n := mismarked(connection, attachment):
        problems.append(f"{n} waiting samples are marked as top and are not, or the other way round.")
    return problems


def mismarked(connection: sa.Connection, attachment: Attachment) -> int:
    """Return how many waiting samples have a mark of the top that their score does not say, or lack it."""
    least = buffers.c.top_score  # NULL: what marks there are mean nothing
    is_top = sa.and_(pool_table.c.weight > 0.0, sa.or_(least == -math.inf, pool_table.c.score >= least))
    of_this = (buffers.c.id == attachment.buffer_id, pool_table.c.buffer_id == buffers.c.id)
    return _count(connection, *of_this, least.is_not(None), pool_table.c.top != is_top)


def off_weights(connection: sa.Connection, attachment: Attachment, rows: Sequence[Any]) -> NDArray[np.bool_]:
    """Tell which rows have a `weight`, or a score in the pool, `ranked`, that is not that of the `score`."""
    state = attachment.own_row(connection, sa.select(buffers).where(of_buffer(attachment, buffers)))
    if state.refresh_version != state.refreshed_version:
        return np.zeros(len(rows), dtype=np.bool_)  # a refresh is under way: weights follow when it ends
    scores, weights, ranked = (
        pool.as_floats([getattr(row, name) for row in rows]) for name in ("score", "weight", "ranked")
    )
    weighting = attachment.settings.weighting
    expected = attachment.weights(scores, attachment.race_state(connection).base)
    # Sums are the same everywhere; the last bits of exponentials and powers depend on the processor.
    allowed = 1e-12 * np.abs(expected) if weighting.needs_score and not weighting.needs_base else 0.0
    is_scored = ~np.isnan(weights)
    off: NDArray[np.bool_] = is_scored & ~(np.abs(weights - expected) <= allowed)
    is_ranked = is_scored & (expected > 0.0) & weighting.needs_score
    return off | ~np.where(is_ranked, ranked == scores, np.isnan(ranked))


def _batches(connection: sa.Connection, attachment: Attachment) -> list[str]:
    counted = (
        sa.select(batches.c.id)
        .outerjoin_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == attachment.buffer_id)
        .group_by(batches.c.id, batches.c.size)
        .having(sa.func.count(draws.c.sample_id) != batches.c.size)
    )
    problems = [f"batch {batch} does not have the draws that its size says." for batch in connection.scalars(counted)]
    if strangers := connection.scalars(orphans(attachment)).all():
        problems.append(f"{len(strangers)} open batches belong to workers that are not there.")
    return problems


def newest_tick(connection: sa.Connection, attachment: Attachment) -> int:
    """Return the largest tick that stands in a row of the buffer, 0 where none does."""
    largest = [
        sa.select(sa.func.max(column)).where(column.table.c.buffer_id == attachment.buffer_id).scalar_subquery()
        for column in (
            *(samples.c.created_tick, samples.c.scored_tick, samples.c.rewarded_tick),
            *(batches.c.drawn_tick, batches.c.closed_tick, predictors.c.trained_tick),
        )
    ]
    with numbers_of(f"a logical time of buffer {attachment.name!r}"):
        return max(int(tick or 0) for tick in connection.execute(sa.select(*largest)).one())


def counted_tick(connection: sa.Connection, attachment: Attachment) -> int:
    """Return the largest tick of the workers of the buffer."""
    return int(attachment.run(connection, statements.next_tick()).scalar_one()) - 1


def _ticks(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Find what was stored in the future, and what has an order that cannot be."""
    problems = []
    if (newest := newest_tick(connection, attachment)) > (now := counted_tick(connection, attachment)):
        problems.append(f"something has the logical time {newest}, but the workers have only come to {now}.")
    ours = batches.c.buffer_id == attachment.buffer_id
    if n := _count(connection, ours, batches.c.closed_tick <= batches.c.drawn_tick):
        problems.append(f"{n} batches were closed before they were drawn.")
    early = sa.or_(samples.c.scored_tick < samples.c.created_tick, samples.c.rewarded_tick < samples.c.created_tick)
    if n := _count(connection, samples.c.buffer_id == attachment.buffer_id, early):
        problems.append(f"{n} samples were scored or measured before they were stored.")
    return problems


def orphans(attachment: Attachment) -> sa.Select[Any]:
    """Return the open batches of workers that are not there, the last first."""
    return (
        sa.select(batches.c.id)
        .where(batches.c.buffer_id == attachment.buffer_id)
        .where(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
        .where(~sa.exists().where(workers.c.buffer_id == batches.c.buffer_id, workers.c.id == batches.c.worker_id))
        .order_by(batches.c.id.desc())
    )
