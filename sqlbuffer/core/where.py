"""A user's condition on the samples of a buffer: checked, guarded, and explained if it fails."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from sqlbuffer._messages import printable, shown, summary
from sqlbuffer._validation import as_name, plain
from sqlbuffer.core.conditions import Condition, all_of, condition_of
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.meta_values import Form, Path, value_of_meta
from sqlbuffer.core.sql_condition import SqlCondition
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import first_line
from sqlbuffer.db.backends.json_values import JSON_KINDS, json_kind
from sqlbuffer.db.queries.table import OF_SAMPLES, OF_VIEW
from sqlbuffer.db.schema import samples
from sqlbuffer.errors import InvalidArgument, SqlBufferError

T = TypeVar("T")
Rows = TypeVar("Rows", bound=sa.Select[Any])

Where = str | sa.ColumnElement[bool] | Condition | list[Condition] | None
"""(column, operator, value), a list of these, SQL, or an expression of SQLAlchemy; None for all."""
Checked = SqlCondition | sa.ColumnElement[bool] | None
"""A condition that `as_where` has returned."""

_MEANT = {"reason": "error", "failed_at": "measured_at"}
"""Columns of other views and tables, and their names in `sample_overview`."""

_OF_MEASUREMENTS = ("seconds", "objective", "worker_id", "details", "measured_iteration")
"""Columns of a table of samples that a condition reaches by a subquery."""


def as_where(where: Any) -> Checked:
    """Return a condition with values of Python: SQLite compares a number of numpy as bytes.

    Raises:
        InvalidArgument: If it is no condition.
    """
    if isinstance(where, tuple):
        return condition_of(where)
    if isinstance(where, list):
        return all_of(where)
    if isinstance(where, sa.ColumnElement):
        return visitors.cloned_traverse(where, {}, {"bindparam": _convert})
    if where is not None and not isinstance(where, str):
        raise InvalidArgument(
            "where must be (column, operator, value), a list of these, SQL, or an expression of "
            f"SQLAlchemy; got {shown(where)}."
        )
    return None if where is None else SqlCondition(as_name(where, "where"))


def _convert(parameter: Any) -> None:
    value = parameter.value
    parameter.value = (
        [plain(each) for each in value] if isinstance(value, (list, tuple)) else plain(value)
    )


def narrowed(statement: Rows, where: Checked) -> Rows:
    """Return a statement with the user's condition: call it, and execute it, within `guarded`.

    Text stands on lines of its own, since it may end in a comment.
    """
    if where is None:
        return statement
    if isinstance(where, SqlCondition):
        return statement.where(queries.read.condition(where.sql, where.columns))
    return statement.where(where)


@contextlib.contextmanager
def guarded(tx: Transaction, where: Checked) -> Iterator[None]:
    """Let statements with the user's condition read, and do nothing else.

    The condition stays within the parentheses of `narrowed`: it is first parsed without any.
    """
    if not isinstance(where, SqlCondition):
        yield
        return
    with tx.backend.guarded(tx.connection, where.sql, may_step_down=True):
        where.look_up_types(
            functools.partial(_stored_kinds, tx),
            functools.partial(_has_fractions, tx),
            tx.backend,
        )
        tx.rows(queries.read.condition_alone(where.sql, where.columns))
        yield


def renewed(where: Checked) -> Checked:
    """Return a condition for another reading: other values may be stored then."""
    return SqlCondition(where.text) if isinstance(where, SqlCondition) else where


def missing_metas(buffer: BufferHandle, where: Checked) -> list[str]:
    """Return the names of values of the metas in a condition in SQL that no sample has."""
    if not isinstance(where, SqlCondition):
        return []
    return [
        f"meta.{name}"
        for name in where.metas
        if not buffer.look(functools.partial(_stored_kinds, path=(name,)))
    ]


def _stored_kinds(tx: Transaction, path: Path) -> set[type]:
    words = {row.kind for row in tx.rows(queries.read.kinds_of(json_kind(samples.c.meta, *path)))}
    return {kind for kind, known in JSON_KINDS.items() if not words.isdisjoint(known)}


def _has_fractions(tx: Transaction, path: Path) -> bool:
    number, digits = (value_of_meta(form, *path) for form in (Form.NUMBER, Form.WHOLE))
    return bool(tx.rows(queries.read.has_value_without(number, digits)))


def explained(buffer: BufferHandle, where: Checked, read: Callable[[], T]) -> T:
    """Call `read`, which executes a statement with the user's condition.

    Raises:
        InvalidArgument: If the condition is wrong.
    """
    try:
        return read()
    except (sa.exc.StatementError, sa.exc.ArgumentError, SqlBufferError) as exc:
        if where is None or (isinstance(exc, SqlBufferError) and _cause(exc) is None):
            raise
        # Raises if the database is unavailable: then the condition is not at fault.
        buffer.look(lambda tx: tx.execute(queries.buffers.totals()).one())
        text = where.text if isinstance(where, SqlCondition) else str(where)
        raise InvalidArgument(
            "where must be a condition on the columns of samples, such as \"source = 'data'\"; "
            f"got {shown(text)}: {_reason(buffer, text, exc)}"
        ) from exc


def _cause(error: Exception) -> sa.exc.DBAPIError | None:
    """Return the error of the driver."""
    known = (error, error.__cause__)
    return next((each for each in known if isinstance(each, sa.exc.DBAPIError)), None)


def _reason(buffer: BufferHandle, text: str, error: Exception) -> str:
    """Return what is wrong with a condition; a column that is unknown brings all that are known."""
    cause = _cause(error)
    if cause is None:
        return summary(error)
    unknown = buffer.database.dialect.unknown_name(cause)
    if unknown is None:
        said = printable(first_line(str(cause.orig)))
        if re.search(r'near "LIMIT"', said) and "LIMIT" not in text.upper():
            return "it ends too early, or has a quote, a word or a parenthesis too few"
        way_out = ": nullif(DIVISOR, 0) is NULL for zero" if "division by zero" in said else ""
        return f"the database says {said}{way_out}"
    kind, name = unknown
    missing = f"there is no {kind} {shown(name)}"
    if kind != "column":
        return missing
    meant = f", use {_MEANT[name]}" if name in _MEANT else ""
    if name in _OF_MEASUREMENTS:
        meant = f", use sample_id IN (SELECT sample_id FROM measurement_overview WHERE {name} ...)"
    return (
        f"{missing}{meant}; columns are {', '.join({**OF_SAMPLES, **OF_VIEW})}, and meta.NAME, "
        "such as meta.mw, for a value of the metas"
    )
