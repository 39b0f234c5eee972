"""Engines for an SQLite file: opening connections, and the locks at BEGIN and COMMIT."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import json
import sqlite3
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import shown
from sqlbuffer.db.backends import driver, sqlite_forks
from sqlbuffer.db.backends.base import CACHED_STATEMENTS, POOL_TIMEOUT_S
from sqlbuffer.db.backends.sqlite_authorizer import authorize_viewer, shorten_values, until
from sqlbuffer.db.backends.sqlite_errors import BUSY_TIMEOUT_S, is_busy
from sqlbuffer.db.backends.sqlite_files import SameFile, is_too_small, require_plain, require_same
from sqlbuffer.db.backends.sqlite_forks import Passage, require_not_inherited
from sqlbuffer.db.backends.sqlite_libraries import STANDARD, require_one_library, watch
from sqlbuffer.db.backends.sqlite_lock import WriterLock
from sqlbuffer.db.backends.types import as_text
from sqlbuffer.db.retry import retrying

_PRAGMAS = (
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -65536",
    "mmap_size = 2147418112",
    "journal_size_limit = 67108864",
)
"""64 MB of cache; as much of the file in memory as SQLite maps, 2 GB."""

CHECKPOINT_PAGES = 8000
"""Pages in the log, 32 MB, from which on a COMMIT writes them back: fewer writes for hot pages."""

_BEGIN_WRITING = "BEGIN IMMEDIATE"

if TYPE_CHECKING:
    _Driver = sqlite3.Connection
else:
    _Driver = object


class _Connection(_Driver):
    """Mixin for a driver's connections: releases the writer's lock when its transaction ends."""

    lock: WriterLock
    same: SameFile

    def commit(self) -> None:
        """Commit; a COMMIT that fails keeps the lock until the rollback."""
        super().commit()
        if self.lock.fd is not None:
            self.lock.release()

    def rollback(self) -> None:
        """Roll back."""
        try:
            super().rollback()
        finally:
            if self.lock.fd is not None:
                self.lock.release()

    def close(self) -> None:
        """Close; from now on another file may have the name."""
        passage = Passage(waits=False)
        if hasattr(self, "same"):
            # First: another thread that looks now would find the log gone, which SQLite deletes.
            self.same.forget()
        try:
            super().close()
        finally:
            if hasattr(self, "lock"):
                self.lock.release()
            del passage


class Engines:
    """Makes the engines of one driver.

    Args:
        driver: The module: `sqlite3`, or one with the same functions and another SQLite library.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.warning: type[Exception] = driver.Warning
        self.library: str = driver.__name__.partition(".")[0]
        if self.library != STANDARD:
            watch()
        self._connection: Any = type("Connection", (_Connection, driver.Connection), {})
        self._statements: sa.util.LRUCache[Any, Any] = sa.util.LRUCache(CACHED_STATEMENTS)

    @functools.cached_property
    def _dialect(self) -> sa.Dialect:
        """SQLAlchemy's dialect, which all engines share, and with it their compiled statements.

        Compiled statements are cached by statement and dialect. With a dialect for each engine,
        each store compiled every statement again, which took half of a small store's time.
        """
        engine = sa.create_engine("sqlite://", module=self._driver, json_deserializer=_from_json)
        with engine.connect():  # the first connection tells the dialect the version of SQLite
            pass
        engine.dispose()
        return engine.dialect

    def writer(self, url: sa.URL, *, mode: str, durability: str) -> sa.Engine:
        """Return an engine whose transactions write; `mode` "rwc" creates the file."""
        synchronous = {"normal": "NORMAL", "full": "FULL"}[durability]
        pragmas = [
            f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {synchronous}",
        ]
        # One connection, handed from thread to thread: a second writer could only wait for the
        # first. The PRAGMAs have opened its log; a reader opens the log with its first statement.
        engine = self._engine(url, mode, pragmas, size=1, has_log=True)

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            driver.begin(connection)
            self._begin_writing(connection)
            _set_time(connection)

        return engine

    def _begin_writing(self, connection: sa.Connection) -> None:
        opened: Any = connection.connection.driver_connection
        try:
            if not opened.lock.acquire(BUSY_TIMEOUT_S):
                locked = self._driver.OperationalError("database is locked")
                raise sa.exc.DBAPIError.instance(_BEGIN_WRITING, None, locked, self._driver.Error)
            driver.run(connection, _BEGIN_WRITING)
        finally:
            opened.same.require()  # if BEGIN has failed too, a file that is gone is the cause

    def reader(self, url: sa.URL, *, mode: str = "rw") -> sa.Engine:
        """Return an engine that is only read from; `mode` "ro" needs no right to write the file."""
        # Not query_only, which forbids temporary tables too.
        engine = self._engine(url, mode, [], size=4)

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            driver.begin(connection)
            if not connection.get_execution_options().get("is_one_statement"):
                driver.run(connection, "BEGIN DEFERRED")
            _set_time(connection)["same"].require_for_reading()

        return engine

    def viewer(self, url: sa.URL) -> sa.Engine:
        """Return an engine for SQL of the user's own program, which can only read."""
        pragmas = ["PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF"]
        engine = self._engine(url, "ro", pragmas, size=4, is_ours=False)

        @sa.event.listens_for(engine, "connect")
        def _authorize(connection: Any, _: object) -> None:
            connection.set_authorizer(authorize_viewer)

        return engine

    def inspector(self, url: sa.URL, *, timeout_s: float | None = None) -> sa.Engine:
        """Return an engine for SQL that a person types, which can only read."""
        engine = self.viewer(url)

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            driver: Any = connection.connection.driver_connection
            driver.same.require()
            driver.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
            if timeout_s is not None:
                shorten_values(driver)
            driver.set_progress_handler(until(timeout_s), 100_000 if timeout_s is None else 100)

        return engine.execution_options(no_parameters=True, sqlite_raw_colnames=True)

    def _engine(
        self,
        url: sa.URL,
        mode: str,
        pragmas: Sequence[str],
        *,
        size: int,
        has_log: bool = False,
        is_ours: bool = True,
    ) -> sa.Engine:
        file = url.database or ""

        def connect() -> Any:
            passage = Passage(waits=True)
            connection = self._connect(file, mode, pragmas)
            connection.lock = WriterLock(file)
            connection.same = SameFile(file, has_log=has_log, is_ours=is_ours, library=self.library)
            del passage
            return connection

        # As `sa.create_engine` does, which makes a dialect for each engine.
        pool = sa.QueuePool(
            connect, pool_size=size, max_overflow=0, timeout=POOL_TIMEOUT_S, dialect=self._dialect
        )
        engine = sa.Engine(pool, self._dialect, sa.make_url("sqlite://"))
        if is_ours:  # statements of users would push out ours
            engine.update_execution_options(compiled_cache=self._statements)
        _listen(engine, self._dialect.on_connect_url(engine.url), self._driver.Error)
        return engine

    def _connect(self, file: str, mode: str, pragmas: Sequence[str]) -> _Connection:
        require_plain(file, may_be_new=mode == "rwc")
        require_not_inherited(file)
        require_same(file)
        require_one_library(file, self.library)
        if is_too_small(file):
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
            # The switch to WAL waits for no process by itself.
            retrying(lambda error, _: is_busy(error))(connection.execute, statement)
        return connection


