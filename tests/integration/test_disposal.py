"""What is dropped lets go: of threads, of connections, and of claims; and a finalizer does none of
it itself.
"""

import contextlib
import gc
import logging
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import wait_for_disposal
from helpers.recycling import APPLICATION
from helpers.samples import scores_of
from helpers.servers import server_execute
from sqlbuffer import Buffer, Environment
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import disposal
from sqlbuffer.store import SampleStore, open_store

ROOT = pathlib.Path(__file__).parents[2]
TEN = [f"s{i}" for i in range(10)]


def filled(url: str, **options: Any) -> SampleStore:
    store = open_store(url, **options)
    store.add(TEN)
    store.score(scores_of)
    return store


def settle_down() -> None:
    """Collect the garbage, and wait until it is put away."""
    gc.collect()
    wait_for_disposal()


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.02)


@contextlib.contextmanager
def connections_of(url: str) -> Iterator[Callable[[], int]]:
    """Give what counts the connections that this process, or the server, has to a database."""
    parsed = sa.make_url(url)
    if parsed.drivername.startswith("sqlite"):
        file = os.path.realpath(str(parsed.database))

        def opened() -> int:
            found = 0
            for entry in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    found += os.readlink(f"/proc/self/fd/{entry}") == file
            return found

        yield opened
    else:
        admin = parsed.set(database="postgres").render_as_string(hide_password=False)
        yield lambda: len(
            server_execute(
                admin,
                f"SELECT 1 FROM pg_stat_activity WHERE datname = '{parsed.database}' "
                f"AND application_name <> '{APPLICATION}'",
            )
        )


# -- stores ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("use", [filled, lambda url: len(open_store(url))], ids=["written", "read"])
def test_stores_that_are_dropped_leave_neither_threads_nor_connections(
    store_url: str, use: Callable[[str], Any]
) -> None:
    open_store(store_url).close()
    with connections_of(store_url) as connections:
        before = threading.active_count()
        for _ in range(20):
            use(store_url)
        settle_down()
        until(
            lambda: (threading.active_count() - before, connections()) == (0, 0)
        )  # a server takes a moment


@pytest.mark.slow
def test_a_store_whose_key_leads_back_to_it_is_garbage_too(store_url: str) -> None:
    class Loop:
        def __init__(self) -> None:
            self.store = filled(store_url, key=self.key)
            self.batch = self.store.sample(3)

        def key(self, sample: Any) -> Any:
            return sample

    Loop()
    settle_down()
    assert [
        thread.name for thread in threading.enumerate() if thread.name.startswith("sqlbuffer")
    ] == []
    with pytest.warns(UserWarning, match="no key"), open_store(store_url) as store:
        assert (store.stats().claimed, len(store), store.check()) == (0, 10, [])


@pytest.mark.slow
def test_a_batch_keeps_its_store_in_use(store_url: str) -> None:
    batch = filled(store_url).sample(3)
    settle_down()
    assert (
        len([thread for thread in threading.enumerate() if thread.name == "sqlbuffer heartbeat"])
        == 1
    )
    batch.settle([1.0, 2.0, 3.0])
    with open_store(store_url) as store:
        assert (store.iteration, store.check()) == (1, [])


