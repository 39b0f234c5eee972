"""A buffer is pruned while four processes draw and settle, and by a process that is killed."""

import os
import signal
from typing import Any

import numpy as np

from helpers.forked import forkserver
from sqlbuffer.db import database
from sqlbuffer.maintenance import prune
from sqlbuffer.store import open_store

BATCHES, SIZE = 20, 5


def settle(url: str, results: Any) -> None:
    """Draw and settle batches as one of several processes; put the samples into a queue."""
    seen: list[str] = []
    with open_store(url) as store:
        for i in range(BATCHES):
            batch = store.sample(SIZE)
            if i % 10 == 9:  # as a loop that is interrupted
                batch.release()
                continue
            batch.settle(np.arange(float(SIZE)), metrics={"m": 1.0}, checkpoint={"c": b"c"})
            seen += batch.samples
    results.put(seen)


def die(url: str) -> None:
    """Prune, and be killed after the first COMMIT."""
    prune.ROWS_AT_ONCE = 10

    def come_by(moment: str) -> None:
        if moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    with open_store(url) as store:
        database.boundary = come_by
        store.prune(keep_draws=0)


def test_a_killed_process_leaves_a_sound_buffer_and_the_next_call_goes_on(store_url: str) -> None:
    killed = forkserver().Process(target=die, args=(store_url,))
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"s{i}" for i in range(100)])
        for _ in range(6):
            store.sample(SIZE).settle([1.0] * SIZE)
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        assert store.check() == []
        assert store.prune(keep_draws=0).draws == 6 * SIZE - 10
        assert store.check() == []


def test_pruning_changes_nothing_for_four_processes_that_work(store_url: str) -> None:
    processes = forkserver()
    results = processes.Queue()
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"s{i}" for i in range(1000)])
        workers = [processes.Process(target=settle, args=(store_url, results)) for _ in range(4)]
        for worker in workers:
            worker.start()
        n_draws = 0
        while any(worker.is_alive() for worker in workers) and results.qsize() < len(workers):
            n_draws += store.prune(keep_draws=20).draws
        seen = [sample for _ in workers for sample in results.get(timeout=60)]
        for worker in workers:
            worker.join()
        n_draws += store.prune(keep_draws=0).draws
        assert len(seen) == len(set(seen)) == 4 * 18 * SIZE
        # All settled draws, and those of released batches that the race has passed.
        assert len(seen) <= n_draws <= 4 * BATCHES * SIZE
        assert store.stats().measured == len(seen)
        assert store.stats().claimed == 0
        assert store.check() == []
