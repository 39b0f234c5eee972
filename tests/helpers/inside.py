"""The database, the handle and the rows behind a store: the one place that knows their private
names.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from sqlbuffer.core import workers
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db import database, retry
from sqlbuffer.db.backends import sqlite_errors
from sqlbuffer.db.database import Database


def handle_of(owner: Any) -> BufferHandle:
    """Return the handle of a store or of a batch."""
    handle: BufferHandle = owner._buffer
    return handle


def buffer_id(owner: Any) -> int:
    """Return the number of the buffer of a store."""
    return handle_of(owner).buffer_id


def set_buffer_id(store: Any, number: int) -> None:
    """Let a store mean the buffer of another number, as if its own were deleted before."""
    store._buffer = dataclasses.replace(store._buffer, buffer_id=number)


def database_of(owner: Any) -> Database:
    """Return the database of a store."""
    return handle_of(owner).database


def backend_of(owner: Any) -> Any:
    """Return what differs between SQLite and PostgreSQL, for the database of a store."""
    return database_of(owner).dialect


def engine_of(owner: Any, kind: str = "writer") -> sa.Engine:
    """Return the engine of SQLAlchemy that a store reads or writes with: `reader` or `writer`."""
    return database_of(owner)._engine(kind)


def url_of(owner: Any) -> str:
    """Return the URL of a store, with its password."""
    return database_of(owner)._url.render_as_string(hide_password=False)


def execute(owner: Any, statement: sa.Executable) -> Any:
    """Execute a statement in a transaction of the store that writes."""
    return database_of(owner).write(lambda connection: connection.execute(statement))


def rows(owner: Any, statement: sa.Executable) -> Sequence[Any]:
    """Return the rows of a query, read in a transaction of the store."""
    return database_of(owner).read(lambda connection: connection.execute(statement).all())


def scalars(owner: Any, statement: Any) -> Sequence[Any]:
    """Return the first column of a query, read in a transaction of the store."""
    return database_of(owner).read(lambda connection: connection.scalars(statement).all())


def scalar(owner: Any, statement: Any) -> Any:
    """Return the first value of a query, read in a transaction of the store."""
    return database_of(owner).read(lambda connection: connection.scalar(statement))


def act_as(patch: pytest.MonkeyPatch, name: str) -> None:
    """Give this process the identity of another worker."""
    patch.setattr(workers, "_worker_id", lambda pid: name)


def call_at_commits(patch: pytest.MonkeyPatch, function: Callable[[str], None]) -> None:
    """Call a function just before and just after each COMMIT, with `before` or `after`."""
    patch.setattr(database, "boundary", function)


def shorten_patience(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Give up after some seconds on a server that is gone, and on a file that another process has
    locked.
    """
    patch.setattr(retry, "PATIENCE_S", seconds)
    patch.setattr(sqlite_errors, "BUSY_TIMEOUT_S", seconds)
