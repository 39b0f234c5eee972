"""Opening an SQLite file, to write or to read, as the rights of this process allow."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlbuffer.db.backends import sqlite_errors
from sqlbuffer.db.backends.sqlite_files import (
    SameFile,
    file_id,
    is_too_small,
    require_plain,
    require_same,
)
from sqlbuffer.db.backends.sqlite_forks import Passage, require_not_inherited
from sqlbuffer.db.backends.sqlite_libraries import require_one_library
from sqlbuffer.db.backends.sqlite_lock import WriterLock
from sqlbuffer.db.backends.sqlite_reading import Stamp, stamped, way_to_read, withdraw
from sqlbuffer.db.backends.sqlite_rights import INDEX, LOG, obstacles, require_writable
from sqlbuffer.db.retry import retrying

_PRAGMAS = (
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -65536",
    "mmap_size = 2147418112",
    "journal_size_limit = 67108864",
)
"""64 MB of cache; as much of the file in memory as SQLite maps, 2 GB."""

_OPEN_LOG = "schema_version"
"""A PRAGMA that reads: SQLite opens the log with the first statement that does."""

_ATTEMPTS = 4
"""How often a process without the right to write opens a file while its log comes and goes."""

if TYPE_CHECKING:
    _Driver = sqlite3.Connection
else:
    _Driver = object


class Connection(_Driver):
    """Mixin for a driver's connections: releases the writer's lock when its transaction ends."""

    lock: WriterLock
    same: SameFile
    stamp: Stamp | None = None
    """Of a file that is read without locks."""
    after: Callable[[SameFile], None] | None = None
    """Called when the connection is closed."""
    tables: set[str]
    """Temporary tables that were created; they vanish with the transaction that created them."""

    def commit(self) -> None:
        """Commit; a COMMIT that fails keeps the lock until the rollback."""
        try:
            super().commit()
        except BaseException:  # SQLAlchemy's event of a rollback does not follow
            self.tables.clear()
            raise
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
            if self.after is not None:
                self.after(self.same)
            del passage


class Opener:
    """Opens files by one driver.

    Args:
        driver: The module: `sqlite3`, or one with the same functions and another SQLite library.
        library: The name of its package.
    """

    def __init__(self, driver: Any, library: str) -> None:
        self._driver = driver
        self._library = library
        self._connection: Any = type("Connection", (Connection, driver.Connection), {})
        self._stamped: Any = stamped(driver, self._connection)

    def open(self, file: str, mode: str, *, writes: bool) -> Connection:
        """Open a file.

        Args:
            file: Path of the database.
            mode: "rwc" creates the file, "rw" may write to it, "ro" may not. A reader without the
                right to write needs neither.
            writes: True for a connection that needs the right to write.

        Raises:
            DatabaseUnavailable: If the file cannot be shared or, with `writes`, not be written; if
                it has commits that this process has no right to read.
        """
        require_plain(file, may_be_new=mode == "rwc")
        require_not_inherited(file)
        require_same(file)
        require_one_library(file, self._library)
        if is_too_small(file):
            raise self._driver.DatabaseError("file is not a database")
        if writes:
            require_writable(file)
        elif obstacles(file):
            return retrying(self._is_passing)(self._open_without_rights, file)
        connection = self._open(file, f"mode={mode}", *_PRAGMAS)
        if mode == "ro":
            connection.after = self._remove_log
        return connection

    def _is_passing(self, error: BaseException, attempt: int) -> bool:
        return isinstance(error, self._driver.OperationalError) and attempt < _ATTEMPTS

    def _open_without_rights(self, file: str) -> Connection:
        """Open a file to read it, as the files next to it allow."""
        log = file_id(f"{file}{LOG}")
        options, stamp = way_to_read(file)
        # Without locks a mapped file may become shorter, which would end the process.
        last = _OPEN_LOG if stamp is None else "mmap_size = 0"
        try:
            return self._open(file, options, *_PRAGMAS, last, stamp=stamp)
        except self._driver.OperationalError:
            withdraw(file, log)  # if the log vanished before SQLite opened it
            raise

    def _open(
        self, file: str, options: str, *pragmas: str, stamp: Stamp | None = None
    ) -> Connection:
        connection: Connection = self._driver.connect(
            f"file:{urllib.parse.quote(file)}?{options}",
            uri=True,
            timeout=sqlite_errors.BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=self._connection if stamp is None else self._stamped,
        )
        connection.stamp = stamp
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}")
        except self._driver.Error:
            connection.close()
            raise
        return connection

    def _remove_log(self, same: SameFile) -> None:
        """Let SQLite remove the log that a connection without the right to write leaves behind."""
        if not os.path.exists(f"{same.file}{INDEX}") or file_id(same.file) != same.file_id:
            return
        with contextlib.suppress(self._driver.Error):
            self._open(same.file, "mode=rw", _OPEN_LOG).close()
