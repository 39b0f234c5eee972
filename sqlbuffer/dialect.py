"""Every difference between SQLite and PostgreSQL. No other module knows a dialect's name."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
import functools
import itertools
import os
import pathlib
import re
import secrets
import sqlite3
import types
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument, MissingExtra
from sqlbuffer.files import network_file_system
from sqlbuffer.urls import WAY_OUT, read_url

SCHEMA = "sqlbuffer"
"""Name of the PostgreSQL schema that all tables live in."""

VERSION_TABLE = "sqlbuffer_version"
"""Name of Alembic's version table."""

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for SQLite's one writer's slot."""

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON().with_variant(JSONB(), "postgresql")
CLUSTERED: Any = {"sqlite_with_rowid": False}
"""Table keywords: rows are stored in the order of the primary key where the database can."""


def where(condition: sa.ColumnElement[bool]) -> Any:
    """Return the index keywords that make an index partial."""
    return {"sqlite_where": condition, "postgresql_where": condition}


Columns: TypeAlias = Mapping[str, Sequence[Any]]


class Timestamp(TypeDecorator[dt.datetime]):
    """A UTC time, timezone-aware in Python: timestamptz on PostgreSQL, ISO 8601 text on SQLite."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        return sa.DateTime(timezone=True) if dialect.name == "postgresql" else sa.Text()

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(dt.timezone.utc).isoformat(timespec="milliseconds")

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> dt.datetime | None:
        if value is None:
            return None
        time = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
        return time.astimezone(dt.timezone.utc)


class now(sa.sql.functions.FunctionElement[dt.datetime]):
    """The database's own time: no host's clock is ever compared with another's."""

    type = Timestamp()
    inherit_cache = True  # of a FunctionElement: without it every statement is compiled anew at each execution


class ago(sa.sql.expression.ColumnElement[dt.datetime]):
    """The database's own time some seconds ago.

    Args:
        seconds: How long ago.
    """

    type = Timestamp()
    inherit_cache = False

    def __init__(self, seconds: float) -> None:
        self.seconds = float(seconds)


@compiles(ago, "sqlite")
def _sqlite_ago(element: ago, *_: Any, **__: Any) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', '-{element.seconds:.3f} seconds')"


@compiles(ago, "postgresql")
def _postgresql_ago(element: ago, *_: Any, **__: Any) -> str:
    return f"clock_timestamp() - make_interval(secs => {element.seconds:.3f})"