def _listen(engine: sa.Engine, on_connect: Any, driver_error: type[Exception]) -> None:
    """Add the hooks of an engine: connections opened, given back to the pool, or closed."""

    @sa.event.listens_for(engine, "connect")
    def _add_functions(connection: _Connection, record: sa.pool.ConnectionPoolEntry) -> None:
        on_connect(connection)
        record.info["same"] = connection.same
        # No Python function of ours: SQLite would swallow the Ctrl-C that Python raises in it.
        connection.create_function("utc_now", 0, functools.partial(record.info.get, "time"))
        connection.create_function("note", 1, record.info.setdefault("noted", []).append)
        next_place = record.info[driver.NEXT_PLACE] = itertools.count().__next__
        connection.create_function(driver.NEXT_PLACE, 0, next_place)

    @sa.event.listens_for(engine, "invalidate")
    def _let_go(connection: _Connection, *_: Any) -> None:
        with contextlib.suppress(driver_error):
            connection.rollback()  # else its lock stays while a traceback refers to the cursor

    @sa.event.listens_for(engine, "checkin")
    def _close_for_a_fork(_: object, record: sa.pool.ConnectionPoolEntry) -> None:
        if not sqlite_forks.may_open.is_set():  # a pool that has been replaced would keep it
            record.invalidate()

    @sa.event.listens_for(engine, "rollback")
    def _forget(connection: sa.Connection) -> None:
        if not connection.invalidated:  # by a Ctrl-C that ended a statement
            # Temporary tables vanish with the transaction that created them.
            connection.info.pop("loaded", None)


def _set_time(connection: sa.Connection) -> dict[str, Any]:
    """Set the time of a transaction after it has the lock: earlier commits have earlier times.

    Returns:
        What the pool knows of the connection, which takes as long to find as the time.
    """
    info = connection.info
    info["time"] = as_text(dt.datetime.now(dt.timezone.utc))
    return info


def _from_json(text: str | bytes) -> Any:
    """Read JSON, which SQLite stores as text: a program may have stored text that is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise tampered(
            f"settings, meta or metrics are stored as {shown(text)}, which is not JSON"
        ) from exc
