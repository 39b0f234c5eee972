"""A user's condition on the samples of a buffer: checked, guarded, and explained if it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from sqlbuffer._messages import printable, shown, summary
from sqlbuffer._validation import as_name, plain
from sqlbuffer.core.conditions import Condition, all_of, condition_of
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.sql_condition import SqlCondition
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import first_line
from sqlbuffer.db.queries.table import OF_SAMPLES, OF_VIEW
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument

T = TypeVar("T")
Rows = TypeVar("Rows", bound=sa.Select[Any])

Where = str | sa.ColumnElement[bool] | Condition | list[Condition] | None
"""(column, operator, value), a list of these, SQL, or an expression of SQLAlchemy; None for all."""
Checked = SqlCondition | sa.ColumnElement[bool] | None
"""A condition that `as_where` has returned."""

_MEANT = {"reason": "error", "failed_at": "measured_at"}
"""Columns of other views and tables, and their names in `sample_overview`."""


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
        where.look_up_types(lambda *each: bool(tx.rows(queries.read.has_kind(*each))))
        tx.rows(queries.read.condition_alone(where.sql, where.columns))
        yield


def explained(buffer: BufferHandle, where: Checked, read: Callable[[], T]) -> T:
    """Call `read`, which executes a statement with the user's condition.

    Raises:
        InvalidArgument: If the condition is wrong.
    """
    try:
        return read()
    except (sa.exc.StatementError, sa.exc.ArgumentError, DatabaseUnavailable) as exc:
        if where is None:
            raise
        # Raises if the database is unavailable: then the condition is not at fault.
        buffer.look(lambda tx: tx.execute(queries.buffers.totals()).one())
        raise InvalidArgument(
            "where must be a condition on the columns of samples, such as \"source = 'data'\"; "
            f"got {shown(where.text if isinstance(where, SqlCondition) else where)}: "
            f"{_reason(buffer, exc)}"
        ) from exc


def _reason(buffer: BufferHandle, error: Exception) -> str:
    """Return what is wrong with a condition; a column that is unknown brings all that are known."""
    cause = next(
        (each for each in (error, error.__cause__) if isinstance(each, sa.exc.DBAPIError)), None
    )
    if cause is None:
        return summary(error)
    unknown = buffer.database.dialect.unknown_name(cause)
    if unknown is None:
        return f"the database says {printable(first_line(str(cause.orig)))}"
    kind, name = unknown
    missing = f"there is no {kind} {shown(name)}"
    if kind != "column":
        return missing
    meant = f", use {_MEANT[name]}" if name in _MEANT else ""
    return (
        f"{missing}{meant}; columns are {', '.join({**OF_SAMPLES, **OF_VIEW})}, and meta.NAME, "
        "such as meta.mw, for a value of the metas"
    )
