"""Values that SQLite stores though they are not of the type of their column."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from sqlbuffer._messages import n_of
from sqlbuffer.db.backends.types import Json, Timestamp

_KINDS: list[tuple[type[Any], str, str]] = [
    (sa.Boolean, "integer", "bool"),
    (sa.Integer, "integer", "integer"),
    (sa.Double, "real", "number"),
    (sa.LargeBinary, "blob", "sequence of bytes"),
    (Timestamp, "text", "time"),
    (Json, "text", "JSON"),
    (sa.Text, "text", "text"),
]
"""Types of columns, how SQLite stores them, and their names in messages."""


def wrong_types(
    connection: sa.Connection, table: sa.Table, rows: sa.ColumnElement[bool]
) -> list[str]:
    """See `Dialect.wrong_types`."""
    found = connection.execute(sa.select(*_wrong(table)).where(rows)).one()._mapping
    return [
        f"{n_of(found[column.name], 'row')} of {table.name} "
        f"{'has' if found[column.name] == 1 else 'have'} a {column.name} that is no "
        f"{_kind(column)[1]}."
        for column in table.columns
        if found[column.name]
    ]


def mend_integers(
    connection: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]
) -> int:
    """See `Dialect.mend_integers`."""
    table = column.table
    is_packed = sa.and_(sa.func.typeof(column) == "blob", sa.func.length(column).in_((1, 2, 4, 8)))
    raw = sa.type_coerce(column, sa.LargeBinary)
    number: sa.ColumnElement[int] = sa.literal_column("rowid", sa.Integer)
    packed = connection.execute(
        sa.select(number, raw).select_from(table).where(rows, is_packed)
    ).all()
    for place, value in packed:
        here = number == place
        right = {column.name: int.from_bytes(value, "little", signed=True)}
        connection.execute(sa.update(table).where(here).values(right).prefix_with("OR IGNORE"))
        # Ignored if another row has the key already: then this row is removed.
        connection.execute(sa.delete(table).where(here, is_packed))
    return len(packed)


def _kind(column: sa.Column[Any]) -> tuple[str, str]:
    return next((stored, words) for kind, stored, words in _KINDS if isinstance(column.type, kind))


@functools.cache
def _wrong(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Return the number of rows with a wrong value, by column.

    As SQL text: building the expressions takes longer than executing them.
    """
    sums = {
        column: sa.func.sum(sa.case((_is_wrong(column), 1), else_=0)) for column in table.columns
    }
    options: dict[str, Any] = {
        "dialect": sqlite.dialect(),
        "compile_kwargs": {"literal_binds": True},
    }
    return [
        sa.literal_column(str(count.compile(**options))).label(column.name)
        for column, count in sums.items()
    ]


def _is_wrong(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a value is of another type than its column."""
    is_wrong: sa.ColumnElement[bool] = sa.func.typeof(column).not_in((_kind(column)[0], "null"))
    if isinstance(column.type, sa.Boolean):
        is_wrong = sa.or_(is_wrong, sa.type_coerce(column, sa.Integer).not_in((0, 1)))
    return is_wrong
