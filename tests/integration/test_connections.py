"""What a store asks of its connections: how durable a COMMIT is, and how many of them it opens."""

import concurrent.futures
import contextlib
import copy
import gc
import pathlib
import pickle
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import CacheStats

from helpers import inside
from helpers.polling import until
from helpers.servers import server_execute
from sqlbuffer.db.backends import now
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import DatabaseUnavailable
from sqlbuffer.store import SampleStore, open_store

TRANSACTIONS = ("write", "write_from_one_state")


def shown(statement: str) -> Callable[[sa.Connection], Any]:
    return lambda connection: connection.exec_driver_sql(statement).scalar_one()


# -- durability ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"), [({}, 1), ({"durability": "normal"}, 1), ({"durability": "full"}, 2)]
)
def test_sqlite_syncs_its_log_at_every_commit_only_when_told(
    sqlite_url: str, options: dict[str, str], expected: int
) -> None:
    with open_store(sqlite_url, **options) as store:  # type: ignore[arg-type]
        database = inside.database_of(store)
        for same in (
            database,
            database.sibling(),
            copy.copy(database),
            pickle.loads(pickle.dumps(database)),
        ):
            for kind in TRANSACTIONS:
                assert getattr(same, kind)(shown("PRAGMA synchronous")) == expected
            same.close()


@pytest.mark.parametrize("of_server", ["on", "off", "local"])
def test_postgresql_commits_as_its_server_says_or_waits_for_the_disk(
    postgresql_url: str, of_server: str
) -> None:
    name = sa.make_url(postgresql_url).database
    server_execute(postgresql_url, f"ALTER DATABASE {name} SET synchronous_commit = {of_server}")
    for durability, expected in (("normal", of_server), ("full", "on")):
        with open_store(postgresql_url, durability=durability) as store:
            for kind in TRANSACTIONS:
                transaction = getattr(inside.database_of(store), kind)
                assert transaction(shown("SHOW synchronous_commit")) == expected
            connection = inside.engine_of(store, "writer").raw_connection()
            cursor = connection.cursor()
            cursor.execute("SHOW synchronous_commit")
            assert cursor.fetchone() == (of_server,), "it is set for one transaction"
            connection.close()


# -- what time it is -------------------------------------------------------------------------------


def test_a_transaction_on_sqlite_has_one_time_and_the_next_a_later_one(sqlite_url: str) -> None:
    def times(connection: sa.Connection) -> list[Any]:
        return [connection.scalar(sa.select(now())) for _ in range(3)]

    with open_store(sqlite_url) as store:
        found = [inside.database_of(store).write(times) for _ in range(100)]
    assert all(len(set(of_one)) == 1 for of_one in found)
    assert len({of_one[0] for of_one in found}) == 100
    assert found == sorted(found)


# -- how many --------------------------------------------------------------------------------------


def n_connections(url: str) -> int:
    """Count, from outside, the connections that are open."""
    if url.startswith("sqlite"):
        file = str(pathlib.Path(url.removeprefix("sqlite:///")))
        return sum(opened.path == file for opened in psutil.Process().open_files())
    ours = "datname = current_database() AND application_name LIKE 'sqlbuffer %'"
    return int(server_execute(url, f"SELECT count(*) FROM pg_stat_activity WHERE {ours}")[0][0])


@pytest.mark.slow
@pytest.mark.each_database
@pytest.mark.parametrize(("kind", "sqlite", "postgresql"), [("read", 4, 4), ("write", 1, 2)])
def test_threads_that_use_one_store_share_a_few_connections(
    store_url: str, kind: str, sqlite: int, postgresql: int
) -> None:
    """Twelve threads want one at once; who finds none free waits for it."""
    most = sqlite if store_url.startswith("sqlite") else postgresql
    started, go_on = threading.Semaphore(0), threading.Event()

    def work(connection: sa.Connection) -> int:
        started.release()
        assert go_on.wait(60)
        return int(connection.scalar(sa.text("SELECT 1")) or 0)

    with open_store(store_url) as store, concurrent.futures.ThreadPoolExecutor(12) as threads:
        database = inside.database_of(store)
        database.close()  # what opening has opened
        done = [threads.submit(getattr(database, kind), work) for _ in range(12)]
        try:
            assert all(started.acquire(timeout=60) for _ in range(most))
            assert not started.acquire(timeout=0.3), "there is one more than there should be"
            assert n_connections(store_url) == most
        finally:
            go_on.set()
        assert [future.result(60) for future in done] == [1] * 12
        assert n_connections(store_url) == most


@pytest.mark.each_database
@pytest.mark.parametrize("kind", ["read", "look", "write"])
def test_a_connection_in_use_is_closed_after_its_use(store_url: str, kind: str) -> None:
    started, go_on = threading.Event(), threading.Event()

    def work(connection: sa.Connection) -> int:
        started.set()
        assert go_on.wait(60)
        return int(connection.scalar(sa.text("SELECT 1")) or 0)

    gc.disable()  # which closes connections of a pool that is garbage
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            store = open_store(store_url)
            database = inside.database_of(store)
            done = thread.submit(getattr(database, kind), work)
            assert started.wait(60)
            store.close()
            go_on.set()
            assert done.result(60) == 1
        until(lambda: n_connections(store_url) == 0)
    finally:
        gc.enable()


