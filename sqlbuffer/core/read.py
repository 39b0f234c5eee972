"""What a buffer can tell: its size and numbers, its waiting samples, its labels, its best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from sqlbuffer._integrity import numbers_of
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import require_choice, require_count
from sqlbuffer.core import pool
from sqlbuffer.core.add import hashes_of
from sqlbuffer.core.batch import content
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.schema import pool as pool_table
from sqlbuffer.db.schema import predictors, samples
from sqlbuffer.records import Staleness, Stats


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """All that waits in the pool, in the order in which it was stored.

    Attributes:
        ids: (n,) int64, numbers of the samples.
        hashes: Their hashes.
        samples: The n samples.
        sources: Names of the generators that added them.
        scores: (n,) float64, NaN where there is none.
        weights: (n,) float64, NaN where there is no score yet.
    """

    ids: Ints
    hashes: list[bytes]
    samples: list[Any]
    sources: list[str]
    scores: Floats
    weights: Floats


def size(tx: Transaction) -> int:
    """Return the number of samples in the pool."""
    return pool.size(tx.buffer, tx.execute(queries.totals()).one())


def stats(tx: Transaction) -> Stats:
    """Return the buffer in numbers."""
    row = tx.own_row(queries.stats())
    with numbers_of(f"buffer {row.name!r}"):
        return Stats(
            name=row.name,
            kind=row.kind,
            mode=row.mode,
            iteration=int(row.iterations),
            waiting=pool.size(tx.buffer, row),
            unscored=int(row.unscored),
            unscorable=int(row.unscorable),
            stored=int(row.added + row.recorded),
            claimed=int(row.drawn - row.released - row.settled),
            drawn=int(row.drawn - row.released),
            requeued=int(row.requeued),
            removed=int(row.removed),
            measured=int(row.measured),
            failed=int(row.failed),
            refused=int(row.refused),
            best_reward=row.best_reward,
            score_version=int(row.score_version),
            refreshed_version=int(row.refreshed_version),
            created_at=row.created_at,
            key=row.key,
            max_size=None if row.max_size is None else int(row.max_size),
        )


def changes(tx: Transaction) -> tuple[Any, ...]:
    """Return numbers of which one is another after every transaction that has changed what waits."""
    return tuple(tx.execute(queries.changes()).one())


def staleness(tx: Transaction) -> list[Staleness]:
    """Return how many samples wait with a score of each version, those without a score first."""
    rows = tx.execute(queries.staleness()).all()
    with numbers_of(f"the version of a score of buffer {tx.buffer.name!r}"):
        return sorted(
            (Staleness(*row) for row in rows),
            key=lambda it: int(-1 if it.score_version is None else it.score_version),
        )


def waiting(tx: Transaction) -> Waiting:
    """Return the whole pool, decoded."""
    tx.note_ids()
    rows = tx.connection.execute(
        sa.select(
            samples.c.id,
            samples.c.hash,
            samples.c.source,
            samples.c.score,
            samples.c.text,
            samples.c.payload,
            samples.c.codec,
            pool_table.c.weight,
        )
        .join_from(pool_table, samples, samples.c.id == pool_table.c.sample_id)
        .where(pool_table.c.buffer_id == tx.buffer.buffer_id)
        .order_by(samples.c.id)
    ).all()
    return Waiting(
        ids=np.array([row.id for row in rows], dtype=np.int64),
        hashes=[row.hash for row in rows],
        samples=content(rows, tx.buffer),
        sources=[row.source for row in rows],
        scores=pool.as_floats([row.score for row in rows]),
        weights=pool.as_floats([row.weight for row in rows]),
    )


def labelled(tx: Transaction) -> tuple[list[Any], Floats]:
    """Return all samples with a reward, in the order in which they were stored, and the rewards, (n,) float64."""
    rows = tx.connection.execute(
        sa.select(samples.c.text, samples.c.payload, samples.c.codec, samples.c.reward)
        .where(samples.c.buffer_id == tx.buffer.buffer_id)
        .where(samples.c.reward.is_not(None))
        .order_by(samples.c.id)
    ).all()
    return content(rows, tx.buffer), pool.as_floats([row.reward for row in rows])


def rewards_of(tx: Transaction, given: Sequence[Any]) -> list[float | None]:
    """Return the stored reward of each sample: NaN where its measurement failed, None where there was none."""
    hashes = hashes_of(tx.buffer, given)
    known = sorted({digest for digest in hashes if digest is not None})
    statement = queries.samples_by_hash(tx.backend)
    rows = tx.execute_with(statement, queries.INCOMING_HASHES, {"hash": known}) if known else []
    measured = [row for row in rows if row.rewarded_at is not None]
    rewards = pool.as_floats([row.reward for row in measured]).tolist()
    reward = dict(zip([row.hash for row in measured], rewards, strict=True))
    return [None if digest is None else reward.get(digest) for digest in hashes]


def samples_of(tx: Transaction, ids: Sequence[int]) -> dict[int, Any]:
    """Return the samples of these numbers, by number."""
    known = {"sample_id": sorted(set(ids))}
    statement = queries.scored(tx.backend)
    rows = tx.execute_with(statement, queries.INCOMING_IDS, known).all() if ids else []
    return dict(zip([row.id for row in rows], content(rows, tx.buffer), strict=True))


def incumbent(tx: Transaction) -> float | None:
    """Return the best reward stored before the newest predictor was; before the first predictor, the best of all."""
    newest = tx.connection.execute(
        sa.select(predictors.c.trained_at, predictors.c.trained_tick)
        .where(predictors.c.buffer_id == tx.buffer.buffer_id)
        .order_by(predictors.c.version.desc())
        .limit(1)
    ).one_or_none()
    best = (
        sa.select(samples.c.reward)
        .where(samples.c.buffer_id == tx.buffer.buffer_id)
        .where(samples.c.reward.is_not(None))
        .order_by(samples.c.reward.desc())
        .limit(1)
    )
    if newest is not None:
        has_no_tick = samples.c.rewarded_tick.is_(
            None
        )  # stored by an older release: before all that have one
        is_older = sa.or_(has_no_tick, samples.c.rewarded_tick < newest.trained_tick)
        if newest.trained_tick is None:
            is_older = sa.and_(has_no_tick, samples.c.rewarded_at <= newest.trained_at)
        best = best.where(is_older)
    found = tx.connection.scalar(best)
    return None if found is None else float(pool.as_floats([found])[0])


def top(tx: Transaction, n: int, *, by: str) -> list[dict[str, Any]]:
    """Return the n best samples as dicts, the best first."""
    by = require_choice(by, 'top goes by "reward" or "score"', ("reward", "score"))
    n = require_count(n, "n must be a number of samples")
    tx.note_ids()
    rows = tx.rows(queries.best(by, samples), limit=n)
    columns = (
        "id",
        "source",
        "reward",
        "score",
        "created_iteration",
        "created_at",
        "rewarded_at",
        "meta",
    )
    return [
        {"sample": sample, **{name: getattr(row, name) for name in columns}}
        for sample, row in zip(content(rows, tx.buffer), rows, strict=True)
    ]


def table(tx: Transaction) -> dict[str, list[Any]]:
    """Return all samples as columns: what `to_pandas` and `to_arrow` show."""
    tx.note_ids()
    names = "id text source queued requeues score score_version reward created_iteration".split()
    times = "created_at scored_at rewarded_at".split()
    columns = [samples.c[name] for name in names + times]
    rows = tx.connection.execute(
        sa.select(*columns).where(samples.c.buffer_id == tx.buffer.buffer_id).order_by(samples.c.id)
    ).all()
    return {name: [row[i] for row in rows] for i, name in enumerate(names + times)}
