"""Engines for an SQLite file: opening connections, and the locks at BEGIN and COMMIT."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import shown
from sqlbuffer.db.backends import driver, sqlite_errors, sqlite_forks
from sqlbuffer.db.backends.base import CACHED_STATEMENTS, POOL_TIMEOUT_S
from sqlbuffer.db.backends.sqlite_authorizer import authorize_viewer, shorten_values, until
from sqlbuffer.db.backends.sqlite_files import SameFile
from sqlbuffer.db.backends.sqlite_forks import Passage
from sqlbuffer.db.backends.sqlite_libraries import STANDARD, watch
from sqlbuffer.db.backends.sqlite_lock import WriterLock
from sqlbuffer.db.backends.sqlite_opening import Connection, Opener
from sqlbuffer.db.backends.sqlite_reading import CHANGED
from sqlbuffer.db.backends.types import as_text
from sqlbuffer.db.retry import retrying

CHECKPOINT_PAGES = 8000
"""Pages in the log, 32 MB, from which on a COMMIT writes them back: fewer writes for hot pages."""

_BEGIN_WRITING = "BEGIN IMMEDIATE"


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
        self._opener = Opener(driver, self.library)
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
        sa.event.listen(engine, "handle_error", _open_again)
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
            if not opened.lock.acquire(sqlite_errors.BUSY_TIMEOUT_S):
                locked = self._driver.OperationalError("database is locked")
                raise sa.exc.DBAPIError.instance(_BEGIN_WRITING, None, locked, self._driver.Error)
            driver.run(connection, _BEGIN_WRITING)
        finally:
            opened.same.require()  # if BEGIN has failed too, a file that is gone is the cause

    def reader(self, url: sa.URL) -> sa.Engine:
        """Return an engine that is only read from, and needs no right to write the file."""
        # Not query_only, which forbids temporary tables too. Not "ro" for a process that may write:
        # the last connection to be closed would leave the log behind.
        engine = self._engine(url, "rw", [], size=4)

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

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            # A user may keep a connection for any time. An error here would leave it half begun.
            opened: Any = connection.connection.driver_connection
            if opened.stamp is not None:
                opened.stamp.expire()

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
            connection = self._opener.open(file, mode, writes=has_log)
            for statement in pragmas:
                # The switch to WAL waits for no process by itself.
                retrying(lambda error, _: sqlite_errors.is_busy(error))(
                    connection.execute, statement
                )
            connection.lock = WriterLock(file)
            connection.tables = set()
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


def _listen(engine: sa.Engine, on_connect: Any, driver_error: type[Exception]) -> None:
    """Add the hooks of an engine: connections opened, given back to the pool, or closed."""

    @sa.event.listens_for(engine, "connect")
    def _add_functions(connection: Connection, record: sa.pool.ConnectionPoolEntry) -> None:
        on_connect(connection)
        record.info["same"], record.info["tables"] = connection.same, connection.tables
        connection.create_function("floor", 1, _floor, deterministic=True)
        # No Python function of ours: SQLite would swallow the Ctrl-C that Python raises in it.
        connection.create_function("utc_now", 0, functools.partial(record.info.get, "time"))
        connection.create_function("note", 1, record.info.setdefault("noted", []).append)
        next_place = record.info[driver.NEXT_PLACE] = itertools.count().__next__
        connection.create_function(driver.NEXT_PLACE, 0, next_place)

    @sa.event.listens_for(engine, "checkout")
    def _renew(connection: Connection, *_: Any) -> None:
        if connection.stamp is not None and connection.stamp.is_outdated():
            connection.same.require()
            raise sa.exc.DisconnectionError  # the pool opens the file again

    @sa.event.listens_for(engine, "invalidate")
    def _let_go(connection: Connection, *_: Any) -> None:
        with contextlib.suppress(driver_error):
            connection.rollback()  # else its lock stays while a traceback refers to the cursor

    @sa.event.listens_for(engine, "checkin")
    def _close_for_a_fork(_: object, record: sa.pool.ConnectionPoolEntry) -> None:
        if not sqlite_forks.may_open.is_set():  # a pool that has been replaced would keep it
            record.invalidate()

    @sa.event.listens_for(engine, "rollback")
    def _forget(connection: sa.Connection) -> None:
        if not connection.invalidated:  # by a Ctrl-C that ended a statement
            connection.info["tables"].clear()


def _floor(number: Any) -> Any:
    """Return what SQLite's own function does: that of SQLAlchemy takes no NULL."""
    if isinstance(number, float):
        return float(math.floor(number)) if math.isfinite(number) else number
    return number if isinstance(number, int) else None


def _open_again(context: sa.ExceptionContext) -> None:
    """Let the pool open a file again that has changed while it was read without locks."""
    if str(context.original_exception) == CHANGED:
        context.is_disconnect = True


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
