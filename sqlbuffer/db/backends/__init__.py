"""Every difference between SQLite and PostgreSQL. No other package knows their names."""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import shown
from sqlbuffer._validation import is_storable
from sqlbuffer.db.backends.base import ONE_STATEMENT, SCHEMA, VERSION_TABLE, Dialect
from sqlbuffer.db.backends.types import (
    CHURNED,
    CLUSTERED,
    BigId,
    Json,
    Timestamp,
    from_now,
    now,
    right_now,
    where,
)
from sqlbuffer.db.backends.values import Columns, Lock, Presence, Receipt, Rows
from sqlbuffer.db.urls import WAY_OUT, read_url
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument, MissingExtra

if TYPE_CHECKING:
    from sqlbuffer.db.backends.postgresql import PostgreSQL
    from sqlbuffer.db.backends.sqlite import SQLite

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
    "Lock",
    "PostgreSQL",
    "Presence",
    "Receipt",
    "Rows",
    "SQLite",
    "Timestamp",
    "first_line",
    "from_now",
    "is_unavailable",
    "now",
    "origin_of",
    "parse_url",
    "right_now",
    "translated",
    "unavailable",
    "where",
]


def __getattr__(name: str) -> Any:
    """Import a backend when it is first used: one of the two is enough for most processes."""
    if name not in ("PostgreSQL", "SQLite"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(
        importlib.import_module(f"sqlbuffer.db.backends.{name.lower()}"), name
    )
    return found


def parse_url(url: str | os.PathLike[str] | sa.URL) -> tuple[sa.URL, Dialect]:
    """Return a database URL, with an absolute path on SQLite, and its backend.

    Args:
        url: A URL, or the path of an SQLite file.

    Raises:
        InvalidArgument: If `url` is no URL, or the URL of another kind of database.
        MissingExtra: If the driver in the URL is not installed.
    """
    parsed = read_url(_as_url(url))
    backend, _, driver = parsed.drivername.partition("+")
    if backend in ("postgresql", "postgres"):
        return parsed, _postgresql()
    if backend != "sqlite":
        raise InvalidArgument(f"no support for {backend!r} databases: {WAY_OUT}.")
    _require_file(parsed)
    return parsed.set(database=_absolute(parsed.database or "")), _sqlite(driver)


def _as_url(given: str | os.PathLike[str] | sa.URL) -> str | sa.URL:
    """Turn a path into a URL; return any other argument unchanged."""
    if isinstance(given, os.PathLike):
        return sa.URL.create("sqlite", database=os.fspath(given))
    return (
        sa.URL.create("sqlite", database=given)
        if isinstance(given, str) and _is_path(given)
        else given
    )


def _is_path(text: str) -> bool:
    """Return True for a path: it has a dot or a slash, and no user, password or scheme."""
    begins = os.path.splitdrive(text)[1].partition("/")[0]
    return (
        ("." in text or "/" in text or os.sep in text)
        and ":" not in begins
        and text.strip() == text
    )


def _require_file(url: sa.URL) -> None:
    """Refuse parts that the URL of a file cannot have."""
    if url.host or url.username or url.password or url.port:
        raise InvalidArgument(
            "the URL of an SQLite file has three slashes, four before an absolute path: "
            "sqlite:///FILE."
        )
    if not url.database or ":memory:" in url.database:
        raise InvalidArgument(
            "an SQLite buffer in memory could be neither resumed nor shared: use sqlite:///FILE."
        )
    if not is_storable(url.database):
        raise InvalidArgument(
            f"{shown(url.database)} is not a file name in UTF-8: rename the file, and use "
            "sqlite:///FILE."
        )
    if url.database.startswith("file:"):
        raise InvalidArgument(
            "the URL of an SQLite file cannot be a file: URI: use sqlite:///FILE."
        )
    if url.query:
        raise InvalidArgument(
            "the URL of an SQLite file has no options, got "
            f"{shown(', '.join(sorted(url.query)))}: use sqlite:///FILE; `store.connect()` and the "
            "command line read without writing."
        )


def _absolute(path: str) -> str:
    """Return the absolute path of a file behind all links, next to which SQLite keeps its log."""
    try:
        return os.path.realpath(path)
    except ValueError as exc:  # a null character
        raise InvalidArgument(
            f"{shown(path)} is not a path of a file ({exc}): use sqlite:///FILE."
        ) from exc
    except OSError as exc:  # a relative path in a folder that is gone
        raise DatabaseUnavailable(
            f"{shown(path)} cannot be found ({exc.strerror}): give an absolute path."
        ) from exc


@functools.cache
def _postgresql() -> PostgreSQL:
    from sqlbuffer.db.backends.postgresql import PostgreSQL

    return PostgreSQL()


@functools.cache
def _sqlite(driver: str) -> SQLite:
    """Return the backend of a driver: Python's, or one with an SQLite library of its own."""
    from sqlbuffer.db.backends.sqlite import SQLite

    if driver in ("", "pysqlite"):
        return SQLite()
    if driver != "pysqlite3":
        raise InvalidArgument(
            f"no support for the driver {shown(driver)}: use sqlite:///FILE or "
            "sqlite+pysqlite3:///FILE."
        )
    try:
        return SQLite(importlib.import_module("pysqlite3.dbapi2"))
    except ImportError as exc:
        raise MissingExtra(
            "sqlite+pysqlite3 needs pysqlite3: `pip install 'sqlbuffer[sqlite]'`."
        ) from exc


def origin_of(connection: sa.Connection) -> str:
    """Return text that a copy of the database does not share; read once for each connection."""
    found = connection.info.get("origin")
    if found is None:
        dialect = _sqlite("") if connection.dialect.name == "sqlite" else _postgresql()
        found = connection.info["origin"] = dialect.origin(connection)
    return str(found)


def first_line(message: str) -> str:
    """Return the first line of a driver's message."""
    return message.strip().split("\n", 1)[0]


def is_unavailable(error: sa.exc.DBAPIError) -> bool:
    """Return True if an error is the database's fault, and not the statement's."""
    has_no_right = getattr(error.orig, "sqlstate", None) == "42501"
    is_outage = (
        isinstance(error, (sa.exc.OperationalError, sa.exc.InternalError))
        or type(error) is sa.exc.DatabaseError
    )
    return has_no_right or is_outage


_OVERFLOWS = ("integer overflow", "bigint out of range")
"""Messages of SQLite and of PostgreSQL; numbers of users are checked before they are sent."""


def translated(error: sa.exc.DBAPIError, url: sa.URL, dialect: Dialect) -> Exception | None:
    """Return our error for a driver's, None if the statement is at fault."""
    message = first_line(str(error.orig))
    shown_url = url.render_as_string(hide_password=True)
    if message in _OVERFLOWS:
        return tampered(
            f"a result in {shown_url} is beyond the largest integer ({message}), so a stored "
            "number is beyond any that sqlbuffer counts to"
        )
    if is_unavailable(error):
        return unavailable(error, url, dialect)
    if isinstance(error, sa.exc.DataError):
        return InvalidArgument(f"a value does not fit its column in {shown_url}: {message}.")
    return None


def unavailable(error: sa.exc.DBAPIError, url: sa.URL, dialect: Dialect) -> DatabaseUnavailable:
    """Return our error for a driver's: its message, the URL without password, and the solution."""
    message = f"{first_line(str(error.orig))} ({url.render_as_string(hide_password=True)})"
    way_out = dialect.advice(error)
    return DatabaseUnavailable(f"{message}: {way_out}." if way_out else f"{message}.")