@compiles(now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"


@compiles(now, "postgresql")
def _postgresql_now(*_: Any, **__: Any) -> str:
    return "clock_timestamp()"


@dataclasses.dataclass(frozen=True)
class Rows:
    """The shape of rows that travel with a statement, which reads them as a relation."""

    name: str
    columns: tuple[tuple[str, TypeEngine[Any]], ...]

    def parameter(self, column: str) -> str:
        """Return the name of the bound parameter that carries a column."""
        return f"{self.name}_{column}"


class Receipt(NamedTuple):
    """What a transaction leaves in the table `receipts`: the number of the transaction of one connection."""

    connection: str
    number: int


class Dialect(abc.ABC):
    """What the rest of the package asks of a database."""

    schema: ClassVar[str | None]
    claim_deletes: ClassVar[bool]
    adds_in_bulk: ClassVar[bool]

    @abc.abstractmethod
    def exists(self, url: sa.URL) -> bool:
        """Tell whether there is a database to read from."""

    @abc.abstractmethod
    def caution(self, url: sa.URL) -> str | None:
        """Return what speaks against this database where it is, if anything does."""

    @abc.abstractmethod
    def writer(self, url: sa.URL, *, durability: str) -> sa.Engine:
        """Return an engine whose transactions may write from their first statement on."""

    @abc.abstractmethod
    def owner(self, url: sa.URL) -> sa.Engine:
        """Return an engine that creates and upgrades the schema."""

    @abc.abstractmethod
    def reader(self, url: sa.URL) -> sa.Engine:
        """Return an engine that is only read from, and never waits for a writer."""

    @abc.abstractmethod
    def relation(self, rows: Rows) -> sa.FromClause:
        """Return the relation in which a statement reads the rows that travel with it."""

    @abc.abstractmethod
    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        """Send the rows ahead, or return them as the parameters that the statement needs."""

    @abc.abstractmethod
    def each(self, rows: Rows) -> Any:
        """Return what stands for the columns of a row, by name, in a statement that is for each row."""

    @abc.abstractmethod
    def insert_each(self, table: sa.Table, values: Mapping[str, Any]) -> Any:
        """Return an INSERT for each row, which knows `on_conflict_do_nothing`."""

    @abc.abstractmethod
    def execute_each(
        self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, constants: Mapping[str, Any]
    ) -> int:
        """Execute a statement for each row, in their order; return how many rows of the database it has changed."""

    @abc.abstractmethod
    def changed_by_each(
        self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, constants: Mapping[str, Any]
    ) -> list[bool]:
        """Execute a statement for each row, the first column of which is one of the table too; tell which found it."""

    @abc.abstractmethod
    def lock(self, connection: sa.Connection, buffer_id: int, *, exclusive: bool = False) -> None:
        """Lock a buffer's race until the transaction ends: shared to use its clock, exclusive to move every key."""

    @abc.abstractmethod
    def claim(self, statement: sa.Select[Any], table: sa.Table) -> sa.FromClause:
        """Return the rows that a statement selects from `table`, passing over those that another claim has locked.

        Where `claim_deletes`, they leave the table with it.
        """

    @abc.abstractmethod
    def skip_locked(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        """Lock the rows of `table` that a statement selects, passing over those that another claim has locked."""

    @abc.abstractmethod
    def lock_rows(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        """Lock the rows of `table` that a statement selects, waiting for whoever has them."""

    @abc.abstractmethod
    def upsert(self, table: sa.Table) -> Any:
        """Return an INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing`."""

    @abc.abstractmethod
    def json(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Read a column of JSON text as the JSON type."""

    @abc.abstractmethod
    def tables(self, connection: sa.Connection) -> set[str]:
        """Return the names of the tables and views that stand where ours would."""

    @abc.abstractmethod
    def lock_schema(self, connection: sa.Connection) -> None:
        """Make sure that nobody else creates or upgrades the schema until the transaction ends."""

    @abc.abstractmethod
    def lock_tables(self, connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
        """Make sure that nobody else writes into tables until the transaction ends."""

    @abc.abstractmethod
    def grants(self, url: sa.URL, *, reader: str, worker: str) -> list[str]:
        """Return the SQL that lets one role read a database's buffers, and another one work on them."""

    @abc.abstractmethod
    def damage(self, connection: sa.Connection) -> list[str]:
        """Return what the database itself finds wrong with its storage."""

    @abc.abstractmethod
    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        """Tell whether a transaction was given up for another one's sake, and would do if run again."""

    @abc.abstractmethod
    def is_lost(self, error: sa.exc.DBAPIError) -> bool:
        """Tell whether the connection was lost, or none could be made: another one may do."""

    @abc.abstractmethod
    def receipt(self, connection: sa.Connection) -> Receipt | None:
        """Return what proves that the transaction under way was committed; None where its answer cannot be lost."""

    @abc.abstractmethod
    def end(self, connection: sa.Connection, receipt: Receipt) -> bool:
        """End the transaction of a lost connection if the server goes on with it; tell whether it has ended."""

    @abc.abstractmethod
    def was_committed(self, connection: sa.Connection, receipt: Receipt) -> bool:
        """Tell whether a transaction that has ended was committed."""

    @abc.abstractmethod
    def advice(self, error: BaseException) -> str:
        """Return what to do about an error of the database."""

    # -- SQL that a person types --------------------------------------------------------------------------------------

    @abc.abstractmethod
    def inspector(self, url: sa.URL) -> sa.Engine:
        """Return an engine for SQL that is not ours: one statement at a time, which can read and nothing else."""

    @abc.abstractmethod
    def side_effects(self, connection: sa.Connection, sql: str) -> list[str]:
        """Return the functions called in SQL that is not ours which may do more than read, as far as can be told."""


def first_line(message: str) -> str:
    """Return the first line of a driver's message."""
    return message.strip().split("\n", 1)[0]


_PRAGMAS = (
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -65536",
    "mmap_size = 1073741824",
    "wal_autocheckpoint = 8000",
    "journal_size_limit = 67108864",
)
"""64 MB of cache; up to 32 MB of log before it is written back, so that a page often changed is written once."""


_SMALLEST_FILE = 512
"""Bytes of the smallest page that SQLite has."""


class SQLite(Dialect):
    """One file. Writers take turns (BEGIN IMMEDIATE); readers see the last commit and wait for nobody (WAL)."""

    schema = None
    claim_deletes = False
    adds_in_bulk = False

    def exists(self, url: sa.URL) -> bool:
        return os.path.exists(url.database or "")

    def caution(self, url: sa.URL) -> str | None:
        kind = network_file_system(pathlib.Path(url.database or ""))
        if kind is None:
            return None
        return (
            f"{url.database} is on a network file system ({kind}), whose locks SQLite cannot trust: put it on a local "
            "disk, or use PostgreSQL."
        )

    def writer(self, url: sa.URL, *, durability: str) -> sa.Engine:
        synchronous = {"normal": "NORMAL", "full": "FULL"}[durability]
        engine = self._engine(url, "rwc", ["PRAGMA journal_mode = WAL", f"PRAGMA synchronous = {synchronous}"])

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    def owner(self, url: sa.URL) -> sa.Engine:
        return self.writer(url, durability="full")

    def reader(self, url: sa.URL) -> sa.Engine:
        engine = self._engine(url, "rw", [])  # not query_only, which forbids temporary tables too

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN DEFERRED")

        return engine

    @staticmethod
    def _engine(url: sa.URL, mode: str, pragmas: Iterable[str]) -> sa.Engine:
        file = pathlib.Path(url.database or "").absolute()

        def connect() -> sqlite3.Connection:
            if file.is_file() and 0 < file.stat().st_size < _SMALLEST_FILE:  # SQLite would take it for an empty one
                raise sqlite3.DatabaseError("file is not a database")
            connection = sqlite3.connect(
                f"file:{urllib.parse.quote(os.fspath(file))}?mode={mode}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            for statement in pragmas:
                connection.execute(statement)
            return connection

        # One connection, handed from thread to thread: a second writer could only wait for the first.
        size = 1 if mode == "rwc" else 4
        engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool, pool_size=size, max_overflow=0)

        @sa.event.listens_for(engine, "rollback")
        def _forget(connection: sa.Connection) -> None:
            connection.info.pop("loaded", None)  # temporary tables go with the transaction that created them

        return engine

    def relation(self, rows: Rows) -> sa.FromClause:
        return _temporary_table(rows)

    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        # A temporary table in memory: SQLite has no arrays, JSON would not carry floats to the last bit nor blobs,
        # and VALUES stops at 32,766 parameters.
        name = f"temp.{rows.name}"
        loaded = connection.info.setdefault("loaded", set())
        if rows.name not in loaded:
            names = ", ".join(column for column, _ in rows.columns)
            connection.exec_driver_sql(f"CREATE TEMPORARY TABLE IF NOT EXISTS {rows.name} ({names})")
            loaded.add(rows.name)
        connection.exec_driver_sql(f"DELETE FROM {name}")
        values = list(zip(*(columns[column] for column, _ in rows.columns), strict=True))
        if values:
            marks = ", ".join("?" * len(rows.columns))
            connection.exec_driver_sql(f"INSERT INTO {name} VALUES ({marks})", values)
        return {}

    def each(self, rows: Rows) -> Any:
        return _parameters(rows)

    def insert_each(self, table: sa.Table, values: Mapping[str, Any]) -> Any:
        return sqlite.insert(table).values(values)

    def execute_each(
        self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, constants: Mapping[str, Any]
    ) -> int:
        # Through the driver: rows would be written twice by way of a temporary table.
        sql, values = _row_by_row(connection.dialect, statement, rows, columns, constants)
        return connection.exec_driver_sql(sql, values).rowcount

    def changed_by_each(
        self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, constants: Mapping[str, Any]
    ) -> list[bool]:
        sql, values = _row_by_row(connection.dialect, statement, rows, columns, constants)
        cursor: Any = connection.connection.cursor()
        return [cursor.execute(sql, row).rowcount > 0 for row in values]

    def lock(self, connection: sa.Connection, buffer_id: int, *, exclusive: bool = False) -> None:
        """Every writing transaction has the file to itself."""

    def claim(self, statement: sa.Select[Any], table: sa.Table) -> sa.FromClause:
        return statement.subquery("head")

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

    def lock_schema(self, connection: sa.Connection) -> None:
        """BEGIN IMMEDIATE has done so."""

    def lock_tables(self, connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
        """BEGIN IMMEDIATE has done so."""

    def grants(self, url: sa.URL, *, reader: str, worker: str) -> list[str]:
        raise InvalidArgument("SQLite has no roles: who may read or write is said by the rights on the file.")

    def damage(self, connection: sa.Connection) -> list[str]:
        found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars()
        return [f"the file is damaged: {line}." for line in found if line != "ok"]

    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        return False  # one writer at a time

    def is_lost(self, error: sa.exc.DBAPIError) -> bool:
        return False  # a file has no connections to lose

    def receipt(self, connection: sa.Connection) -> Receipt | None:
        return None

    def end(self, connection: sa.Connection, receipt: Receipt) -> bool:
        return True

    def was_committed(self, connection: sa.Connection, receipt: Receipt) -> bool:
        return False

    def advice(self, error: BaseException) -> str:
        message = str(getattr(error, "orig", error)).lower()  # without the SQL and its values
        for sign, way_out in {
            "unable to open": "the folder must exist and the file must be readable and writable by you",
            "readonly": "the file or its folder is read-only: make both writable (chmod u+w)",
            "not a database": "the file is not an SQLite database: give the path of another file",
            "malformed": "the file is corrupt: restore a copy, or save what is left with `sqlite3 FILE .recover`",
            "disk i/o error": "the disk fails, or a quota is used up: check both, and that the file was not truncated",
            "is full": "the disk is full: make room; nothing stored was lost",
            "locked": f"another program held the file for over {BUSY_TIMEOUT_S:.0f} s: close it and try again",
        }.items():
            if sign in message:
                return way_out
        return "see the message of SQLite above"

    def inspector(self, url: sa.URL) -> sa.Engine:
        engine = self._engine(url, "ro", ["PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF"])

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            driver: Any = connection.connection.driver_connection
            driver.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
            driver.set_progress_handler(_keep_going, 1_000_000)
            driver.set_authorizer(_authorize_reading)

        return engine.execution_options(no_parameters=True, sqlite_raw_colnames=True)

    def side_effects(self, connection: sa.Connection, sql: str) -> list[str]:
        return []  # the authorizer sees every call


def _authorize_reading(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    """Allow a statement of SQLite what a SELECT needs, whatever its text looks like."""
    reads = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    is_harmless = function not in ("load_extension", "fts3_tokenizer") or action != sqlite3.SQLITE_FUNCTION
    return sqlite3.SQLITE_OK if reads and is_harmless else sqlite3.SQLITE_DENY


def _keep_going() -> int:
    """Let Python look for Ctrl-C now and then: a statement of SQLite would run to its end, however far that is."""
    return 0


@functools.cache
def _parameters(rows: Rows) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        **{name: sa.bindparam(rows.parameter(name), type_=kind) for name, kind in rows.columns}
    )


def _row_by_row(
    dialect: sa.Dialect, statement: Any, rows: Rows, columns: Columns, constants: Mapping[str, Any]
) -> tuple[str, list[tuple[Any, ...]]]:
    """Return the SQL of a statement for each row, and its parameters row by row."""
    compiled = _compiled(statement, dialect)
    values: dict[str, Iterable[Any]] = {
        name: itertools.repeat(value) for name, value in {**compiled.params, **constants}.items()
    }
    values |= {rows.parameter(name): column for name, column in columns.items()}
    return str(compiled), list(zip(*(values[name] for name in compiled.positiontup), strict=False))


@functools.cache
def _compiled(statement: Any, dialect: sa.Dialect) -> Any:
    return statement.compile(dialect=dialect)


@functools.cache
def _temporary_table(rows: Rows) -> sa.Table:
    return sa.Table(rows.name, sa.MetaData(), *(sa.Column(name, kind) for name, kind in rows.columns))


class PostgreSQL(Dialect):
    """A server. All tables live in a schema of their own; claims pass over each other's rows."""

    schema = SCHEMA
    claim_deletes = True
    adds_in_bulk = True

    def exists(self, url: sa.URL) -> bool:
        return True

    def caution(self, url: sa.URL) -> str | None:
        return None

    def writer(self, url: sa.URL, *, durability: str) -> sa.Engine:
        engine = self._engine(url, pool_size=2)
        settings = f"{_PLAN_FOR_MEMORY}; {_SYNCHRONOUS}" if durability == "full" else _PLAN_FOR_MEMORY

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.info["number"] = connection.info.get("number", 0) + 1
            connection.exec_driver_sql(f"BEGIN ISOLATION LEVEL READ COMMITTED; {settings}; {_leave(connection)}")

        return engine

    def owner(self, url: sa.URL) -> sa.Engine:
        return self._engine(url, pool_size=1, begins="BEGIN")

    def reader(self, url: sa.URL) -> sa.Engine:
        begins = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_PLAN_FOR_MEMORY}"
        return self._engine(url, pool_size=4, begins=begins)

    @staticmethod
    def _engine(url: sa.URL, *, pool_size: int, begins: str = "") -> sa.Engine:
        """Return an engine whose transactions begin with some SQL, all of it sent at once."""
        url, options = _driver_options(url)
        try:
            engine = sa.create_engine(
                url.set(drivername="postgresql+psycopg"),
                pool_size=pool_size,
                max_overflow=0,
                execution_options={"schema_translate_map": {None: SCHEMA}},
                connect_args={"connect_timeout": 10, "autocommit": True, **options},  # BEGIN is sent below
            )
        except ModuleNotFoundError as exc:
            raise MissingExtra('PostgreSQL needs psycopg: pip install "sqlbuffer[postgres]".') from exc

        @sa.event.listens_for(engine, "do_connect")
        def _name(_: Any, record: Any, __: Any, parameters: dict[str, Any]) -> None:
            record.info["connection"] = secrets.token_hex(8)
            parameters["application_name"] = f"sqlbuffer {record.info['connection']}"

        from psycopg.types.array import ListBinaryDumper  # an extra: known to be there by now

        @sa.event.listens_for(engine, "connect")
        def _send_in_binary(connection: Any, _: Any) -> None:
            # As text, which is the default, every element of an array would be searched for quotes.
            connection.adapters.register_dumper(list, ListBinaryDumper)

        if begins:

            @sa.event.listens_for(engine, "begin")
            def _begin(connection: sa.Connection) -> None:
                connection.exec_driver_sql(begins)

        return engine

    def relation(self, rows: Rows) -> sa.FromClause:
        return _unnest(rows)

    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        return {rows.parameter(name): list(columns[name]) for name, _ in rows.columns}

    def lock(self, connection: sa.Connection, buffer_id: int, *, exclusive: bool = False) -> None:
        # Advisory, so that nothing is written: a row lock would make the row of the buffer the hot spot of all claims.
        lock = sa.func.pg_advisory_xact_lock if exclusive else sa.func.pg_advisory_xact_lock_shared
        connection.execute(sa.select(lock(_ADVISORY_CLASS, buffer_id)))

    def each(self, rows: Rows) -> Any:
        return self.relation(rows).c

    def insert_each(self, table: sa.Table, values: Mapping[str, Any]) -> Any:
        columns = (value.label(name) for name, value in values.items())
        return postgresql.insert(table).from_select(list(values), sa.select(*columns), include_defaults=False)

    def execute_each(
        self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, constants: Mapping[str, Any]
    ) -> int:
        parameters = {**self.load(connection, rows, columns), **constants}
        return connection.execute(statement, parameters, execution_options={"preserve_rowcount": True}).rowcount

    def changed_by_each(
        self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, constants: Mapping[str, Any]
    ) -> list[bool]:
        key, _ = rows.columns[0]
        found = connection.execute(_returning(statement, key), {**self.load(connection, rows, columns), **constants})
        changed = set(found.scalars())
        return [value in changed for value in columns[key]]

    def claim(self, statement: sa.Select[Any], table: sa.Table) -> sa.FromClause:
        head = self.skip_locked(statement.add_columns(table.c.buffer_id), table).cte("head")
        same = (column == head.c[column.key] for column in table.primary_key.columns)
        return sa.delete(table).where(*same).returning(*statement.selected_columns).cte("claimed")

    def skip_locked(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        return statement.with_for_update(skip_locked=True, of=table)

    def lock_rows(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        return statement.with_for_update(of=table)

    def upsert(self, table: sa.Table) -> Any:
        return postgresql.insert(table)

    def json(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.cast(column, Json)

    def tables(self, connection: sa.Connection) -> set[str]:
        inspector = sa.inspect(connection)
        return {*inspector.get_table_names(schema=SCHEMA), *inspector.get_view_names(schema=SCHEMA)}

    def lock_schema(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_CLASS, 0)))
        connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))

    def lock_tables(self, connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
        names = ", ".join(f"{SCHEMA}.{table.name}" for table in tables)
        connection.exec_driver_sql(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")

    def grants(self, url: sa.URL, *, reader: str, worker: str) -> list[str]:
        everybody = f"{_quoted(reader)}, {_quoted(worker)}"
        tables, sequences = f"ALL TABLES IN SCHEMA {SCHEMA}", f"ALL SEQUENCES IN SCHEMA {SCHEMA}"
        return [
            *([f"GRANT CONNECT ON DATABASE {_quoted(url.database)} TO {everybody}"] if url.database else []),
            f"GRANT USAGE ON SCHEMA {SCHEMA} TO {everybody}",
            f"GRANT SELECT ON {tables} TO {everybody}",
            f"GRANT INSERT, UPDATE, DELETE ON {tables} TO {_quoted(worker)}",
            f"REVOKE INSERT, UPDATE, DELETE ON {SCHEMA}.{VERSION_TABLE} FROM {_quoted(worker)}",
            f"GRANT USAGE ON {sequences} TO {_quoted(worker)}",
        ]

    def damage(self, connection: sa.Connection) -> list[str]:
        return []  # the server checks its pages as it reads them

    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        return getattr(error.orig, "sqlstate", None) in ("40P01", "40001")

    def is_lost(self, error: sa.exc.DBAPIError) -> bool:
        state = getattr(error.orig, "sqlstate", None)
        if state is None:  # what the server had no chance to say
            return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)
        return error.connection_invalidated or state.startswith("08") or state in ("57P01", "57P02", "57P03")

    def receipt(self, connection: sa.Connection) -> Receipt | None:
        return Receipt(connection.info["connection"], connection.info["number"])

    def end(self, connection: sa.Connection, receipt: Receipt) -> bool:
        # A server may not notice for hours that its client is gone.
        running = sa.text(
            "SELECT count(*) FILTER (WHERE NOT pg_terminate_backend(pid, 1000)) FROM pg_stat_activity "
            "WHERE application_name = :name"
        )
        return bool(connection.scalar(running, {"name": f"sqlbuffer {receipt.connection}"}) == 0)

    def was_committed(self, connection: sa.Connection, receipt: Receipt) -> bool:
        newest = sa.text(f"SELECT number FROM {SCHEMA}.receipts WHERE connection = :connection")
        return bool(connection.scalar(newest, {"connection": receipt.connection}) == receipt.number)

    def advice(self, error: BaseException) -> str:
        message = str(getattr(error, "orig", error)).lower()  # without the SQL and its values
        for sign, way_out in {
            "password": "check user and password in the URL",
            "does not exist": "create it first, or correct the URL",
            "permission denied": "grant the rights that are missing, or use another role",
            "read-only": "this server or connection is read-only: use the primary",
        }.items():
            if sign in message:
                return way_out
        return "check that the server runs and that host and port in the URL are right"

    def inspector(self, url: sa.URL) -> sa.Engine:
        # A server-side cursor is for one SELECT: whatever follows a semicolon, COMMIT, SET, COPY and DO are errors.
        engine = self._engine(url, pool_size=1).execution_options(no_parameters=True, stream_results=True)

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            options = {"stream_results": False}
            connection.exec_driver_sql(f"BEGIN READ ONLY; SET LOCAL search_path = {SCHEMA}", execution_options=options)

        return engine

    def side_effects(self, connection: sa.Connection, sql: str) -> list[str]:
        # A SELECT in a read-only transaction may still call functions that lock, signal, write files or set parameters.
        # What does more than read is volatile, and is called by its name.
        volatile = connection.exec_driver_sql(
            "SELECT DISTINCT proname FROM pg_catalog.pg_proc WHERE provolatile = 'v' ORDER BY proname"
        ).scalars()
        names = "|".join(re.escape(name) for name in volatile if name not in _HARMLESS)
        calls = re.finditer(rf"(?<!\w)({names})\"?\s*(?:\(|--|/\*)", sql, re.IGNORECASE)
        disguised = re.findall(r'u&"', sql, re.IGNORECASE)  # a name in Unicode escapes
        return sorted({f"{call[1]}()" for call in calls} | set(disguised))


def _quoted(name: str) -> str:
    """Return an identifier as SQL has it, whatever is in it."""
    return '"{}"'.format(name.replace('"', '""'))


_ADVISORY_CLASS = 0x5B0F

# What a batch needs is scattered, and in memory. At the default of 4 the planner rather reads and sorts the whole pool
# for each chunk of a refresh. Both are set for one transaction: behind a proxy that pools transactions the next one
# may be another session's.
_PLAN_FOR_MEMORY = "SET LOCAL random_page_cost = 1"
_SYNCHRONOUS = "SET LOCAL synchronous_commit = on"


def _leave(connection: sa.Connection) -> str:
    """Return the SQL by which a transaction leaves its receipt.

    The number of the transaction itself would not do: a server that crashed may give it to another one, whose commit
    would then be taken for this one's.
    """
    receipt = f"'{connection.info['connection']}', {connection.info['number']}, now()"
    return (
        f"INSERT INTO {SCHEMA}.receipts (connection, number, written_at) VALUES ({receipt}) "
        "ON CONFLICT (connection) DO UPDATE SET number = excluded.number, written_at = excluded.written_at"
    )


def _driver_options(url: sa.URL) -> tuple[sa.URL, dict[str, Any]]:
    """Take out of a URL what the driver wants as a number: `prepare_threshold=none` prepares no statements."""
    given = url.query.get("prepare_threshold")
    if given is None:
        return url, {}
    if not isinstance(given, str) or not (given == "none" or given.isdecimal()):
        raise InvalidArgument(f"prepare_threshold must be a number of executions, or none; got {given!r}.")
    return url.difference_update_query(["prepare_threshold"]), {
        "prepare_threshold": None if given == "none" else int(given)
    }


_HARMLESS = (
    *("random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "array_sample", "array_shuffle"),
    *("clock_timestamp", "timeofday", "pg_relation_size", "pg_table_size", "pg_indexes_size"),
    *("pg_total_relation_size", "pg_database_size", "pg_is_in_recovery"),
)
"""Functions that PostgreSQL calls volatile though they only read."""


@functools.cache
def _returning(statement: Any, column: str) -> Any:
    return statement.returning(statement.table.c[column])


@functools.cache
def _unnest(rows: Rows) -> sa.FromClause:
    arrays = (
        sa.cast(sa.bindparam(rows.parameter(name), type_=ARRAY(kind)), ARRAY(kind)) for name, kind in rows.columns
    )
    columns = (sa.column(name, kind) for name, kind in rows.columns)
    return sa.func.unnest(*arrays).table_valued(*columns, name=rows.name).render_derived(name=rows.name)


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
    if not parsed.database or ":memory:" in parsed.database:
        raise InvalidArgument("an SQLite buffer in memory could be neither resumed nor shared: use sqlite:///FILE.")
    return parsed, _SQLITE


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
