"""Looking at a store's database from its own process, and two SQLite libraries in one process."""

import contextlib
import os
import pathlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from helpers import inside
from sqlbuffer.db.backends import parse_url
from sqlbuffer.errors import DatabaseUnavailable, MissingExtra
from sqlbuffer.store import SampleStore, open_store

TEN = [f"s{i}" for i in range(10)]


@pytest.fixture
def other_url(sqlite_url: str) -> str:
    """A file to be opened by another library than Python's."""
    pytest.importorskip("pysqlite3", reason="no wheel of pysqlite3 for this platform")
    return sqlite_url.replace("sqlite:", "sqlite+pysqlite3:")


def file_of(url: str) -> str:
    return url.partition("///")[2]


# -- a look ----------------------------------------------------------------------------------------


def test_a_connection_of_the_store_reads_and_cannot_write(store: SampleStore) -> None:
    store.add(TEN)
    prefix = "" if store.url.startswith("sqlite") else "sqlbuffer."
    with store.connect() as connection:
        assert connection.scalar(sa.text(f"SELECT count(*) FROM {prefix}samples")) == 10
    for statement in (
        f"DELETE FROM {prefix}samples",
        f"UPDATE {prefix}buffers SET name = 'x'",
        "CREATE TABLE x (y int)",
    ):
        with store.connect() as connection, pytest.raises(sa.exc.DBAPIError, match=r"read-?only"):
            connection.execute(sa.text(statement))
    assert len(store) == 10
    store.add(["goes on"])


