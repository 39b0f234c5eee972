"""Advice for errors of SQLite."""

from __future__ import annotations

import re
from typing import Any

from sqlbuffer.db.backends.sqlite_reading import CHANGED

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits while another process writes."""

_NEEDS_RECOVERY = "SQLITE_READONLY_RECOVERY"
_NO_LOCKS = "the file system refuses a lock: put the file on a local disk"
_WAYS_OUT_BY_NAME = {
    "SQLITE_IOERR_SHORT_READ": "the file or its -wal is shorter than SQLite left it: it was "
    "truncated, or the -wal deleted, while in use; end all processes that use it, and restore a "
    "copy if `sqlbuffer db check` finds damage",
    "SQLITE_IOERR_LOCK": _NO_LOCKS,
    "SQLITE_IOERR_RDLOCK": _NO_LOCKS,
    "SQLITE_IOERR_SHMLOCK": _NO_LOCKS,
    "SQLITE_READONLY_DBMOVED": "the file was removed or moved while in use: restore the file, or "
    "open the store again",
    _NEEDS_RECOVERY: "its last writer was killed while it wrote the index of the log, and this "
    "process may not write it again: let the owner of the file run `sqlbuffer ls` once",
}
"""By the name of the error, which Python 3.10 does not give."""

_WAYS_OUT_BY_MESSAGE = {
    "unable to open": "the folder must exist and the file must be readable and writable by you",
    "readonly": "the file, its folder, or its -wal or -shm cannot be written by this user: make "
    "them writable (chmod u+w), or copy the file and its -wal",
    CHANGED: "run it again",
    "not a database": "the file is not an SQLite database: give the path of another file",
    "malformed": "the file is corrupt: restore a copy, or save what is left with "
    "`sqlite3 FILE .recover`",
    "disk i/o error": "the disk fails, or a quota is used up: check both, and that the file was "
    "not truncated",
    "is full": "the disk is full: make room; no stored data was lost",
    "locked": f"another program held the file for over {BUSY_TIMEOUT_S:.0f} s: close that program "
    "and try again",
}
"""By a part of the message; the first that fits."""


def way_out(error: Any) -> str:
    """Return how to solve an error of the driver, "" if that is not known."""
    name = getattr(error, "sqlite_errorname", None)  # Python 3.11 or newer
    if name in _WAYS_OUT_BY_NAME:
        return _WAYS_OUT_BY_NAME[name]
    message = str(error).lower()
    return next((text for part, text in _WAYS_OUT_BY_MESSAGE.items() if part in message), "")


_UNKNOWN = re.compile(r"no such (table|column): \"?(.+?)\"?(?: - should this .*)?$")
"""Newer versions ask whether a name in double quotes should be a string."""


def unknown_name(error: Any) -> tuple[str, str] | None:
    """See `Dialect.unknown_name`."""
    found = _UNKNOWN.match(str(error))
    return (found[1], found[2]) if found else None


def may_pass(error: Any) -> bool:
    """Return True for an error of a reader that another attempt may not have."""
    # A writer that begins repairs the index of the log a moment after it has opened it.
    return str(error) == CHANGED or getattr(error, "sqlite_errorname", None) == _NEEDS_RECOVERY


def is_busy(error: BaseException) -> bool:
    """Return True if another connection holds the file: SQLITE_BUSY, and no extension of it.

    Python 3.10 gives no codes. Its message is that of SQLITE_BUSY, and the extended codes
    SQLITE_BUSY_RECOVERY and SQLITE_BUSY_SNAPSHOT have the same one: they pass too.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return str(error) == "database is locked"
    return bool(code == SQLITE_BUSY)


SQLITE_BUSY = 5
"""`sqlite3.SQLITE_BUSY`, which Python 3.10 does not have."""
