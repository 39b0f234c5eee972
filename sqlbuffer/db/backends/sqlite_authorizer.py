"""Authorizers for SQL that a person types: it may read, and nothing else."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from typing import Any

_READING_PRAGMAS = frozenset(
    "foreign_key_check foreign_key_list index_info index_list index_xinfo integrity_check "
    "quick_check table_info table_list table_xinfo".split()
)
"""PRAGMAs that change nothing even if they have a value."""
_ACTING_PRAGMAS = frozenset("incremental_vacuum optimize shrink_memory wal_checkpoint".split())
"""PRAGMAs that change the database even if they have no value."""

_READING = (
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
)


LONGEST_VALUE, LONGEST_PATTERN = 1_000_000, 1_000
"""Most bytes of a value, and of a pattern of LIKE, in a statement that must end in time."""
_LIMIT_LENGTH, _LIMIT_LIKE_PATTERN_LENGTH = 0, 8
"""Their numbers in sqlite3.h: `sqlite3` of Python 3.10 has no names for them."""


def authorize_viewer(action: int, name: str | None, value: str | None, *_: str | None) -> int:
    """Deny a connection that only reads to open other files, or to make itself writable."""
    reads = name in _READING_PRAGMAS or (value is None and name not in _ACTING_PRAGMAS)
    opens_files = action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    is_denied = opens_files or (action == sqlite3.SQLITE_PRAGMA and not reads)
    return sqlite3.SQLITE_DENY if is_denied else sqlite3.SQLITE_OK


def authorize_select(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    """Allow a statement only the actions of a SELECT, whatever its text looks like."""
    is_harmless = action != sqlite3.SQLITE_FUNCTION or function not in (
        "load_extension",
        "fts3_tokenizer",
    )
    return sqlite3.SQLITE_OK if action in _READING and is_harmless else sqlite3.SQLITE_DENY


def shorten_values(connection: Any) -> None:
    """Refuse long values, and patterns, on a connection whose statements must end in time.

    A progress handler is not called within a function: `instr` of two values of 1 MB takes 8 s, and
    its time grows with the square of their length.
    """
    if hasattr(connection, "setlimit"):  # since Python 3.11
        connection.setlimit(_LIMIT_LENGTH, LONGEST_VALUE)
        connection.setlimit(_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN)


def until(timeout_s: float | None) -> Callable[[], bool]:
    """Return a progress handler that ends a statement some seconds from now.

    A progress handler also gives Python time for Ctrl-C, so a statement that may take any time has
    one too.
    """
    end = math.inf if timeout_s is None else time.monotonic() + timeout_s
    return lambda: time.monotonic() > end