@pytest.mark.slow
def test_a_fork_finds_no_connection_of_a_store_that_was_dropped(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the thread has begun, which is also to release a claim: the fork waits for neither."""
    with filled(store_url) as store:
        with monkeypatch.context() as patched:
            patched.setattr(disposal._thread, "start_new_thread", lambda *_: 0)
            batch = store.sample(3)
            del batch
            filled(store_url, name="dropped")
            gc.collect()
            begun = time.monotonic()
            if not (child := os.fork()):
                with contextlib.suppress(BaseException):
                    os._exit(store.stats().claimed != 3)
                os._exit(2)
            took_s = time.monotonic() - begun
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        settle_down()
        assert (store.stats().claimed, store.check()) == (0, [])
    assert took_s < disposal.PATIENCE_S


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_batch_that_is_dropped_goes_back_with_a_warning(
    store_url: str, mode: str, is_closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with filled(store_url, mode=mode, seed=5) as store:
        batch = store.sample(4)
        drawn, number = batch.samples, batch.id
        batch.report(batch.ids[:1], [1.0])
        if is_closed:
            store.close()
        with caplog.at_level(logging.WARNING):
            del batch
            settle_down()
        assert f"batch {number} of buffer 'default' was dropped" in caplog.text
        assert (store.stats().claimed, store.stats().measured, store.check()) == (0, 1, [])
        again = store.sample(3)
        if mode == "consume":
            assert again.samples == drawn[1:], "first in line"
        else:
            assert (again.importance_weights() > 0).all(), "as if it had been settled"


@pytest.mark.slow
def test_what_has_ended_is_dropped_in_silence(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with filled(store_url) as store, caplog.at_level(logging.WARNING):
        store.sample(2).settle([1.0, 2.0])
        store.sample(2).release()
        with store.sample(2) as batch:
            batch.settle()
        last = store.sample(2)
        last.report(last.ids, [1.0, 2.0])
        del last
        settle_down()
        assert (caplog.text, store.check()) == ("", [])


@pytest.mark.slow
def test_a_batch_that_was_rolled_back_takes_no_other_with_it(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite gives its number to the next one, of this process or of another."""
    with filled(store_url) as store, caplog.at_level(logging.WARNING):

        def fail(moment: str) -> None:
            if moment == "before":
                raise ValueError("not to be committed")

        with monkeypatch.context() as patch:
            inside.call_at_commits(patch, fail)
            with pytest.raises(ValueError, match="not to be"):
                store.sample(3)
        batch = store.sample(3)
        settle_down()
        assert (store.stats().claimed, caplog.text) == (3, "")
        batch.settle([1.0, 2.0, 3.0])


@pytest.mark.slow
def test_a_draw_that_a_signal_takes_away_goes_back(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was committed, and its batch never came: there is nothing that a person could release."""
    with filled(store_url) as store:

        def interrupt(moment: str) -> None:
            if moment == "after":
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            inside.call_at_commits(patch, interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.sample(3)
        settle_down()
        assert (store.stats().claimed, len(store), store.check()) == (0, 10, [])


@pytest.mark.slow
def test_batches_dropped_at_any_moment_do_no_harm(store_url: str) -> None:
    """Also in the middle of a transaction of the same store, by the thread that is in it."""
    with filled(store_url) as store:

        def drop(connection: sa.Connection) -> None:
            held.clear()
            gc.collect()
            connection.execute(sa.text("SELECT 1"))

        for _ in range(5):
            held = [store.sample(2)]
            inside.database_of(store).write(drop)
        settle_down()
        assert (store.stats().claimed, len(store), store.check()) == (0, 10, [])


# -- loops -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cell_run_twice_leaves_no_claim(store_url: str) -> None:
    drawn = []
    for _ in range(3):
        buffer = Buffer(1.0, url=store_url)
        env = Environment(buffer=buffer)
        env.bs = 4
        env("before_train")
        if not len(buffer):
            buffer.add(TEN)
        env("sample_batch")
        drawn.append(sorted(env.batch_state.samples))
        del buffer, env  # what the next run of the cell does when it assigns them
    assert drawn[0] == drawn[1] == drawn[2], "the batch of the run before was first in line"
    settle_down()
    with open_store(store_url, weighting="uniform") as store:
        assert (store.stats().claimed, store.check()) == (0, [])


# -- the end of a process --------------------------------------------------------------------------

ENDS = """
import sys, time
from sqlbuffer import open_store
store = open_store(sys.argv[1])
batch = store.sample(4)
{}
"""


@pytest.mark.parametrize(
    "end", ["", "raise SystemExit(1)", "store.close()\nbatch.release()", "1 / 0"]
)
@pytest.mark.slow
def test_a_process_that_ends_leaves_no_claim_and_has_finished(store_url: str, end: str) -> None:
    with filled(store_url) as store:
        command = [sys.executable, "-c", ENDS.format(end), store_url]
        subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
        assert store.stats().claimed == 0, "before anybody has looked for the dead"
        table = sa.text(f"SELECT id FROM {table_of(store_url)} WHERE finished_at IS NOT NULL")
        finished = inside.scalars(store, table)
        assert len(finished) == 1
        open_store(store_url).close()
        assert store.check() == []
        left = sa.text(f"SELECT id FROM {table_of(store_url)} WHERE id <> 'ledger'")
        assert inside.scalars(store, left) == [worker_id()]


def table_of(url: str) -> str:
    return "workers" if url.startswith("sqlite") else "sqlbuffer.workers"


@pytest.mark.slow
def test_the_end_of_a_process_waits_for_no_lock(sqlite_url: str) -> None:
    filled(sqlite_url).close()
    held = """
blocker = __import__("sqlite3").connect(sys.argv[1][len("sqlite:///"):], isolation_level=None)
blocker.execute("BEGIN IMMEDIATE")
print(time.time(), flush=True)
"""
    command = [sys.executable, "-c", ENDS.format(held), sqlite_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert time.time() - float(done.stdout) < 20
    with open_store(sqlite_url) as store:
        assert (store.stats().claimed, store.check()) == (0, [])


def test_a_signal_in_a_finalizer_does_not_end_the_putting_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    done: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(disposal._thread, "start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            disposal.later(lambda: done.append(1))
        with pytest.raises(KeyboardInterrupt):
            disposal.wait(10)
    disposal.later(lambda: done.append(2))
    assert disposal.wait(10)
    assert done == [1, 2]


def test_the_next_draw_has_what_was_dropped_before(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a notebook, where a cell keeps the samples of a batch and not the batch."""
    with open_store(store_url, weighting="uniform") as store:
        store.add(TEN)
        for _ in range(5):
            assert len(store.sample(8).samples) == 8


def test_a_draw_does_not_wait_for_what_another_database_is_to_put_away(store_url: str) -> None:
    """A server that hangs would delay every draw of the process by two seconds."""
    is_free = threading.Event()
    with filled(store_url) as store:
        disposal.later(lambda: is_free.wait(60), database="postgresql://hangs")
        disposal.later(lambda: None, database="postgresql://hangs")
        begun = time.monotonic()
        batch = store.sample(3)
        took_s = time.monotonic() - begun
        assert not disposal.wait(0.01), "the other one still hangs"
        assert disposal.wait(0.01, database=store.url)
        disposal.later(lambda: None, database=store.url)
        assert not disposal.wait(0.01, database=store.url), "it waits for its turn"
        is_free.set()
        assert disposal.wait(60, database=store.url)
        batch.release()
    assert took_s < disposal.PATIENCE_S
