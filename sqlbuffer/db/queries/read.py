"""Samples as users read them: the pool, all labels, all rows, the best samples and reward."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.queries import objective
from sqlbuffer.db.queries.params import BUFFER, CONTENT
from sqlbuffer.db.schema import pool, samples

Columns = Mapping[str, sa.ColumnElement[Any]]
"""Columns by the names that a user's condition has for them."""

_ONE: sa.Label[Any] = sa.literal_column("1").label("one")


@functools.cache
def waiting_samples() -> sa.Select[Any]:
    """Return all waiting samples with their weights, by id."""
    own = (samples.c.id, samples.c.hash, samples.c.source, samples.c.score)
    return (
        select(*own, *CONTENT, pool.c.weight)
        .join_from(pool, samples, samples.c.id == pool.c.sample_id)
        .where(pool.c.buffer_id == BUFFER)
        .order_by(samples.c.id)
    )


@functools.cache
def labelled_samples() -> sa.Select[Any]:
    """Return all samples with a reward, by id."""
    return (
        select(*CONTENT, samples.c.reward)
        .where(samples.c.buffer_id == BUFFER)
        .where(samples.c.reward.is_not(None))
        .order_by(samples.c.id)
    )


def _labelled(columns: Columns) -> list[sa.Label[Any]]:
    return [column.label(name) for name, column in columns.items()]


def _literal(where: str) -> str:
    """Return SQL of the user in which SQLAlchemy finds no parameters, on lines of its own."""
    return "\n{}\n".format(where.replace(":", r"\:"))


def condition(where: str, columns: Columns) -> sa.ColumnElement[bool] | sa.TextClause:
    """Return the user's condition in parentheses, next to other conditions.

    Without columns it is on those of `samples`, and indexes serve it as they serve the others. With
    them it has a scope of its own, so that no other table of the statement has the same names:
    EXISTS (SELECT 1 FROM (SELECT samples.text AS sample, ...) AS samples WHERE (condition)).
    """
    inner = sa.text(f"({_literal(where)})")
    if not columns:
        return inner
    named = select(*_labelled(columns)).correlate(samples).subquery("samples")
    return sa.exists(select(_ONE).select_from(named).where(inner))


def condition_alone(where: str, columns: Columns) -> sa.Select[Any]:
    """Parse the user's condition without parentheses around it; no rows.

    Each parenthesis of a text that parses here has its counterpart in the text. Between the
    parentheses of `condition` such a text can therefore not close them, whatever it is.
    """
    named = select(*_labelled(columns)).subquery("samples") if columns else samples
    return select(_ONE).select_from(named).where(sa.text(_literal(where))).limit(0)


def count_of(statement: sa.Select[Any]) -> sa.Select[Any]:
    """How many rows a statement has, without its order, its limit and what it reads of each row."""
    n = sa.func.count().label("n")
    counted = statement.with_only_columns(n, maintain_column_froms=True)
    return counted.order_by(None).limit(None)


def kinds_of(value: sa.ColumnElement[str]) -> sa.Select[Any]:
    """The words for the types of JSON that a value of the metas has, without those of NULL."""
    return (
        select(value.label("kind"))
        .where(samples.c.buffer_id == BUFFER, value.is_not(None), value != "null")
        .distinct()
    )


def has_value_without(value: sa.ColumnElement[Any], other: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """A row if a sample has one value and not the other."""
    return (
        select(_ONE)
        .where(samples.c.buffer_id == BUFFER, value.is_not(None), other.is_(None))
        .limit(1)
    )


def best(by: str, direction: str, *columns: Any, of_earlier: bool = False) -> sa.Select[Any]:
    """Columns of the `limit` best samples by "reward" or "score", best first, equals by hash.

    Args:
        by: The column; a higher score is better in either direction.
        direction: "maximize" or "minimize", which reward is better.
        *columns: The columns to return.
        of_earlier: Go by the rewards of the objective named by the parameter `objective`.
    """
    if of_earlier:
        of = objective.newest_rewards()
        return (
            select(*columns, of.c.earlier)
            .join_from(of, samples, samples.c.id == of.c.earlier_of)
            .order_by(_best_first(of.c.earlier, direction), samples.c.hash.desc())
            .limit(bindparam("limit", type_=sa.Integer))
        )
    column = samples.c[by]
    best_first = _best_first(column, direction) if by == "reward" else column.desc()
    return (
        select(*columns)
        .where(samples.c.buffer_id == BUFFER)
        .where(column.is_not(None))
        .order_by(best_first, samples.c.hash.desc())
        .limit(bindparam("limit", type_=sa.Integer))
    )


def best_reward(direction: str) -> sa.Select[Any]:
    """Return the best reward: the highest, or the lowest under "minimize"."""
    return (
        select(samples.c.reward)
        .where(samples.c.buffer_id == BUFFER)
        .where(samples.c.reward.is_not(None))
        .order_by(_best_first(samples.c.reward, direction))
        .limit(1)
    )


def best_reward_before(training: Any | None, direction: str) -> sa.Select[Any]:
    """Return the best reward that was stored before a training.

    Args:
        training: A row of `newest_training`, or None for the best of all.
        direction: "maximize" or "minimize".
    """
    best = best_reward(direction)
    if training is None:
        return best
    # Rewards without a tick were stored by an older release: before all that have one.
    has_no_tick = samples.c.rewarded_tick.is_(None)
    if training.trained_tick is None:
        return best.where(has_no_tick, samples.c.rewarded_at <= training.trained_at)
    return best.where(sa.or_(has_no_tick, samples.c.rewarded_tick < training.trained_tick))


def _best_first(column: Any, direction: str) -> Any:
    return column.asc() if direction == "minimize" else column.desc()
