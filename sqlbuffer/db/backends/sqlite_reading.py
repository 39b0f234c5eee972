"""Reading an SQLite file without the right to write to it, and without creating files next to it.

SQLite needs the log (-wal) and its index (-shm) to read a file that is in WAL mode, and creates
them, with the reader as their owner: the owner of the database could not write to them. If both
exist, a reader uses them as they are (`readonly_shm`). If there is no log, or an empty one, the
file itself is the last commit, and is read without locks (`immutable`). SQLite then trusts that the
file does not change, so a stamp of the file is compared after each call of the driver.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from typing import Any

from sqlbuffer.db.backends.sqlite_files import file_id
from sqlbuffer.db.backends.sqlite_rights import (
    INDEX,
    LOG,
    allows,
    has_content,
    owner_of,
)
from sqlbuffer.errors import DatabaseUnavailable

CHANGED = "the file changed while it was read"
"""Message of the driver's error for rows that may be of two commits."""

WITH_LOG = "mode=ro&readonly_shm=1"
WITHOUT_LOCKS = "mode=ro&immutable=1"
"""Options of the URI by which SQLite opens a file."""

_JOURNAL = "-journal"
"""Ending of the file that other programs may have in the place of a log."""

_TICK_S, _COARSE_TICK_S = 0.05, 2.0
"""Two changes of a file within a tick may have the same time; the second is that of file systems
that store whole seconds."""


class Stamp:
    """A file that is read without locks, as it was before it was opened.

    Args:
        file: Path of the database.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._is_expired = False
        about = os.stat(file)
        self._found = _found(about)
        self._age_s = time.time() - about.st_ctime
        self._tick_s = _COARSE_TICK_S if about.st_ctime_ns % 10**9 == 0 else _TICK_S

    def wait(self) -> bool:
        """Wait until a further change would have another time; return False if none was needed."""
        if abs(self._age_s) >= self._tick_s:
            return False
        time.sleep(self._tick_s - self._age_s)
        return True

    def has_changed(self) -> bool:
        """Return True if the file is no longer as it was, or the stamp has expired."""
        try:
            return self._is_expired or _found(os.stat(self._file)) != self._found
        except OSError:
            return True

    def is_outdated(self) -> bool:
        """Return True if the file, or a log that was begun since, may have later commits."""
        return self.has_changed() or unread(self._file) is not None

    def expire(self) -> None:
        """Let the stamp expire if it is outdated: the next transaction must see the last commit."""
        self._is_expired = self.is_outdated()


def _found(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def unread(file: str) -> str | None:
    """Return the file next to a database that has changes which the database may lack."""
    paths = (f"{file}{ending}" for ending in (LOG, _JOURNAL))
    return next((path for path in paths if has_content(path)), None)


def way_to_read(file: str) -> tuple[str, Stamp | None]:
    """Return the options by which a process without the right to write can read a file.

    Returns:
        The options of the file's URI, and a stamp if they read the file without locks.

    Raises:
        DatabaseUnavailable: If there are commits that only a process that may write can read.
    """
    while True:
        stamp = Stamp(file)  # first: a change from now on is seen
        if all(allows(f"{file}{ending}", os.R_OK) for ending in (LOG, INDEX)):
            return WITH_LOG, None
        if (log := unread(file)) is not None:
            raise _unreadable(file, log)
        if not stamp.wait():
            return WITHOUT_LOCKS, stamp


def _unreadable(file: str, log: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"{log} has commits that this process cannot read, because it has no right to write to "
        f"{file} and {file}{INDEX} is missing or unreadable: let {owner_of(file)} run `sqlbuffer "
        "ls` once, which writes them into the file, or give you a copy by `sqlbuffer db backup`."
    )


def withdraw(file: str, before: tuple[int, int] | None) -> None:
    """Remove the log that SQLite has created for this process because the other one vanished.

    Args:
        file: Path of the database.
        before: The log that was there before, see `file_id`.
    """
    log = f"{file}{LOG}"
    try:
        about = os.stat(log)
        if file_id(log) != before and about.st_size == 0 and about.st_uid == os.geteuid():
            os.remove(log)
    except FileNotFoundError:
        pass


_CALLS = ("execute", "fetchone", "fetchmany", "fetchall", "__next__")


def stamped(driver: Any, connection: type) -> type:
    """Return a class of connections whose cursors compare the file with the attribute `stamp`.

    Args:
        driver: The module of the driver.
        connection: The class of other connections.
    """

    def compared(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def method(cursor: Any, *args: Any) -> Any:
            try:
                return call(cursor, *args)
            finally:  # also after an error, which a change may have caused
                if cursor.connection.stamp.has_changed():
                    raise driver.OperationalError(CHANGED)

        return method

    def close(cursor: Any) -> None:
        with contextlib.suppress(driver.ProgrammingError):  # SQLAlchemy closes its connection first
            driver.Cursor.close(cursor)

    calls = {name: compared(getattr(driver.Cursor, name)) for name in _CALLS}
    cursors: Any = type("StampedCursor", (driver.Cursor,), {**calls, "close": close})

    def cursor(self: Any, factory: Any = cursors) -> Any:
        return connection.cursor(self, factory)  # type: ignore[attr-defined]

    return type("StampedConnection", (connection,), {"cursor": cursor})
