"""Open a database that exists, and its buffers, without leaving a trace in its tables."""

from __future__ import annotations

from typing import Any

from sqlbuffer.core.attach import attach_all, attach_existing
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.backends import parse_url
from sqlbuffer.db.database import DEFAULT_URL, Database
from sqlbuffer.errors import DatabaseUnavailable


def open_existing(
    url: str, *, any_revision: bool = False, read_only: bool = False, **options: Any
) -> Database:
    """Open a database that exists; create nothing.

    Args:
        url: URL of the database.
        any_revision: Accept a database without tables, and one of another release.
        read_only: Open it so that nothing can be written: the right to read is enough.
        **options: Further keywords of `Database`.

    Raises:
        DatabaseUnavailable: If the database does not exist or cannot be read.
        SchemaMismatch: If its schema is of another release, or the database has other tables.
    """
    location, dialect = parse_url(url)
    if not dialect.exists(location):
        shown = location.render_as_string(hide_password=True)
        way_out = (
            "name your database with --url or SQLBUFFER_URL"
            if url == DEFAULT_URL
            else "check the path"
        )
        raise DatabaseUnavailable(
            f"there is no {shown}: {way_out}, or create it with "
            f"`sqlbuffer db upgrade --url {shown}`."
        )
    return Database(
        location, create=False, any_revision=any_revision, read_only=read_only, **options
    )


def handles(database: Database, name: str | None, **options: Any) -> list[BufferHandle]:
    """Return handles on one buffer or on all, without registering this process as a worker.

    Args:
        database: The database.
        name: Name of the buffer; None for all buffers.
        **options: Keywords of `attach_existing`, for all buffers of `attach_all`.

    Raises:
        BufferNotFound: If no buffer has the name.
    """
    if name is not None:
        return [attach_existing(database, name, **options)]
    return attach_all(database, **options)
