"""What an error of SQLite means, also in Python 3.10, whose errors have no code and no name."""

import sqlite3
import types

import pytest

from sqlbuffer.db.backends import SQLite, sqlite_errors

OLDER = "an error of Python 3.10"


def error_of(message: str, name: str | None = None, code: int | None = None) -> Exception:
    """An error with the attributes that Python 3.11 adds, or without them as in Python 3.10."""
    error = sqlite3.OperationalError(message)
    # `error_of` makes errors that no database has raised: no version sets their attributes.
    assert not hasattr(error, "sqlite_errorcode")
    if name is not None:
        error.sqlite_errorname, error.sqlite_errorcode = name, code
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (error_of("database is locked", "SQLITE_BUSY", 5), True),
        (error_of("database is locked", "SQLITE_BUSY_SNAPSHOT", 517), False),
        (error_of("database is locked"), True),
        (error_of("database table is locked", "SQLITE_LOCKED", 6), False),
        (error_of("database table is locked"), False),
        (error_of("disk I/O error"), False),
    ],
    ids=["busy", "snapshot", f"busy, {OLDER}", "locked", f"locked, {OLDER}", f"disk, {OLDER}"],
)
def test_busy_is_known_by_code_or_message(error: Exception, expected: bool) -> None:
    assert sqlite_errors.is_busy(error) is expected


@pytest.mark.parametrize("message", ["disk I/O error", "database is locked", "attempt to readonly"])
def test_the_way_out_follows_from_the_message_alone(message: str) -> None:
    found = sqlite_errors.way_out(error_of(message))
    assert found
    assert found == sqlite_errors.way_out(error_of(message, "SQLITE_ERROR", 1))


def test_the_name_of_an_error_says_more_than_its_message() -> None:
    with_name = error_of("disk I/O error", "SQLITE_IOERR_SHORT_READ", 522)
    assert "truncated, or the -wal deleted" in sqlite_errors.way_out(with_name)
    assert "the disk fails" in sqlite_errors.way_out(error_of("disk I/O error"))
    assert sqlite_errors.way_out(error_of("no such table: x")) == ""


def test_a_driver_without_codes_gets_its_advice() -> None:
    wrapped = types.SimpleNamespace(orig=error_of("unable to open database file"))
    assert "readable and writable" in SQLite().advice(wrapped)  # type: ignore[arg-type]


def test_codes_are_those_of_the_library() -> None:
    busy = getattr(sqlite3, "SQLITE_BUSY", None)  # Python 3.11 or newer
    assert busy in (None, sqlite_errors.SQLITE_BUSY)