def test_a_connection_of_the_store_leads_to_no_other_file(
    sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    with open_store(sqlite_url, weighting="uniform") as store:
        store.add(TEN)
        for statement in (
            f"ATTACH 'file:{tmp_path}/z.db?mode=rwc' AS z",
            f"ATTACH 'file:{file_of(sqlite_url)}?mode=rw' AS z",
            f"VACUUM INTO '{tmp_path}/z.db'",
            "PRAGMA query_only = OFF",
            "PRAGMA wal_checkpoint",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA writable_schema = ON",
        ):
            with (
                store.connect() as connection,
                pytest.raises(sa.exc.DBAPIError, match=r"not authorized|authorization denied"),
            ):
                connection.execute(sa.text(statement))
        with store.connect() as connection:
            assert "samples" in sa.inspect(connection).get_table_names()
            assert len(sa.inspect(connection).get_columns("samples")) > 10
            assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
    assert not (tmp_path / "z.db").exists()


def test_pandas_reads_through_it(store: SampleStore) -> None:
    store.add(TEN)
    with store.connect() as connection:
        frame = pd.read_sql("SELECT text, source FROM samples ORDER BY id", connection)
    assert len(frame) == 10
    assert list(frame.columns) == ["text", "source"]


def test_four_looks_at_once_do_not_keep_the_store_from_its_work(store: SampleStore) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(4):
            opened.enter_context(store.connect())
        store.add(TEN)
        assert len(store) == 10
        assert store.check() == []


def test_a_driver_that_is_not_installed(tmp_path: pathlib.Path) -> None:
    """In another process, where it cannot be imported."""
    program = """
import sys
sys.modules["pysqlite3"] = None
from sqlbuffer.store import open_store
open_store(sys.argv[1])
"""
    command = [sys.executable, "-c", program, f"sqlite+pysqlite3:///{tmp_path}/x.db"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert MissingExtra.__name__ in done.stderr
    assert "pip install 'sqlbuffer[sqlite]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


# -- another library -------------------------------------------------------------------------------


@pytest.mark.pysqlite3
def test_a_store_works_by_another_library(other_url: str) -> None:
    with open_store(other_url, weighting="uniform") as store:
        store.add(TEN)
        store.sample(4).settle([1.0, 2.0, 3.0, 4.0])
        batch = store.sample(2)
        batch.report(batch.ids[:1], [5.0])
        batch.release()
        store.copy("other")
        assert store.check() == []
        about = inside.database_of(store).read(inside.backend_of(store).about)
        assert "(pysqlite3)" in about
        pathlib.Path(f"{file_of(other_url)}-2").write_bytes(b"no database" * 100)
        with pytest.raises(DatabaseUnavailable, match="not an SQLite database"):
            open_store(f"{other_url}-2")
    with open_store(other_url.replace("+pysqlite3", ""), weighting="uniform") as store:
        assert store.stats().measured == 5
        assert store.check() == []


LOOKS: dict[str, Callable[[str], object]] = {
    "path": lambda file: sqlite3.connect(file),
    "Path": lambda file: sqlite3.connect(pathlib.Path(file)),
    "bytes": lambda file: sqlite3.connect(os.fsencode(file)),
    "relative": lambda file: sqlite3.connect(os.path.relpath(file)),
    "URI": lambda file: sqlite3.connect(f"file:{file}?mode=ro", uri=True),
    "URI with a host": lambda file: sqlite3.connect(f"file://localhost{file}?mode=ro", uri=True),
    "dbapi2": lambda file: sqlite3.dbapi2.connect(file),
    "SQLAlchemy": lambda file: sa.create_engine(f"sqlite:///{file}").connect(),
    "pandas": lambda file: pd.read_sql("SELECT * FROM samples", f"sqlite:///{file}"),
    "a store": lambda file: open_store(f"sqlite:///{file}"),
}


@pytest.mark.pysqlite3
@pytest.mark.parametrize("look", LOOKS)
def test_pythons_library_does_not_open_the_file_of_another_one(
    other_url: str, look: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = file_of(other_url)
    with open_store(other_url) as store:
        store.add(TEN)
        with pytest.raises(
            DatabaseUnavailable, match=r"open in this process.*pysqlite3.*store.connect\(\)"
        ):
            LOOKS[look](file)
        sqlite3.connect(f"{file}-other").close()
        store.add(["goes on"])
    opened: Any = sqlite3.connect(file)  # closed: the file is free again
    assert opened.execute("SELECT count(*) FROM samples").fetchone() == (11,)
    opened.close()


@pytest.mark.pysqlite3
@pytest.mark.parametrize("by", ["a store", "sqlite3"])
def test_another_library_does_not_open_a_file_that_pythons_has_open(
    other_url: str, by: str
) -> None:
    url = other_url.replace("+pysqlite3", "")
    with open_store(url) as store:
        store.add(TEN)
        holder: Any = store if by == "a store" else sqlite3.connect(file_of(url))
        if by == "sqlite3":
            store.close()
            holder.execute("SELECT count(*) FROM samples").fetchone()
        with pytest.raises(DatabaseUnavailable, match=r"open in this process.*sqlite3"):
            open_store(other_url)
        holder.close()
    with open_store(other_url) as store:
        assert len(store) == 10


@pytest.mark.pysqlite3
def test_nothing_acknowledged_is_lost_by_a_look_from_the_same_process(other_url: str) -> None:
    """The whole course of it: a look, another process that opens and closes the store, a kill."""
    program = """
import os, signal, sqlite3, subprocess, sys
from sqlbuffer.store import open_store
url, file = sys.argv[1:]
store = open_store(url)
store.add([f"s{i}" for i in range(10)])
try:
    connection = sqlite3.connect(file)
    connection.execute("SELECT count(*) FROM samples").fetchone()
    connection.close()
except OSError as exc:
    print("refused:", exc, flush=True)
other = f"from sqlbuffer.store import open_store; open_store({url!r}).close()"
subprocess.run([sys.executable, "-c", other], check=True)
for i in range(50):
    store.add([f"more {i}"])
print("acknowledged", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", program, other_url, file_of(other_url)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "refused:" in done.stdout, done.stderr
    assert "acknowledged" in done.stdout, done.stderr
    with open_store(other_url) as store:
        assert store.stats().stored == 60
        assert store.check() == []


@pytest.mark.pysqlite3
def test_both_libraries_are_one_dialect(other_url: str) -> None:
    assert parse_url(other_url)[1] is parse_url(other_url)[1]
    assert parse_url(other_url)[1].schema is None
