"""A buffer is pruned again and again, also by a killed process, while four draw and settle."""

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


def test_pruning_beside_four_processes_changes_nothing_for_them(store_url: str) -> None:
    processes = forkserver()
    results = processes.Queue()
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"s{i}" for i in range(1000)])
        workers = [processes.Process(target=settle, args=(store_url, results)) for _ in range(4)]
        for worker in workers:
            worker.start()
        killed = processes.Process(target=die, args=(store_url,))
        n_draws = 0
        while any(worker.is_alive() for worker in workers) and results.qsize() < len(workers):
            n_draws += store.prune(keep_draws=20).draws
            if n_draws > 50 and killed.pid is None:
                killed.start()
        seen = [sample for _ in workers for sample in results.get()]
        for worker in [*workers, killed]:
            worker.join()
        assert killed.exitcode == -signal.SIGKILL
        n_draws += store.prune(keep_draws=0).draws
        assert len(seen) == len(set(seen)) == 4 * 18 * SIZE
        # All settled draws, and those of released batches that the race has passed.
        n_left, n_killed = 4 * BATCHES * SIZE - n_draws, 10
        assert 0 <= n_left <= 4 * 2 * SIZE + n_killed
        assert store.stats().measured == len(seen)
        assert store.stats().claimed == 0
        assert store.check() == []
