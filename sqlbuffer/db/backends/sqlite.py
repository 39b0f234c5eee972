"""SQLite: one file, one writer at a time, and rows that are sent one by one."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import json
import os
import pathlib
import sqlite3
import types
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from sqlbuffer.db.backends.base import (
    POOL_TIMEOUT_S,
    Columns,
    Dialect,
    Lock,
    Receipt,
    Rows,
    needs_begin,
)
from sqlbuffer.db.backends.sqlite_files import network_file_system
from sqlbuffer.db.backends.sqlite_libraries import STANDARD, require_one_library, watch
from sqlbuffer.db.backends.sqlite_lock import (
    Passage,
    SameFile,
    WriterLock,
    file_id,
    hold_back,
    is_affected,
    is_held_back,
    require_not_inherited,
    require_plain,
    require_same,
)
from sqlbuffer.db.retry import retrying
from sqlbuffer.db.types import Json, Timestamp, as_text
from sqlbuffer.errors import InvalidArgument, shown, tampered

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for SQLite's one writer's slot."""

_PRAGMAS = (
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -65536",
    "mmap_size = 2147418112",
    "journal_size_limit = 67108864",
)
"""64 MB of cache; all of the file in memory that SQLite maps, 2 GB at most."""

CHECKPOINT_PAGES = 8000
"""Pages in the log, 32 MB, from which on a COMMIT writes them back: a page often changed is written once."""

_BEGIN_WRITING = "BEGIN IMMEDIATE"

_SMALLEST_FILE = 512
"""Bytes of the smallest page that SQLite has."""


_SIGNS = {
    "SQLITE_IOERR_SHORT_READ": "the file or its -wal is shorter than SQLite left it: it was truncated, or the -wal "
    "deleted, while in use; end all processes that use it, and restore a copy if `sqlbuffer db check` finds damage",
    "SQLITE_IOERR_LOCK": "the file system refuses a lock: put the file on a local disk",
    "SQLITE_IOERR_RDLOCK": "the file system refuses a lock: put the file on a local disk",
    "SQLITE_IOERR_SHMLOCK": "the file system refuses a lock: put the file on a local disk",
    "SQLITE_READONLY_DBMOVED": "the file was removed or moved while in use: restore the file, or open the store again",
    "unable to open": "the folder must exist and the file must be readable and writable by you",
    "readonly": "the file or its folder is read-only: make both writable (chmod u+w), or copy the file and its -wal",
    "not a database": "the file is not an SQLite database: give the path of another file",
    "malformed": "the file is corrupt: restore a copy, or save what is left with `sqlite3 FILE .recover`",
    "disk i/o error": "the disk fails, or a quota is used up: check both, and that the file was not truncated",
    "is full": "the disk is full: make room; no stored data was lost",
    "locked": f"another program held the file for over {BUSY_TIMEOUT_S:.0f} s: close that program and try again",
}
"""What to do about an error, by its name or by what its message has in it; the first that fits."""

if TYPE_CHECKING:
    _Driver = sqlite3.Connection
else:
    _Driver = object


class _Connection(_Driver):
    """What is added to a driver's connections: a writer's lets go of the lock when its transaction has ended."""

    lock: WriterLock
    same: SameFile

    def commit(self) -> None:
        """Commit; one that fails keeps the lock until the rollback."""
        super().commit()
        self.let_go()

    def rollback(self) -> None:
        """Roll back."""
        try:
            super().rollback()
        finally:
            self.let_go()

    def close(self) -> None:
        """Close; from now on another file may have the name."""
        passage = Passage(waits=False)
        if hasattr(self, "same"):
            self.same.forget()  # first: another thread that looks now would find the log gone, which SQLite deletes
        try:
            super().close()
        finally:
            self.let_go()
            del passage

    def let_go(self) -> None:
        """Let the next writer go on."""
        if hasattr(self, "lock"):
            self.lock.release()


