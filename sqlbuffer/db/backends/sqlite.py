"""SQLite: one file, one writer at a time, and rows that are sent one by one."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pathlib
import sqlite3
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from sqlbuffer._messages import shown
from sqlbuffer.db.backends import backups, driver, sqlite_errors, sqlite_sizes, sqlite_values
from sqlbuffer.db.backends.base import Dialect
from sqlbuffer.db.backends.sqlite_authorizer import authorize_select, authorize_viewer
from sqlbuffer.db.backends.sqlite_connections import Engines
from sqlbuffer.db.backends.sqlite_files import file_id, network_file_system
from sqlbuffer.db.backends.sqlite_forks import hold_back
from sqlbuffer.db.backends.sqlite_lock import is_affected
from sqlbuffer.db.backends.types import SQLITE_TIME_WORDS, Json
from sqlbuffer.db.backends.values import Claimed, Columns, Lock, Pool, Receipt, Rows
from sqlbuffer.errors import InvalidArgument


class SQLite(Dialect):
    """One file. Writers take turns (BEGIN IMMEDIATE); readers see the last commit (WAL).

    Args:
        driver: The module: `sqlite3`, or one with the same functions and another SQLite library.
    """

    schema = None
    supports_deleting_claims = False
    supports_bulk_upsert = False
    time_words, parameter_signs = SQLITE_TIME_WORDS, "?:@$"
    max_value_bytes = 990_000_000  # SQLITE_MAX_LENGTH is 1e9, for a whole row
    has_concurrent_writers = False
    supports_long_reads = False
    chunks_sharing_pages = 1  # each page is written by one transaction only
    gives_ids_again = True
    about_free_space = "new rows use the space again, and VACUUM makes the file smaller"
    has_receipts = False

    def __init__(self, driver: Any = sqlite3) -> None:
        self._driver = driver
        self._engines = Engines(driver)

    # -- the database -----------------------------------------------------------------------------

    def exists(self, url: sa.URL) -> bool:
        return os.path.exists(url.database or "")

    def identity(self, url: sa.URL) -> object:
        return file_id(url.database or "")

    def caution(self, url: sa.URL) -> str | None:
        kind = network_file_system(pathlib.Path(url.database or ""))
        if kind is None:
            return None
        return (
            f"{url.database} is on a network file system ({kind}), whose locks SQLite cannot "
            "trust: put it on a local disk, or use PostgreSQL."
        )

    def may_fork(self) -> bool:
        # The child would take its parent's locks for its own, and the log would be deleted.
        return not hold_back()

    def shortage(self, connection: sa.Connection) -> str | None:
        return None

    def lineage(self, connection: sa.Connection) -> str:
        # The random name, too: an inode may be given again.
        name = connection.exec_driver_sql(
            "SELECT id FROM lineage WHERE id NOT LIKE 'deleted %'"
        ).scalar()
        try:
            found = os.stat(_file_of(connection))
        except OSError:  # the file is gone, and its commits are lost
            return f"{name}/gone"
        return f"{name}/{found.st_dev}/{found.st_ino}"

    def origin(self, connection: sa.Connection) -> str:
        # Not the number of the device: it may change when the host starts again. On a network file
        # system neither is the same for all hosts.
        file = _file_of(connection)
        if network_file_system(pathlib.Path(file)) is not None:
            return ""
        try:
            return str(os.stat(file).st_ino)
        except OSError:
            return ""

    def about(self, connection: sa.Connection) -> str:
        version = f"SQLite {self._driver.sqlite_version} ({self._engines.library})"
        if not is_affected(self._driver.sqlite_version_info):
            return f"{version}, not affected by the WAL-reset race"
        return (
            f"{version}, affected by the WAL-reset race; guarded: each writer of sqlbuffer holds "
            "FILE-lock"
        )

    def table_bytes(self, connection: sa.Connection) -> dict[str, int]:
        return sqlite_sizes.table_bytes(connection)

    def about_size(self, connection: sa.Connection) -> str:
        return sqlite_sizes.about_size(connection)

    def damage(self, connection: sa.Connection) -> list[str]:
        found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars()
        return [f"the file is damaged: {line}." for line in found if line != "ok"]

    def wrong_types(
        self, connection: sa.Connection, table: sa.Table, rows: sa.ColumnElement[bool]
    ) -> list[str]:
        return sqlite_values.wrong_types(connection, table, rows)

    def mend_integers(
        self, connection: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]
    ) -> int:
        return sqlite_values.mend_integers(connection, column, rows)

    # -- engines ----------------------------------------------------------------------------------

    def engine(
        self, url: sa.URL, kind: str, *, durability: str = "normal", pool: Pool | None = None
    ) -> sa.Engine:
        if kind in ("writer", "copier"):
            return self._engines.writer(url, mode="rw", durability=durability)
        if kind == "owner":
            return self._engines.writer(url, mode="rwc", durability="full")
        return self._engines.viewer(url) if kind == "viewer" else self._engines.reader(url)

    def backup(self, url: sa.URL, target: pathlib.Path) -> None:
        engine = self.engine(url, "reader")
        try:
            with engine.connect() as connection:
                backups.copy_sqlite(connection, target)
        finally:
            engine.dispose()

    # -- rows that travel with a statement --------------------------------------------------------

    def relation(self, rows: Rows) -> sa.FromClause:
        return _temporary_table(rows)

    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        # A temporary table in memory: SQLite has no arrays, JSON would not carry floats to the last
        # bit nor blobs, and VALUES stops at 32,766 parameters.
        name = f"temp.{rows.name}"
        created = connection.info["tables"]
        if rows.name not in created:
            names = ", ".join(column for column, _ in rows.columns)
            driver.run(connection, f"CREATE TEMPORARY TABLE IF NOT EXISTS {rows.name} ({names})")
            created.add(rows.name)
        driver.run(connection, f"DELETE FROM {name}")
        values = list(zip(*(columns[column] for column, _ in rows.columns), strict=True))
        if values:
            marks = ", ".join("?" * len(rows.columns))
            driver.run_each(connection, f"INSERT INTO {name} VALUES ({marks})", values)
        return {}

    def each(self, rows: Rows) -> Any:
        return _parameters(rows)

    def insert_each(self, table: sa.Table, values: Mapping[str, Any]) -> Any:
        return sqlite.insert(table).values(values)

    def execute_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> int:
        # Through the driver: a temporary table would write the rows twice.
        sql, values = _row_by_row(connection.dialect, statement, rows, columns, constants)
        connection.info["noted"].clear()
        return driver.run_each(connection, sql, values)

    def changed_by_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> list[bool]:
        n_changed = self.execute_each(connection, statement, rows, columns, constants)
        key = columns[rows.columns[0][0]]
        if n_changed == len(key):
            return [True] * len(key)
        changed = set(connection.info["noted"])
        return [value in changed for value in key]

    def noted(self, rows: Rows, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # `executemany`, which takes less time than a call a row, does not tell the rows that it
        # has changed.
        key = getattr(self.each(rows), rows.columns[0][0])
        return sa.func.coalesce(sa.func.note(key), value, type_=value.type)

    def n_noted(self, connection: sa.Connection) -> int:
        return len(connection.info["noted"])

    # -- statements and locks ---------------------------------------------------------------------

    def lock(self, connection: sa.Connection, buffer_id: int, locks: Mapping[Lock, bool]) -> None:
        """Do nothing: BEGIN IMMEDIATE has locked the file."""

    def lock_schema(self, connection: sa.Connection) -> None:
        """Do nothing: BEGIN IMMEDIATE has locked the file."""

    def lock_tables(self, connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
        """Do nothing: BEGIN IMMEDIATE has locked the file."""

    def claim(self, statement: sa.Select[Any], table: sa.Table) -> Claimed:
        return statement, table  # as a subquery, its rows would be written down first

    def skip_locked(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        return statement

    def lock_rows(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        return statement

    def upsert(self, table: sa.Table) -> Any:
        return sqlite.insert(table)

    def json(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.type_coerce(column, Json)

    def tables(self, connection: sa.Connection) -> set[str]:
        inspector = sa.inspect(connection)
        return {*inspector.get_table_names(), *inspector.get_view_names()}

    def grants(self, url: sa.URL, *, reader: str | None, worker: str | None) -> list[str]:
        raise InvalidArgument(
            "SQLite has no roles: the rights on the file decide who may read or write."
        )

    # -- errors -----------------------------------------------------------------------------------

    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        return sqlite_errors.may_pass(error.orig)

    def is_overdue(self, error: sa.exc.DBAPIError) -> bool:
        return False

    def is_lost(self, error: sa.exc.DBAPIError) -> bool:
        return False  # a file has no connections to lose

    def receipt(self, connection: sa.Connection) -> Receipt | None:
        return None

    def end(self, connection: sa.Connection, receipt: Receipt) -> bool:
        return True

    def was_committed(self, connection: sa.Connection, receipt: Receipt) -> bool:
        return False

    def advice(self, error: BaseException) -> str:
        return sqlite_errors.way_out(getattr(error, "orig", error))  # without the SQL, its values

    # -- SQL that a person types ------------------------------------------------------------------

    def unknown_name(self, error: sa.exc.DBAPIError) -> tuple[str, str] | None:
        return sqlite_errors.unknown_name(error.orig)

    @property
    def sql_errors(self) -> tuple[type[Exception], ...]:
        # Python 3.10 has a warning for two statements, which SQLAlchemy passes on.
        return (sa.exc.DBAPIError, self._engines.warning)

    def inspector(self, url: sa.URL, *, timeout_s: float | None = None) -> sa.Engine:
        return self._engines.inspector(url, timeout_s=timeout_s)

    @contextlib.contextmanager
    def guarded(
        self,
        connection: sa.Connection,
        sql: str,
        *,
        role: str | None = None,
        may_step_down: bool = False,
    ) -> Iterator[None]:
        if role is not None:
            raise InvalidArgument(f"an SQLite file has no roles: leave {shown(role)} out.")
        opened: Any = connection.connection.driver_connection
        opened.execute("SELECT 1 FROM json_each('[]')")  # made once, by actions beyond SELECT
        opened.set_authorizer(authorize_select)  # called for each action of a statement
        try:
            yield
        finally:
            if not connection.invalidated:
                opened.set_authorizer(authorize_viewer)


def _file_of(connection: sa.Connection) -> str:
    """Return the path of the file that a connection has opened."""
    found = connection.exec_driver_sql("PRAGMA database_list")
    return str(next(row[2] for row in found if row[1] == "main"))


@functools.cache
def _parameters(rows: Rows) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        **{name: sa.bindparam(rows.parameter(name), type_=kind) for name, kind in rows.columns}
    )


def _row_by_row(
    dialect: sa.Dialect, statement: Any, rows: Rows, columns: Columns, constants: Mapping[str, Any]
) -> tuple[str, list[tuple[Any, ...]]]:
    """Return the SQL of a statement for each row, and its parameters row by row."""
    sql, sources = _compiled(statement, dialect, rows)
    values: list[Iterable[Any]] = []
    for parameter, column, default in sources:
        if column is None:
            values.append(itertools.repeat(constants.get(parameter, default)))
        elif column == "hash":
            # The driver looks for an adapter at each value of type bytes: 0.4 us, this copy 0.1.
            values.append(map(bytearray, columns[column]))
        else:
            values.append(columns[column])
    return sql, list(zip(*values, strict=False))


@functools.lru_cache(maxsize=128)
def _compiled(
    statement: Any, dialect: sa.Dialect, rows: Rows
) -> tuple[str, list[tuple[str, str | None, Any]]]:
    """Compile a statement; return its SQL, and for each parameter its name, column and default."""
    compiled = statement.compile(dialect=dialect)
    columns = {rows.parameter(name): name for name, _ in rows.columns}
    given = compiled.params
    return str(compiled), [(name, columns.get(name), given[name]) for name in compiled.positiontup]


@functools.cache
def _temporary_table(rows: Rows) -> sa.Table:
    columns = [sa.Column(name, kind) for name, kind in rows.columns]
    return sa.Table(rows.name, sa.MetaData(), *columns)
