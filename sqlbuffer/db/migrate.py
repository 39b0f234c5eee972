"""The version of the schema: read, checked, created and upgraded by Alembic."""

from __future__ import annotations

import logging
import pathlib

import sqlalchemy as sa

from sqlbuffer._messages import printable
from sqlbuffer.db.backends import VERSION_TABLE, Dialect
from sqlbuffer.db.schema import REVISION
from sqlbuffer.errors import ForeignDatabase, NoSchema, SchemaTooNew, SchemaTooOld

log = logging.getLogger(__name__)

_version = sa.Table(VERSION_TABLE, sa.MetaData(), sa.Column("version_num", sa.Text))


def migrations_folder() -> pathlib.Path:
    """Return the folder of the Alembic migrations: in an installed wheel, or in a checkout."""
    package = pathlib.Path(__file__).parents[1]
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def read_revision(connection: sa.Connection, dialect: Dialect, url: str) -> str | None:
    """Return the revision of the schema, None for an empty database.

    Raises:
        ForeignDatabase: If the database holds tables of another program.
    """
    if dialect.has_table(connection, VERSION_TABLE):
        found = connection.scalar(sa.select(_version.c.version_num))
        if found is not None:
            return str(found)
    tables = dialect.tables(connection)
    if tables <= {VERSION_TABLE}:  # none, or what `alembic downgrade base` leaves
        return None
    raise ForeignDatabase(
        f"{url} holds other tables ({', '.join(sorted(tables)[:3])}, ...): give an empty database."
    )


def create(connection: sa.Connection, dialect: Dialect, url: str) -> None:
    """Create the schema; if another process has just created one, check that it fits.

    Raises:
        SchemaMismatch: If the other process is of another release.
    """
    dialect.lock_schema(connection)
    found = read_revision(connection, dialect, url)
    if found is None:
        _migrate(connection, url)
    else:
        require_current(found, url)


def upgrade(connection: sa.Connection, dialect: Dialect, url: str) -> None:
    """Create the schema, or upgrade it.

    Raises:
        SchemaTooNew: If a newer release has upgraded it.
        SchemaTooOld: If it cannot be upgraded.
    """
    dialect.lock_schema(connection)
    found = read_revision(connection, dialect, url)
    if found is not None and found > REVISION:
        require_current(found, url)
    _migrate(connection, url)


def _migrate(connection: sa.Connection, url: str) -> None:
    from alembic import command  # 0.2 s to import, needed once in a database's life
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except RuntimeError as exc:
        raise SchemaTooOld(f"{url} was not upgraded, and nothing has changed: {exc}") from exc
    log.info("schema of %s is now at revision %s", printable(url), REVISION)


def require_schema(found: str | None, url: str) -> str:
    """Return the revision of a schema.

    Raises:
        NoSchema: If there is no schema.
    """
    if found is None:
        raise NoSchema(
            f"{url} holds no buffer yet: open_store creates the tables and a buffer, "
            "`sqlbuffer db upgrade` the tables alone."
        )
    return found


def require_current(revision: str | None, url: str) -> None:
    """Refuse a schema of another release.

    Raises:
        SchemaMismatch: If there is no schema, or it is older or newer than this release's.
    """
    found = require_schema(revision, url)
    if found < REVISION:
        raise SchemaTooOld(
            f"{url} has the schema of an older release ({found}, this one needs {REVISION}): "
            f"make a copy with `sqlbuffer db backup`, then run `sqlbuffer db upgrade --url {url}`."
        )
    if found > REVISION:
        raise SchemaTooNew(
            f"{url} has the schema of a newer release ({found}, this one knows {REVISION}): "
            "`pip install -U sqlbuffer`."
        )