class SQLite(Dialect):
    """One file. Writers take turns (BEGIN IMMEDIATE); readers see the last commit and wait for no process (WAL).

    Args:
        driver: The module: `sqlite3`, or one with the same functions and another SQLite library.
    """

    schema = None
    claim_deletes = False
    adds_in_bulk = False
    largest = 990_000_000  # SQLITE_MAX_LENGTH is 1e9, for a whole row
    writers_overlap = False
    interleaved = 1  # each page is written by one transaction only

    def __init__(self, driver: Any = sqlite3) -> None:
        self._driver = driver
        self._library = driver.__name__.partition(".")[0]
        if self._library != STANDARD:
            watch()
        self._connection: Any = type("Connection", (_Connection, driver.Connection), {})

    def exists(self, url: sa.URL) -> bool:
        return os.path.exists(url.database or "")

    def identity(self, url: sa.URL) -> object:
        return file_id(url.database or "")

    def caution(self, url: sa.URL) -> str | None:
        kind = network_file_system(pathlib.Path(url.database or ""))
        if kind is None:
            return None
        return (
            f"{url.database} is on a network file system ({kind}), whose locks SQLite cannot trust: put it on a local "
            "disk, or use PostgreSQL."
        )

    def writer(self, url: sa.URL, *, durability: str, sees_one_state: bool = False) -> sa.Engine:
        return self._writer(url, "rw", durability)

    def owner(self, url: sa.URL) -> sa.Engine:
        return self._writer(url, "rwc", "full")

    def _writer(self, url: sa.URL, mode: str, durability: str) -> sa.Engine:
        synchronous = {"normal": "NORMAL", "full": "FULL"}[durability]
        pragmas = [
            f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {synchronous}",
        ]
        # One connection, handed from thread to thread: a second writer could only wait for the first. It has opened its
        # log by now, which a reader does with its first statement.
        engine = self._engine(url, mode, pragmas, size=1)

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            self._begin_writing(connection)
            _set_time(connection)

        return engine

    def reader(self, url: sa.URL) -> sa.Engine:
        # Not query_only, which forbids temporary tables too.
        engine = self._engine(url, "rw", [], size=4)

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            if needs_begin(connection):
                connection.exec_driver_sql("BEGIN DEFERRED")
            _set_time(connection)

        return engine

    def _begin_writing(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        try:
            if not driver.lock.acquire(BUSY_TIMEOUT_S):
                locked = self._driver.OperationalError("database is locked")
                raise sa.exc.DBAPIError.instance(_BEGIN_WRITING, None, locked, self._driver.Error)
            connection.exec_driver_sql(_BEGIN_WRITING)
        finally:
            driver.same.require()  # what it says is the cause, where BEGIN has failed too

    def _engine(self, url: sa.URL, mode: str, pragmas: Iterable[str], *, size: int) -> sa.Engine:
        file = url.database or ""

        def connect() -> _Connection:
            passage = Passage(waits=True)
            require_plain(file, may_be_new=mode == "rwc")
            require_not_inherited(file)
            require_same(file)
            require_one_library(file, self._library)
            if (
                os.path.isfile(file) and 0 < os.path.getsize(file) < _SMALLEST_FILE
            ):  # SQLite would take it for empty
                raise self._driver.DatabaseError("file is not a database")
            connection: _Connection = self._driver.connect(
                f"file:{urllib.parse.quote(file)}?mode={mode}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
                factory=self._connection,
            )
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            for statement in pragmas:
                retrying(_is_locked)(
                    connection.execute, statement
                )  # the switch to WAL waits for no process by itself
            connection.lock = WriterLock(file)
            connection.same = SameFile(
                file, has_log=size == 1, is_ours=mode != "ro", library=self._library
            )
            del passage
            return connection

        engine = sa.create_engine(
            "sqlite://",
            module=self._driver,
            creator=connect,
            poolclass=sa.QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            json_deserializer=_from_json,
        )

        @sa.event.listens_for(engine, "connect")
        def _know_the_time(connection: _Connection, record: sa.pool.ConnectionPoolEntry) -> None:
            # Nothing of ours that is interpreted: SQLite would swallow the Ctrl-C that Python raises in it.
            connection.create_function("utc_now", 0, functools.partial(record.info.get, "time"))
            connection.create_function("note", 1, record.info.setdefault("noted", []).append)

        @sa.event.listens_for(engine, "invalidate")
        def _let_go(connection: _Connection, *_: Any) -> None:
            with contextlib.suppress(self._driver.Error):
                connection.rollback()  # else its lock stays for as long as a traceback remembers the cursor

        @sa.event.listens_for(engine, "checkin")
        def _close_for_a_fork(_: object, record: sa.pool.ConnectionPoolEntry) -> None:
            if is_held_back():  # a pool that has been replaced would keep it
                record.invalidate()

        @sa.event.listens_for(engine, "rollback")
        def _forget(connection: sa.Connection) -> None:
            if not connection.invalidated:  # as it is where Ctrl-C ended a statement
                connection.info.pop(
                    "loaded", None
                )  # temporary tables go with the transaction that created them

        return engine

    def may_fork(self) -> bool:
        # The child would take its parent's locks for its own, and find the log deleted under it.
        return not hold_back()

    def relation(self, rows: Rows) -> sa.FromClause:
        return _temporary_table(rows)

    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        # A temporary table in memory: SQLite has no arrays, JSON would not carry floats to the last bit nor blobs,
        # and VALUES stops at 32,766 parameters.
        name = f"temp.{rows.name}"
        loaded = connection.info.setdefault("loaded", set())
        if rows.name not in loaded:
            names = ", ".join(column for column, _ in rows.columns)
            connection.exec_driver_sql(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {rows.name} ({names})"
            )
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
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> int:
        # Through the driver: rows would be written twice by way of a temporary table.
        sql, values = _row_by_row(connection.dialect, statement, rows, columns, constants)
        return connection.exec_driver_sql(sql, values).rowcount

    def changed_by_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> list[bool]:
        noted: list[Any] = connection.info["noted"]
        noted.clear()
        n_changed = self.execute_each(connection, statement, rows, columns, constants)
        key = columns[rows.columns[0][0]]
        if n_changed == len(key):
            return [True] * len(key)
        changed = set(noted)
        return [value in changed for value in key]

    def noted(self, rows: Rows, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # `executemany`, which takes less time than a call a row, does not tell which rows it has changed.
        key = getattr(self.each(rows), rows.columns[0][0])
        return sa.func.coalesce(sa.func.note(key), value, type_=value.type)

    def lock(self, connection: sa.Connection, buffer_id: int, locks: Mapping[Lock, bool]) -> None:
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
        raise InvalidArgument(
            "SQLite has no roles: the rights on the file decide who may read or write."
        )

    def lineage(self, connection: sa.Connection) -> str:
        name = connection.exec_driver_sql(
            "SELECT id FROM lineage"
        ).scalar()  # an inode may be given again
        try:
            found = os.stat(_file_of(connection))
        except OSError:  # the file is gone, and what is written goes nowhere
            return f"{name}/gone"
        return f"{name}/{found.st_dev}/{found.st_ino}"

    def about(self, connection: sa.Connection) -> str:
        version = f"SQLite {self._driver.sqlite_version} ({self._library})"
        if not is_affected(self._driver.sqlite_version_info):
            return f"{version}, not affected by the WAL-reset race"
        return f"{version}, affected by the WAL-reset race; guarded: each writer of sqlbuffer holds FILE-lock"

    def origin(self, connection: sa.Connection) -> str:
        # Not the number of the device: it may change when the host starts again. On a network file system neither is
        # the same for all hosts.
        file = _file_of(connection)
        if network_file_system(pathlib.Path(file)) is not None:
            return ""
        try:
            return str(os.stat(file).st_ino)
        except OSError:
            return ""

    def damage(self, connection: sa.Connection) -> list[str]:
        found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars()
        return [f"the file is damaged: {line}." for line in found if line != "ok"]

    def wrong_types(
        self, connection: sa.Connection, table: sa.Table, rows: sa.ColumnElement[bool]
    ) -> list[str]:
        found = connection.execute(sa.select(*_wrong(table)).where(rows)).one()._mapping
        return [
            f"{found[column.name]} rows of {table.name} have a {column.name} that is no {_kind(column)[1]}."
            for column in table.columns
            if found[column.name]
        ]

    def mend_integers(
        self, connection: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]
    ) -> int:
        table = column.table
        is_packed = sa.and_(
            sa.func.typeof(column) == "blob", sa.func.length(column).in_((1, 2, 4, 8))
        )
        raw = sa.type_coerce(column, sa.LargeBinary)
        number: sa.ColumnElement[int] = sa.literal_column("rowid", sa.Integer)
        packed = connection.execute(
            sa.select(number, raw).select_from(table).where(rows, is_packed)
        ).all()
        for place, value in packed:
            here = number == place
            right = {column.name: int.from_bytes(value, "little", signed=True)}
            connection.execute(sa.update(table).where(here).values(right).prefix_with("OR IGNORE"))
            connection.execute(
                sa.delete(table).where(here, is_packed)
            )  # there is another one under that key
        return len(packed)

    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        return False  # one writer at a time

    def shortage(self, connection: sa.Connection) -> str | None:
        return None

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
        message = str(getattr(error, "orig", error)).lower()  # without the SQL and its values
        name = getattr(
            getattr(error, "orig", error), "sqlite_errorname", ""
        )  # which Python 3.10 does not tell
        for sign, way_out in _SIGNS.items():
            if sign == name or sign in message:
                return way_out
        return ""

    def viewer(self, url: sa.URL) -> sa.Engine:
        engine = self._engine(
            url, "ro", ["PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF"], size=4
        )

        @sa.event.listens_for(engine, "connect")
        def _only_look(connection: Any, _: object) -> None:
            connection.set_authorizer(_authorize_looking)

        return engine

    def inspector(self, url: sa.URL) -> sa.Engine:
        engine = self.viewer(url)

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            driver: Any = connection.connection.driver_connection
            driver.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
            driver.set_progress_handler(_keep_going, 1_000_000)

        return engine.execution_options(no_parameters=True, sqlite_raw_colnames=True)

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
        driver: Any = connection.connection.driver_connection
        driver.set_authorizer(_authorize_reading)  # which sees every call
        try:
            yield
        finally:
            driver.set_authorizer(_authorize_looking)


_KINDS: list[tuple[type[Any], str, str]] = [
    (sa.Boolean, "integer", "bool"),
    (sa.Integer, "integer", "integer"),
    (sa.Double, "real", "number"),
    (sa.LargeBinary, "blob", "sequence of bytes"),
    (Timestamp, "text", "time"),
    (sa.JSON, "text", "JSON"),
    (sa.Text, "text", "text"),
]
"""How SQLite stores what columns hold, and what that is in words."""


def _kind(column: sa.Column[Any]) -> tuple[str, str]:
    return next((stored, words) for kind, stored, words in _KINDS if isinstance(column.type, kind))


@functools.cache
def _wrong(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Return how many rows have a wrong value, by column; as SQL, since to build it takes longer than to execute it."""
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
    """Tell whether a value is of another type than its column: SQLite takes any."""
    is_wrong: sa.ColumnElement[bool] = sa.func.typeof(column).not_in((_kind(column)[0], "null"))
    if isinstance(column.type, sa.Boolean):
        is_wrong = sa.or_(is_wrong, sa.type_coerce(column, sa.Integer).not_in((0, 1)))
    return is_wrong


def _set_time(connection: sa.Connection) -> None:
    """Set the time of a transaction, behind the lock: what another writer has committed is older."""
    connection.info["time"] = as_text(dt.datetime.now(dt.timezone.utc))


def _file_of(connection: sa.Connection) -> str:
    """Return the path of the file that a connection has opened."""
    return str(
        next(
            row[2] for row in connection.exec_driver_sql("PRAGMA database_list") if row[1] == "main"
        )
    )


def _is_locked(error: BaseException, _: int) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _authorize_looking(action: int, name: str | None, value: str | None, *_: str | None) -> int:
    """Deny what would lead a connection that only reads to other files, or let it write."""
    tells = name in _TELLING_PRAGMAS or (value is None and name not in _ACTING_PRAGMAS)
    leads_on = action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    return (
        sqlite3.SQLITE_DENY
        if leads_on or (action == sqlite3.SQLITE_PRAGMA and not tells)
        else sqlite3.SQLITE_OK
    )


_TELLING_PRAGMAS = frozenset(
    "foreign_key_check foreign_key_list index_info index_list index_xinfo integrity_check quick_check table_info "
    "table_list table_xinfo".split()
)
"""Those with a value that change nothing."""
_ACTING_PRAGMAS = frozenset("incremental_vacuum optimize shrink_memory wal_checkpoint".split())


def _authorize_reading(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    """Allow a statement of SQLite what a SELECT needs, whatever its text looks like."""
    reads = action in (
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    )
    is_harmless = (
        function not in ("load_extension", "fts3_tokenizer") or action != sqlite3.SQLITE_FUNCTION
    )
    return sqlite3.SQLITE_OK if reads and is_harmless else sqlite3.SQLITE_DENY


def _from_json(text: str | bytes) -> Any:
    """Read JSON, which is text as any other: nothing keeps a writer from storing what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise tampered(
            f"settings, meta or metrics are stored as {shown(text)}, which is not JSON"
        ) from exc


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
    if (
        "hash" in columns
    ):  # the driver looks for an adapter at each value of type bytes: 0.4 us, this copy 0.1
        values[rows.parameter("hash")] = map(bytearray, columns["hash"])
    return str(compiled), list(zip(*(values[name] for name in compiled.positiontup), strict=False))


@functools.lru_cache(maxsize=128)
def _compiled(statement: Any, dialect: sa.Dialect) -> Any:
    return statement.compile(dialect=dialect)


@functools.cache
def _temporary_table(rows: Rows) -> sa.Table:
    return sa.Table(
        rows.name, sa.MetaData(), *(sa.Column(name, kind) for name, kind in rows.columns)
    )
