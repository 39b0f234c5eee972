"""SQLite's WAL-reset race: which versions have it, and the lock that keeps two of our processes
from losing it.
"""

import contextlib
import functools
import os
import pathlib
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.samples import scores_of
from helpers.wal_race import provoke
from sqlbuffer.db import database as database_module
from sqlbuffer.db.backends import sqlite, sqlite_connections, sqlite_lock
from sqlbuffer.errors import DatabaseUnavailable
from sqlbuffer.store import SampleStore, open_store

SOAK_S = float(os.environ.get("SQLBUFFER_SOAK_S", "600"))
TEN = [f"s{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.44.7", False),
        ("3.45.0", True),
        ("3.49.2", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.0", True),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.52.0", False),
        ("3.53.4", False),
        ("4.0.0", False),
    ],
)
def test_the_versions_with_the_race(version: str, expected: bool) -> None:
    assert sqlite_lock.is_affected(tuple(map(int, version.split(".")))) is expected


# -- who holds the lock ----------------------------------------------------------------------------


def path_of(url: str) -> pathlib.Path:
    return pathlib.Path(url.removeprefix("sqlite:///"))


def is_held(url: str) -> bool:
    """Tell whether anybody holds the lock, this process too: each has a file of its own."""
    lock = sqlite_lock.WriterLock(str(path_of(url)))
    is_free = lock.acquire(0)
    lock.release()
    return not is_free