@pytest.mark.each_database
def test_reading_needs_one_connection_and_none_that_writes(store_url: str) -> None:
    """Four threads wait to write, and three read; then one more reads."""
    started, go_on = threading.Semaphore(0), threading.Event()

    def work(connection: sa.Connection) -> None:
        started.release()
        assert go_on.wait(60)

    with open_store(store_url, weighting="uniform") as store:
        store.add(["a"], meta=[{"x": 1}])
        database = inside.database_of(store)
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            kinds = ["write"] * 4 + ["read"] * 3
            done = [threads.submit(getattr(database, kind), work) for kind in kinds]
            try:
                for _ in range(4):
                    assert started.acquire(timeout=60)
                found = threads.submit(store.to_arrow, ["sample", "meta.x"]).result(30)
                assert found.to_pylist() == [{"sample": "a", "meta.x": 1}]
                assert threads.submit(len, store).result(30) == 1
            finally:
                go_on.set()
            for future in done:
                future.result(60)


def test_a_reader_has_no_lock_of_the_writer_before_it(postgresql_url: str) -> None:
    n_locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    with open_store(postgresql_url, weighting="uniform") as store:
        store.add(["a", "b"])
        store.forget(store.waiting().ids[:1])
        database = inside.database_of(store)
        for kind in ("read", "look", "write_from_one_state"):
            assert getattr(database, kind)(shown(n_locks)) == 0, kind
        with inside.engine_of(store, "owner").begin() as connection:
            assert shown(n_locks)(connection) == 0


@pytest.mark.slow
def test_a_thread_that_waits_in_vain_for_another_is_told_so(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.shorten_patience(monkeypatch, 0.5)
    with open_store(store_url) as store, contextlib.ExitStack() as held:
        database = inside.database_of(store)
        writer: Any = database._engine("writer")
        writer.pool._timeout = 0.1
        for _ in range(writer.pool.size()):
            held.enter_context(writer.connect())
        with pytest.raises(
            DatabaseUnavailable, match=r"other threads hold all of them.*open a store for each"
        ):
            store.add(["CCO"])


# -- a thread that would wait for itself -----------------------------------------------------------


WRITES: dict[str, Callable[[SampleStore, Any], object]] = {
    "add": lambda store, batch: store.add(["another"]),
    "settle": lambda store, batch: batch.settle([1.0] * len(batch)),
    "report": lambda store, batch: batch.report(batch.ids, [1.0] * len(batch)),
    "release": lambda store, batch: batch.release(),
    "draw": lambda store, batch: store.sample(2),
    "metrics": lambda store, batch: store.log_metrics(0, {"loss": 1.0}),
    "copy": lambda store, batch: store.copy("copied"),
    "another store": lambda store, batch: open_store(_url_of(store), weighting="uniform").add(
        ["another"]
    ),
}


def _url_of(store: SampleStore) -> str:
    return inside.url_of(store)


@pytest.mark.slow
@pytest.mark.each_database
@pytest.mark.parametrize("write", WRITES)
def test_a_signal_handler_that_writes_while_its_thread_is_writing_is_refused_at_once(
    store_url: str, write: str
) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"s{i}" for i in range(10)])
        batch = store.sample(3)
        caught: list[BaseException] = []
        took_s: list[float] = []

        def handle(*_: object) -> None:
            began = time.monotonic()
            try:
                WRITES[write](store, batch)
            except DatabaseUnavailable as exc:
                caught.append(exc)
            took_s.append(time.monotonic() - began)
            assert len(store) == 7, "reading goes on"

        def interrupted(connection: sa.Connection) -> None:
            connection.execute(sa.update(buffers).values(kind=buffers.c.kind))
            signal.raise_signal(signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            inside.database_of(store).write(interrupted)
        finally:
            signal.signal(signal.SIGUSR1, before)
        (error,) = caught
        assert "this thread is in the middle of writing" in str(error)
        assert "set a flag" in str(error)
        assert took_s[0] < 5
        batch.settle([1.0] * 3)
        assert (store.iteration, store.check()) == (1, [])


def test_a_write_that_failed_stands_in_the_way_of_none(store_url: str) -> None:
    """Its frames live on in the traceback, but not on the stack."""
    with open_store(store_url, weighting="uniform") as store:

        def fail(connection: sa.Connection) -> None:
            raise ValueError("during it")

        with pytest.raises(ValueError, match="during it"):
            inside.database_of(store).write(fail)
        try:
            inside.database_of(store).write(fail)
        except ValueError:
            store.add(["s1"])
        assert len(store) == 1


@pytest.mark.slow
def test_a_second_store_compiles_no_statement(store_url: str) -> None:
    """Engines share a dialect, and with it the compiled statements."""
    compiled: list[str] = []

    def note(*given: Any) -> None:
        statement, context = given[2], given[4]
        if context.cache_hit is CacheStats.CACHE_MISS:
            compiled.append(statement)

    for name in ("first", "second"):
        compiled.clear()
        with open_store(store_url, name=name) as store:
            for kind in ("reader", "writer"):
                engine = inside.database_of(store)._engine(kind)
                sa.event.listen(engine, "before_cursor_execute", note)
            store.add(["a", "b"])
            store.score(lambda samples: [1.0] * len(samples))
            store.sample(1).settle([1.0])
    assert compiled == []


def test_the_statements_of_a_viewer_are_cached_apart(store_url: str) -> None:
    with open_store(store_url) as store, store.connect() as viewer:
        ours = inside.engine_of(store, "reader").get_execution_options()["compiled_cache"]
        before = len(ours)
        for limit in range(20):
            viewer.execute(sa.text(f"SELECT {limit}")).all()
        assert len(ours) == before


def test_a_server_is_asked_for_its_version_once(postgresql_url: str) -> None:
    asked: list[str] = []

    def note(*given: Any) -> None:
        asked.append(given[2])

    with open_store(postgresql_url):
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            with open_store(postgresql_url, name="second") as store:
                dialect: Any = inside.engine_of(store).dialect
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert dialect.server_version_info >= (15,)
    assert asked
    assert not [sql for sql in asked if "version()" in sql]
