"""Reading one state of a database for long, at no cost to those who write to it."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from sqlbuffer.db.database import Database

T = TypeVar("T")


def read_for_long(database: Database, work: Callable[[sa.Connection], T]) -> T:
    """Run `work`, which only reads, in a transaction that sees one state of the database.

    A transaction that is open for long keeps SQLite from shortening its log. There, `work` reads
    a temporary copy of the file, which takes the time and the space of one copy of the database.
    """
    if database.dialect.supports_long_reads:
        return database.read(work)
    with tempfile.TemporaryDirectory(prefix="sqlbuffer-", ignore_cleanup_errors=True) as folder:

        def unseen(connection: sa.Connection) -> T:
            database.dialect.tables(connection)  # opens the file
            # An open file needs no name, and a process that is killed from now on leaves none.
            shutil.rmtree(folder, ignore_errors=True)
            return work(connection)

        with contextlib.closing(_copied(database, pathlib.Path(folder, "still.db"))) as still:
            return still.read(unseen)


def _copied(database: Database, file: pathlib.Path) -> Database:
    """Copy the state of a database that is a file into another file."""
    database.dialect.backup(database._url, file)
    return Database(database._url.set(database=str(file)), create=False)
