"""A database that goes back to an earlier state under a living process, as a failover or a restore
lets it.
"""

import pathlib
import sqlite3
from collections.abc import Callable

import psycopg
import sqlalchemy as sa

from sqlbuffer.db.schema import metadata

SAVED = "saved"


def save(url: str) -> Callable[[], None]:
    """Save the present state; return what brings it back, while stores stay open."""
    return _save_file(url) if url.startswith("sqlite") else _save_schema(url)


def _save_file(url: str) -> Callable[[], None]:
    file = pathlib.Path(str(sa.make_url(url).database))
    saved = file.with_suffix(".saved")
    saved.unlink(missing_ok=True)
    _copy(file, saved)
    return lambda: _copy(saved, file)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy by SQLite's own backup, which is a transaction of the target."""
    with sqlite3.connect(source) as one, sqlite3.connect(target, timeout=10) as other:
        one.backup(other)
    one.close()
    other.close()


def _save_schema(url: str) -> Callable[[], None]:
    tables = [table.name for table in metadata.sorted_tables]
    _execute(
        url,
        f"DROP SCHEMA IF EXISTS {SAVED} CASCADE",
        f"CREATE SCHEMA {SAVED}",
        *(f"CREATE TABLE {SAVED}.{name} AS TABLE sqlbuffer.{name}" for name in tables),
    )
    sequences = {
        name: _execute(url, f"SELECT last_value, is_called FROM sqlbuffer.{name}")[0]
        for (name,) in _execute(
            url, "SELECT sequencename FROM pg_sequences WHERE schemaname = 'sqlbuffer'"
        )
    }

    def restore() -> None:
        _execute(
            url,
            f"TRUNCATE {', '.join(f'sqlbuffer.{name}' for name in tables)}",
            *(
                f"INSERT INTO sqlbuffer.{name} OVERRIDING SYSTEM VALUE TABLE {SAVED}.{name}"
                for name in tables
            ),
            *(
                f"SELECT setval('sqlbuffer.{name}', {last}, {is_called})"
                for name, (last, is_called) in sequences.items()
            ),
        )

    return restore


def _execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Execute statements in one transaction; return the rows of the last, if it has any."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []
