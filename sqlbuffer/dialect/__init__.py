"""Every difference between SQLite and PostgreSQL. No other room knows a dialect's name."""

from __future__ import annotations

import sqlalchemy as sa

from sqlbuffer.dialect.base import ONE_STATEMENT, SCHEMA, VERSION_TABLE, Columns, Dialect, Receipt, Rows
from sqlbuffer.dialect.columns import CHURNED, CLUSTERED, BigId, Json, Timestamp, ago, hence, now, right_now, where
from sqlbuffer.dialect.postgresql import PostgreSQL
from sqlbuffer.dialect.sqlite import SQLite
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument
from sqlbuffer.urls import WAY_OUT, read_url

__all__ = [
    "CHURNED",
    "CLUSTERED",
    "ONE_STATEMENT",
    "SCHEMA",
    "VERSION_TABLE",
    "BigId",
    "Columns",
    "Dialect",
    "Json",
    "PostgreSQL",
    "Receipt",
    "Rows",
    "SQLite",
    "Timestamp",
    "ago",
    "first_line",
    "hence",
    "identity_of",
    "is_unavailable",
    "now",
    "parse_url",
    "right_now",
    "unavailable",
    "where",
]

_SQLITE = SQLite()
_POSTGRESQL = PostgreSQL()


def parse_url(url: str | sa.URL) -> tuple[sa.URL, Dialect]:
    """Return a database URL and its dialect.

    Raises:
        InvalidArgument: Where it is no URL, or of a database that sqlbuffer does not work with.
    """
    parsed = read_url(url)
    backend = {"postgres": "postgresql"}.get(parsed.drivername, parsed.drivername).partition("+")[0]
    if backend not in ("sqlite", "postgresql"):
        raise InvalidArgument(f"no support for {backend!r} databases: {WAY_OUT}.")
    if backend == "postgresql":
        return parsed, _POSTGRESQL
    if parsed.host:
        raise InvalidArgument(
            "the URL of an SQLite file has three slashes, four before an absolute path: sqlite:///FILE."
        )
    if not parsed.database or ":memory:" in parsed.database:
        raise InvalidArgument("an SQLite buffer in memory could be neither resumed nor shared: use sqlite:///FILE.")
    return parsed, _SQLITE


def identity_of(connection: sa.Connection) -> str:
    """Return what tells the database of a connection from its copies. It is asked once for each connection."""
    found = connection.info.get("identity")
    if found is None:
        dialect = _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL
        found = connection.info["identity"] = dialect.identity(connection)
    return str(found)


def first_line(message: str) -> str:
    """Return the first line of a driver's message."""
    return message.strip().split("\n", 1)[0]


def is_unavailable(error: sa.exc.DBAPIError) -> bool:
    """Tell whether the database is to blame, and not the statement."""
    has_no_right = getattr(error.orig, "sqlstate", None) == "42501"
    is_outage = (
        isinstance(error, (sa.exc.OperationalError, sa.exc.InternalError)) or type(error) is sa.exc.DatabaseError
    )
    return has_no_right or is_outage


def unavailable(error: sa.exc.DBAPIError, url: sa.URL, dialect: Dialect) -> DatabaseUnavailable:
    """Return our error for a driver's one: what happened, where, and the way out. Passwords are masked."""
    return DatabaseUnavailable(
        f"{first_line(str(error.orig))} ({url.render_as_string(hide_password=True)}): {dialect.advice(error)}."
    )
