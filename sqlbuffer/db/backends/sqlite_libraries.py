"""Two SQLite libraries in one process, which must never have the same file open.

SQLite takes POSIX locks, which a process loses when it closes the file anywhere. One library delays
such a close, two do not know of each other (https://sqlite.org/howtocorrupt.html, 2.2.1). Without
the locks another process that closes the file deletes the log, and with it all later commits.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
import urllib.parse
from typing import Any

import psutil

from sqlbuffer.db.backends.sqlite_files import file_id, opened
from sqlbuffer.errors import DatabaseUnavailable

STANDARD = sqlite3.__name__
"""The library that other code of the process most likely uses."""


def require_one_library(file: str, library: str) -> None:
    """Refuse to open a file that another SQLite library of this process has open.

    Raises:
        DatabaseUnavailable: If there is one. The error names `sqlite3` if the library is unknown.
    """
    others = {same.library for same in opened(file_id(file))}
    if others - {library}:
        raise _two_libraries(file, library, *(others - {library}))
    if (
        library != STANDARD
        and not others
        and any(each.path == file for each in psutil.Process().open_files())
    ):
        raise _two_libraries(file, library, STANDARD)


def _two_libraries(file: str, library: str, other: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"{file} is open in this process through the SQLite library of {other}: a second "
        f"library, that of {library}, would void its locks and lose commits; read the file by "
        "`store.connect()`, or from another process."
    )


@functools.cache
def watch() -> None:
    """Keep `sqlite3` from opening a file that a store has open through another library.

    For the life of the process: Python cannot remove an audit hook.
    """
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "sqlite3.connect":
        return
    path = _path_of(arguments[0])
    for same in opened(file_id(path)):
        if same.library != STANDARD:
            raise _two_libraries(same.file, STANDARD, same.library)


def _path_of(database: Any) -> str:
    """Return the path in the argument of `sqlite3.connect`, or a name that no file has."""
    try:
        path = os.fsdecode(database)
    except TypeError:  # `sqlite3.connect` raises it too
        return ""
    if not path.startswith("file:"):
        return path
    return urllib.parse.unquote(urllib.parse.urlsplit(path).path)