ACTIONS: dict[str, Callable[[SampleStore], object]] = {
    "add": lambda store: store.add(["new"]),
    "score": lambda store: store.score(scores_of, only="all"),
    "settle": lambda store: store.sample(2).settle([1.0, 2.0]),
    "release": lambda store: store.sample(2).release(),
    "metrics": lambda store: store.log_metrics(0, {"loss": 1.0}),
    "copy": lambda store: store.copy("other"),
    "remove": lambda store: store.remove(store.waiting().ids[:1]),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_every_writing_transaction_holds_the_lock(
    sqlite_url: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[str, bool]] = []
    with open_store(sqlite_url) as store:
        store.add(TEN)
        store.score(scores_of)
        monkeypatch.setattr(
            database_module, "boundary", lambda moment: held.append((moment, is_held(sqlite_url)))
        )
        ACTIONS[action](store)
        assert held
        assert held == [("before", True), ("after", False)] * (len(held) // 2)
        store.check()
        len(store)
        assert not is_held(sqlite_url)


def test_so_does_the_one_that_makes_the_schema(sqlite_url: str) -> None:
    held = []
    dialect = sqlite.SQLite()
    engine = dialect.engine(sa.make_url(sqlite_url), "owner")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE x (y)")
        held.append(is_held(sqlite_url))
    engine.dispose()
    assert [*held, is_held(sqlite_url)] == [True, False]


@pytest.mark.parametrize("kind", ["reader", "looker"])
def test_a_reader_waits_for_no_lock_and_holds_none(sqlite_url: str, kind: str) -> None:
    with open_store(sqlite_url) as store:
        store.add(TEN)
        lock = sqlite_lock.WriterLock(str(path_of(sqlite_url)))
        lock.acquire(0)
        assert len(store) == 10
        assert len(store.waiting().samples) == 10
        lock.release()
        database = inside.database_of(store)
        read = database.read if kind == "reader" else database.look
        assert not read(lambda connection: connection.scalar(sa.select(1)) and is_held(sqlite_url))


class Boom(Exception):
    """Raised within a transaction."""


def fail(connection: sa.Connection) -> None:
    raise Boom


@pytest.mark.parametrize("times", [1, 3])
def test_a_transaction_that_fails_lets_go(sqlite_url: str, times: int) -> None:
    with open_store(sqlite_url) as store:
        for _ in range(times):
            with pytest.raises(Boom):
                inside.database_of(store).write(fail)
            assert not is_held(sqlite_url)
        store.add(TEN)


def test_a_commit_that_fails_lets_go(sqlite_url: str) -> None:
    def violate(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql(
            "CREATE TABLE child (id REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.exec_driver_sql("INSERT INTO child VALUES (1)")

    with open_store(sqlite_url) as store:
        with pytest.raises(sa.exc.IntegrityError):
            inside.database_of(store).write(violate)
        assert not is_held(sqlite_url)
        store.add(TEN)


def test_a_writer_waits_for_the_lock_and_says_when_it_does_not_come(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = sqlite_lock.WriterLock(str(path_of(sqlite_url)))
    with open_store(sqlite_url) as store:
        store.add(TEN)
        lock.acquire(0)
        threading.Timer(0.3, lock.release).start()
        begun = time.monotonic()
        store.add(["waits"])
        assert time.monotonic() - begun > 0.2
        lock.acquire(0)
        inside.shorten_patience(monkeypatch, 0.1)
        with pytest.raises(
            DatabaseUnavailable, match=r"database is locked.*another program held the file"
        ):
            store.add(["in vain"])
        lock.release()
        store.add(["goes on"])
        assert store.stats().stored == 12


def test_a_lock_file_that_is_deleted_is_made_again(sqlite_url: str) -> None:
    """Any process that waited for the old one does not take it for the new one."""
    file = str(path_of(sqlite_url))
    with open_store(sqlite_url) as store:
        store.add(TEN)
        first, second = sqlite_lock.WriterLock(file), sqlite_lock.WriterLock(file)
        first.acquire(0)
        os.unlink(f"{file}-lock")
        assert second.acquire(0)
        first.release()
        assert not first.acquire(0.05)
        second.release()
        store.add(["goes on"])


def test_a_user_who_may_write_to_the_file_may_lock_it(sqlite_url: str) -> None:
    file = path_of(sqlite_url)
    file.touch()
    file.chmod(0o660)
    before = os.umask(0o077)
    try:
        open_store(sqlite_url).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"{file}-lock").st_mode) == 0o660


def test_a_lock_file_that_cannot_be_opened_is_said(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        store.add(TEN)
        lock = pathlib.Path(f"{path_of(sqlite_url)}-lock")
        lock.unlink()
        lock.mkdir()
        with pytest.raises(
            DatabaseUnavailable, match=r"-lock cannot be locked.*must be able to create"
        ):
            store.add(["new"])
        lock.rmdir()
        store.add(["new"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_was_killed(sqlite_url: str) -> None:
    """It has the same open file, and would hold the lock for as long as it lives."""
    program = """
import os, sys, time
from sqlbuffer.store import open_store

def fork(connection):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)

with open_store(sys.argv[1]) as store:
    store._buffer.database.write(fork)
"""
    open_store(sqlite_url).close()
    parent = subprocess.Popen(
        [sys.executable, "-c", program, sqlite_url], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_held(sqlite_url)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    try:
        with open_store(sqlite_url) as store:
            assert store.add(["goes on"]).added == 1
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_pickled_store_has_a_lock_of_its_own(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        copy = pickle.loads(pickle.dumps(store))
        copy.add(TEN)
        store.add(["more"])
        copy.close()
        assert store.stats().stored == 11


def test_threads_and_processes_take_turns(sqlite_url: str) -> None:
    add = """
import sys
from sqlbuffer.store import open_store
for i in range(40):
    with open_store(sys.argv[1]) as store:
        store.add([f"{sys.argv[2]} {i}"])
"""
    with open_store(sqlite_url) as store, contextlib.ExitStack() as left:
        others = [
            subprocess.Popen([sys.executable, "-c", add, sqlite_url, str(i)]) for i in range(2)
        ]
        for other in others:
            left.callback(other.kill)
        threads = [
            threading.Thread(target=functools.partial(_add_alone, sqlite_url, f"thread {i}"))
            for i in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert [other.wait(120) for other in others] == [0, 0]
        assert store.stats().stored == 5 * 40
        assert store.check() == []


def _add_alone(url: str, name: str) -> None:
    with open_store(url) as store:
        for i in range(40):
            store.add([f"{name} {i}"])


def test_the_log_is_written_back_and_does_not_grow(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connections, "CHECKPOINT_PAGES", 50)
    with open_store(sqlite_url) as store:
        for i in range(200):
            store.add([f"{i} {j}" for j in range(20)])
        assert os.path.getsize(f"{path_of(sqlite_url)}-wal") < 1_000_000


# -- the race --------------------------------------------------------------------------------------


@pytest.fixture
def fast_url(tmp_path: pathlib.Path) -> Iterator[str]:
    """A file in memory where there is such a disk: the race is lost sooner."""
    shared = pathlib.Path("/dev/shm")
    folder = shared / f"sqlbuffer-{os.getpid()}" if shared.is_dir() else tmp_path
    folder.mkdir(exist_ok=True)
    yield f"{folder}/x.db"
    for file in folder.glob("x.db*"):
        file.unlink()
    if folder != tmp_path:
        folder.rmdir()


@pytest.mark.soak
def test_the_race_is_never_lost_under_the_lock(fast_url: str) -> None:
    outcome = provoke(f"sqlite:///{fast_url}", seconds=SOAK_S, guarded=True)
    print(sqlite3.sqlite_version, outcome)
    assert outcome.is_sound
    assert outcome.log_bytes < 10_000_000


@pytest.mark.soak
@pytest.mark.skipif(
    not sqlite_lock.is_affected(sqlite3.sqlite_version_info),
    reason="this SQLite does not have the race",
)
def test_the_race_is_lost_without_the_lock(fast_url: str) -> None:
    """Else the test before would show nothing."""
    outcome = provoke(f"sqlite:///{fast_url}", seconds=SOAK_S, guarded=False)
    print(sqlite3.sqlite_version, outcome)
    assert not outcome.is_sound


@pytest.mark.soak
@pytest.mark.parametrize("guarded", [True, False])
def test_a_later_sqlite_does_not_have_the_race(fast_url: str, guarded: bool) -> None:
    pytest.importorskip("pysqlite3")
    outcome = provoke(f"sqlite+pysqlite3:///{fast_url}", seconds=SOAK_S, guarded=guarded)
    print("pysqlite3", outcome)
    assert outcome.is_sound
