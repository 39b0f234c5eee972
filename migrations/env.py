"""Alembic's environment: one transaction, on SQLite or PostgreSQL; imports nothing from sqlbuffer.

`sqlbuffer db upgrade`, and opening an empty database, run this with their own connection; `alembic`
runs it with the URL of `alembic.ini`, `-x url=...` or the environment variable SQLBUFFER_URL.
"""

import os

import sqlalchemy as sa
from alembic import context

VERSION_TABLE = "sqlbuffer_version"


def schema_of(connection: sa.Connection) -> str | None:
    """Return the schema that the tables live in."""
    return "sqlbuffer" if connection.dialect.name == "postgresql" else None


def migrate(connection: sa.Connection) -> None:
    """Run the migrations on a connection."""
    context.configure(
        connection=connection,
        version_table=VERSION_TABLE,
        version_table_schema=schema_of(connection),
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def own_url() -> sa.URL:
    """Return the URL given to the `alembic` command."""
    url = context.get_x_argument(as_dictionary=True).get("url")
    url = url or os.environ.get("SQLBUFFER_URL") or context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit(
            "Give the database: alembic -x url=sqlite:///FILE ..., or set SQLBUFFER_URL."
        )
    parsed = sa.make_url(url)
    backend = parsed.get_backend_name()
    return (
        parsed.set(drivername="postgresql+psycopg")
        if backend in ("postgresql", "postgres")
        else parsed
    )


def main() -> None:
    """Use the caller's connection, or open one."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        migrate(connection)
        return
    engine = sa.create_engine(own_url())
    with engine.begin() as connection:
        if schema_of(connection):
            connection.execute(sa.schema.CreateSchema("sqlbuffer", if_not_exists=True))
        migrate(connection)
    engine.dispose()


if context.is_offline_mode():
    raise SystemExit("Migrations read the database they change: run them online, without --sql.")
main()
