"""Types of columns, storage options of tables and indexes, and the time of the database."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import shown

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Number = sa.Numeric().with_variant(sa.Double(), "sqlite")
"""A number of JSON: PostgreSQL has functions such as `round` of two numbers for numeric alone."""
CLUSTERED: Any = {"sqlite_with_rowid": False}
"""Table keywords: rows are stored in the order of the primary key, if the database can."""

_VACUUM_SOONER: Any = sa.DDL(  # type: ignore[no-untyped-call,unused-ignore]
    "ALTER TABLE %(fullname)s SET (autovacuum_vacuum_scale_factor = 0.01)"
)
# SQLAlchemy 2.1 has `postgresql_with`; 2.0, the last version for Python 3.10, does not.
CHURNED: Any = {
    "listeners": [("after_create", _VACUUM_SOONER.execute_if(dialect="postgresql"))],
}
"""Table keywords for many deletes: autovacuum begins at 1 % of dead rows instead of 20 %."""


def where(condition: sa.ColumnElement[bool]) -> Any:
    """Return the index keywords that make an index partial."""
    return {"sqlite_where": condition, "postgresql_where": condition}


class Json(TypeDecorator[Any]):
    """A JSON value: jsonb on PostgreSQL, text on SQLite."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return sa.JSON()
        from sqlalchemy.dialects.postgresql import JSONB  # imported where it is used: 0.1 s

        return JSONB()


class Timestamp(TypeDecorator[dt.datetime]):
    """A UTC time, timezone-aware in Python: timestamptz on PostgreSQL, ISO 8601 text on SQLite."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        return sa.DateTime(timezone=True) if dialect.name == "postgresql" else sa.Text()

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return as_text(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> dt.datetime | None:
        if value is None:
            return None
        try:
            time = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
            return time.astimezone(dt.timezone.utc)
        except (ValueError, OverflowError, AttributeError) as exc:  # the last: another type
            raise tampered(f"a time is stored as {shown(value)}, which is not a time") from exc


_AS_TEXT = "strftime('%Y-%m-%dT%H:%M:%f', "
SQLITE_TIME_WORDS = {
    "DATETIME(": _AS_TEXT,
    **dict.fromkeys(("DATETIME()", "CURRENT_TIMESTAMP"), f"{_AS_TEXT}'now')"),
}
"""What gives a time as `as_text` does, in the place of SQLite's own text with a space in it."""


def as_text(time: dt.datetime) -> str:
    """Return a time as SQLite stores it: with milliseconds if they are exact, else microseconds."""
    timespec = "microseconds" if time.microsecond % 1000 else "milliseconds"
    return time.astimezone(dt.timezone.utc).isoformat(timespec=timespec)


class now(sa.sql.functions.FunctionElement[dt.datetime]):
    """The time by the clock of the database's host: two hosts' clocks are never compared."""

    type = Timestamp()
    inherit_cache = True  # else every statement is compiled again at each execution


class right_now(sa.sql.functions.FunctionElement[dt.datetime]):
    """The time of the statement, as `from_now` has it; `now` is the transaction's on SQLite."""

    type = Timestamp()
    inherit_cache = True


class from_now(sa.sql.functions.FunctionElement[dt.datetime]):
    """The time in some seconds, a bound parameter: `from_now(bindparam("lease_s"))`.

    Seconds below 0 are a time ago.
    """

    type = Timestamp()
    inherit_cache = True


class is_like(sa.sql.functions.FunctionElement[bool]):
    """A text matches a pattern of `%` and `_`; capitals are other letters, a backslash is itself.

    Args:
        column: The text.
        pattern: The pattern.
    """

    type = sa.Boolean()
    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[str], pattern: str) -> None:
        glob = "".join({"%": "*", "_": "?"}.get(c, f"[{c}]" if c in "*?[" else c) for c in pattern)
        super().__init__(column, sa.literal(pattern, sa.Text), sa.literal(glob, sa.Text))


class is_one_of(sa.sql.functions.FunctionElement[bool]):
    """A value is one of a list, which is one parameter: a statement has room for some thousand.

    Args:
        column: The value.
        values: Values of the type of the column, or None. Numbers are integers and floats.
    """

    type = sa.Boolean()
    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> None:
        kind = column.type
        if any(isinstance(value, float) for value in values):
            kind = sa.Double()
        elif isinstance(kind, sa.Integer):
            kind = BigId
        array = sa.literal(list(values), sa.ARRAY(kind))
        super().__init__(column, array, sa.literal(list(values), _JsonList(kind)))


class _JsonList(TypeDecorator[list[Any]]):
    """A list as text of JSON, each value as SQLite stores it, and bytes as hexadecimal digits."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: Any = None) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str:
        stored = (as_text(each) if isinstance(each, dt.datetime) else each for each in value)
        return json.dumps([each.hex() if isinstance(each, bytes) else each for each in stored])


@compiles(is_like, "sqlite")
def _sqlite_is_like(element: is_like, compiler: Any, **options: Any) -> str:
    column, _, glob = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} GLOB {glob}"


@compiles(is_like, "postgresql")
def _postgresql_is_like(element: is_like, compiler: Any, **options: Any) -> str:
    column, pattern, _ = list(element.clauses)
    shown = (compiler.process(each, **options) for each in (column, pattern))
    return f"{' LIKE '.join(shown)} ESCAPE ''"


@compiles(is_one_of, "sqlite")
def _sqlite_is_one_of(element: is_one_of, compiler: Any, **options: Any) -> str:
    column, _, values = list(element.clauses)
    sought = compiler.process(column, **options)
    if isinstance(column.type, sa.LargeBinary):
        sought = f"lower(hex({sought}))"
    return f"{sought} IN (SELECT value FROM json_each({compiler.process(values, **options)}))"


@compiles(is_one_of, "postgresql")
def _postgresql_is_one_of(element: is_one_of, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(each, **options) for each in list(element.clauses)[:2])
    return f"{column} = ANY ({values})"


@compiles(now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "utc_now()"  # a function of our connections: the time of the transaction


@compiles(right_now, "sqlite")
def _sqlite_right_now(*_: Any, **__: Any) -> str:
    return "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"


@compiles(now, "postgresql")
@compiles(right_now, "postgresql")
def _postgresql_now(*_: Any, **__: Any) -> str:
    return "clock_timestamp()"


@compiles(from_now, "sqlite")
def _sqlite_from_now(element: from_now, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', {seconds} || ' seconds')"


@compiles(from_now, "postgresql")
def _postgresql_from_now(element: from_now, compiler: Any, **options: Any) -> str:
    return (
        f"clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)})"
    )
