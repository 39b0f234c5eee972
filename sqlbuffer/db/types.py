"""What a column holds, how tables and indexes are laid out, and what time it is, in the terms of either database."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlbuffer.errors import shown, tampered

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON().with_variant(JSONB(), "postgresql")
CLUSTERED: Any = {"sqlite_with_rowid": False}
"""Table keywords: rows are stored in the order of the primary key where the database can."""

_VACUUM_SOONER = sa.DDL("ALTER TABLE %(fullname)s SET (autovacuum_vacuum_scale_factor = 0.01)")
CHURNED: Any = {
    "listeners": [("after_create", _VACUUM_SOONER.execute_if(dialect="postgresql"))]
}  # SQLAlchemy 2.1 has `postgresql_with`, but 2.0, the last for Python 3.10, has not
"""Table keywords: rows come and go, and dead ones are taken away at a hundredth of the table instead of a fifth."""


def where(condition: sa.ColumnElement[bool]) -> Any:
    """Return the index keywords that make an index partial."""
    return {"sqlite_where": condition, "postgresql_where": condition}


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
        except (
            ValueError,
            OverflowError,
            AttributeError,
        ) as exc:  # the last: neither text nor a time
            raise tampered(f"a time is stored as {shown(value)}, which is not a time") from exc


def as_text(time: dt.datetime) -> str:
    """Return a time as SQLite stores it; whole milliseconds without more digits, as in older files."""
    timespec = "microseconds" if time.microsecond % 1000 else "milliseconds"
    return time.astimezone(dt.timezone.utc).isoformat(timespec=timespec)


class now(sa.sql.functions.FunctionElement[dt.datetime]):
    """The time by the clock of the database's host: no host's clock is ever compared with another's."""

    type = Timestamp()
    inherit_cache = (
        True  # of a FunctionElement: without it every statement is compiled again at each execution
    )


class right_now(sa.sql.functions.FunctionElement[dt.datetime]):
    """The time of the statement, for what is compared with `ago`: on SQLite `now` is when the transaction began."""

    type = Timestamp()
    inherit_cache = True


class ago(sa.sql.expression.ColumnElement[dt.datetime]):
    """The database's own time some seconds ago.

    Args:
        seconds: How long ago.
    """

    type = Timestamp()
    inherit_cache = False

    def __init__(self, seconds: float) -> None:
        self.seconds = float(seconds)


class from_now(sa.sql.functions.FunctionElement[dt.datetime]):
    """The database's own time in some seconds, a bound parameter: `from_now(bindparam("lease_s"))`."""

    type = Timestamp()
    inherit_cache = True


@compiles(ago, "sqlite")
def _sqlite_ago(element: ago, *_: Any, **__: Any) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', '-{element.seconds:.3f} seconds')"


@compiles(ago, "postgresql")
def _postgresql_ago(element: ago, *_: Any, **__: Any) -> str:
    return f"clock_timestamp() - make_interval(secs => {element.seconds:.3f})"


@compiles(now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "utc_now()"  # one time for a transaction, which our connections know


@compiles(right_now, "sqlite")
def _sqlite_right_now(*_: Any, **__: Any) -> str:
    return "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"


@compiles(now, "postgresql")
@compiles(right_now, "postgresql")
def _postgresql_now(*_: Any, **__: Any) -> str:
    return "clock_timestamp()"


@compiles(from_now, "sqlite")
def _sqlite_hence(element: from_now, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', {seconds} || ' seconds')"


@compiles(from_now, "postgresql")
def _postgresql_hence(element: from_now, compiler: Any, **options: Any) -> str:
    return (
        f"clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)})"
    )
