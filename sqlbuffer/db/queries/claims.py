"""SQL of a claim: the rows of the pool that a draw takes, and their samples, in one statement."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import Dialect
from sqlbuffer.db.backends.hot import hot
from sqlbuffer.db.queries.params import BUFFER, CONTENT, NEVER, STANDING, TIE
from sqlbuffer.db.schema import pool, samples, workers


def _head(dialect: Dialect, statement: sa.Select[Any], *, by_key: bool = True) -> sa.Select[Any]:
    """Claim the head of the pool, then look the samples up.

    If claims may overlap, a statement that claims `by_key` also returns the keys around its rows.
    """
    limited = statement.where(pool.c.buffer_id == BUFFER).limit(
        bindparam("limit", type_=sa.Integer)
    )
    claiming, head = dialect.claim(limited, pool)
    found = claiming.with_only_columns(
        head.c.sample_id,
        head.c.race_key,
        head.c.weight,
        head.c.entries,
        samples.c.source,
        # The score of the weight: during a refresh the sample may have a newer one. Uniform weights
        # come from no score.
        sa.func.coalesce(head.c.score, samples.c.score).label("score"),
        samples.c.reward,
        samples.c.hash,
        samples.c.requeues,
        *CONTENT,
    ).join_from(head, samples, samples.c.id == head.c.sample_id)
    if not (by_key and dialect.supports_deleting_claims):
        return found
    around = _around(head)
    return found.add_columns(*around.c).join(around, sa.true())


def _around(claimed: sa.FromClause) -> sa.CTE:
    """Return the keys around the claimed rows when their statement began: one row.

    It sees the claimed rows, and those that other draws have claimed without a commit. A statement
    of its own would miss rows that other draws have committed since, and mix up both.

    Materialised: otherwise PostgreSQL would look around for each claimed row, 15 ms for 64 of them
    instead of 1 ms.
    """
    arrives = claimed.c.race_key < NEVER
    ends = select(
        sa.func.min(claimed.c.race_key).filter(arrives).label("first"),
        sa.func.max(claimed.c.race_key).filter(arrives).label("last"),
        select(sa.func.max(workers.c.clock))
        .where(workers.c.buffer_id == BUFFER)
        .scalar_subquery()
        .label("clock"),
    )
    span = ends.cte("span").prefix_with("MATERIALIZED")
    key = pool.c.race_key

    def found(what: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        return select(what).where(pool.c.buffer_id == BUFFER, *conditions)

    def edge(
        order: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]
    ) -> sa.ScalarSelect[Any]:
        return found(key, *conditions).order_by(order).limit(1).correlate(span).scalar_subquery()

    n_between = (
        found(sa.func.count(), key > span.c.first, key < span.c.last)
        .correlate(span)
        .scalar_subquery()
    )
    n_at_last = found(sa.func.count(), key == span.c.last).correlate(span).scalar_subquery()
    around = select(
        span.c.clock,
        edge(key.desc(), key > span.c.clock, key < span.c.first).label("key_before"),
        n_between.label("n_between"),
        n_at_last.label("n_at_last"),
        edge(key, key > span.c.last, key < NEVER).label("key_after"),
    )
    return around.cte("around").prefix_with("MATERIALIZED")


@hot
def first_in_race(dialect: Dialect) -> sa.Select[Any]:
    """The next `limit` arrivals of the race: one range of the pool's own order.

    SELECT race_key, sample_id, weight FROM pool
    WHERE buffer_id = :buffer AND race_key < 'Infinity'
    ORDER BY race_key, sample_id LIMIT :limit
    """
    ordered = STANDING.where(pool.c.race_key < NEVER).order_by(
        pool.c.buffer_id, pool.c.race_key, pool.c.sample_id
    )
    return _head(dialect, ordered)


@hot
def first_in_race_by_tie(dialect: Dialect) -> sa.Select[Any]:
    """The next `limit` arrivals in the order of key and hash, for equal keys at the end of a batch.

    Equal keys are too rare to make every draw sort by hashes: that took 0.35 ms for 512 samples, of
    SQLite's 5 ms.
    """
    # Looked up for each arrival, not joined: a claim selects from the pool alone.
    tied = select(TIE.label("tie")).where(samples.c.id == pool.c.sample_id).correlate(pool)
    tie = tied.scalar_subquery()
    order = (pool.c.buffer_id, pool.c.race_key, tie, pool.c.sample_id)
    return _head(dialect, STANDING.where(pool.c.race_key < NEVER).order_by(*order))


@hot
def first_by_score(dialect: Dialect) -> sa.Select[Any]:
    """The `limit` best scores of samples marked as top, equal ones by hash: one range of an index.

    Scores and not weights: weights are rounded and bounded, and many scores may share one.

    SELECT race_key, sample_id, weight FROM pool
    WHERE buffer_id = :buffer AND top
    ORDER BY score DESC, tie DESC, sample_id DESC LIMIT :limit
    """
    order = (pool.c.buffer_id, pool.c.score, pool.c.tie, pool.c.sample_id)
    ordered = STANDING.where(pool.c.top).order_by(*(column.desc() for column in order))
    return _head(dialect, ordered, by_key=False)


@hot
def whole_pool(dialect: Dialect) -> sa.Select[Any]:
    """All waiting samples, with or without a weight."""
    return _head(dialect, STANDING.order_by(pool.c.buffer_id, pool.c.race_key, pool.c.sample_id))
