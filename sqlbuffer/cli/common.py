"""Open a database for a look: it must be there, and nothing is created."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sqlbuffer.core.attach import attach_existing
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.backends import parse_url
from sqlbuffer.db.database import Database
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import DatabaseUnavailable


def open_existing(url: str, *, any_revision: bool = False) -> Database:
    """Open a database that is there.

    Args:
        url: URL of the database.
        any_revision: Also one that does not fit this release, or is empty.

    Raises:
        DatabaseUnavailable: Where there is none, or it cannot be read.
        SchemaMismatch: Where it holds an older or newer schema, or another process's tables.
    """
    location, dialect = parse_url(url)
    if not dialect.exists(location):
        shown = location.render_as_string(hide_password=True)
        raise DatabaseUnavailable(
            f"there is no {shown}: check the path, or create it with `sqlbuffer db upgrade --url {shown}`."
        )
    return Database(location, create=False, any_revision=any_revision)


def handles(database: Database, name: str | None, **options: Any) -> list[BufferHandle]:
    """Return the buffer of a name, or all when there is no name, without becoming one of its workers."""
    if name is not None:
        return [attach_existing(database, name, **options)]
    ordered = sa.select(buffers.c.name).order_by(buffers.c.id)
    names = database.read(lambda connection: connection.scalars(ordered).all())
    return [attach_existing(database, each, **options) for each in names]
