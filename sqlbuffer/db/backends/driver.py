"""Statements that go to the driver's cursor directly, in a transaction of SQLAlchemy.

SQLAlchemy's own way takes 0.1 ms for each statement and 1 us for each row, a fifth of a draw.
Errors still go through SQLAlchemy, which wraps them and drops a connection that is lost. A program
that listens to statements, or logs them, gets all of them in SQLAlchemy's own way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import sqlalchemy as sa

BINARY_ROWS = "binary_rows"
"""Name, in the `info` of a connection, of whether fetched rows travel in binary."""

_GOES_DIRECTLY = "goes_directly"
"""Name, in the `info` of a connection, of whether the statements of its transaction go to the
driver's cursor; False if the program watches its statements."""

NEXT_PLACE = "next_place"
"""Name of a function of SQL on SQLite, which returns 0, 1, 2 and so on, and its name in `info`."""

_NO_CURSOR = {"stream_results": False}
"""Options of a statement for which the server makes no cursor."""


class Answer(NamedTuple):
    """What the driver tells of a statement."""

    rows: list[tuple[Any, ...]]
    rowcount: int
    description: Sequence[Any] = ()
    """Name, type and more of each column; () for a statement without rows."""


def begin(connection: sa.Connection) -> None:
    """Note, when a transaction begins, whether its statements go to the cursor directly."""
    # No method of the driver's connection: it would keep the connection open in its own `info`.
    connection.info[_GOES_DIRECTLY] = not _is_watched(connection)


def _is_watched(connection: sa.Connection) -> bool:
    # A connection has listeners of its own only if its class has some: no program has seen it yet.
    # They take longer to find than those of the engine, with which SQLAlchemy joins them.
    owner = connection if sa.Connection._has_events else connection.engine
    each, of_driver = owner.dispatch, connection.dialect.dispatch
    return bool(
        connection.engine._should_log_info()
        or each.before_cursor_execute
        or each.after_cursor_execute
        or each.before_execute
        or each.after_execute
        or of_driver.do_execute
        or of_driver.do_executemany
        or of_driver.do_execute_no_params
    )


class Cursors(NamedTuple):
    """The cursors of a transaction."""

    fetching: Callable[[], Any] | None
    """Makes a cursor whose rows are fetched; None if the program watches the transaction."""


def cursors(connection: sa.Connection) -> Cursors:
    """Return the cursors of the transaction that a connection is in."""
    return Cursors(fetching_cursor(connection))


def fetching_cursor(connection: sa.Connection) -> Callable[[], Any] | None:
    """Return what makes cursors for `fetch`; None if the program watches the transaction."""
    info = connection.info
    if not info.get(_GOES_DIRECTLY):
        return None
    driver_connection: Any = connection.connection.driver_connection
    make: Callable[..., Any] = driver_connection.cursor
    return functools.partial(make, binary=True) if info.get(BINARY_ROWS) else make


def fetch(connection: sa.Connection, make: Callable[[], Any], sql: str, parameters: Any) -> Answer:
    """Execute a statement by a cursor of `fetching_cursor`, and fetch its rows."""
    cursor: Any = None
    try:
        cursor = make()
        cursor.execute(sql, parameters)
        described = cursor.description
        if described is None:
            return Answer([], cursor.rowcount)
        return Answer(cursor.fetchall(), cursor.rowcount, described)
    except BaseException as exc:
        _raise(connection, exc, sql, parameters, cursor)


def next_place(connection: sa.Connection) -> int:
    """Return what `next_place()` returns in the first row of the next statement."""
    return int(connection.info[NEXT_PLACE]()) + 1


def run(connection: sa.Connection, sql: str) -> None:
    """Execute SQL without parameters, whose rows do not matter."""
    if not connection.info.get(_GOES_DIRECTLY):
        connection.exec_driver_sql(sql, execution_options=_NO_CURSOR)
        return
    cursor: Any = None
    try:
        cursor = connection.connection.cursor()
        cursor.execute(sql)
    except BaseException as exc:
        _raise(connection, exc, sql, (), cursor)


def run_each(connection: sa.Connection, sql: str, rows: Sequence[Any]) -> int:
    """Execute a statement for each of some rows of parameters; return how many rows it changed."""
    if not connection.info.get(_GOES_DIRECTLY):
        return connection.exec_driver_sql(sql, list(rows)).rowcount
    cursor: Any = None
    try:
        cursor = connection.connection.cursor()
        cursor.executemany(sql, rows)
        return int(cursor.rowcount)
    except BaseException as exc:
        _raise(connection, exc, sql, rows, cursor)


def _raise(
    connection: sa.Connection, error: BaseException, sql: str, parameters: Any, cursor: Any
) -> NoReturn:
    """Raise an error as `Connection.execute` does.

    Without the SQL, SQLAlchemy raises an error that is not the driver's as it is.
    """
    about = sql if isinstance(error, connection.dialect.loaded_dbapi.Error) else None
    connection._handle_dbapi_exception(error, about, parameters, cursor, None)
