"""Eight processes at once on one buffer. By hand: `pytest -m soak -n 0 tests/test_soak.py`."""

import multiprocessing
from collections import Counter
from typing import Any

import pytest

from sqlbuffer.store import open_store

pytestmark = pytest.mark.soak

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
    children = [context.Process(target=work, args=(url, results, *more)) for url, *more in arguments]
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
        drawn = Counter(sample for samples in run_all(draw_all, [(store_url,)] * N_PROCESSES) for sample in samples)
        assert drawn == Counter(str(i) for i in range(N_DRAWN))
        assert (len(store), store.stats().measured, store.check()) == (0, N_DRAWN, [])


def test_each_distinct_sample_is_added_once(store_url: str) -> None:
    step = N_ADDED // 2
    n_new = run_all(add_overlapping, [(store_url, i * step) for i in range(N_PROCESSES)])
    n_distinct = step * (N_PROCESSES + 1)
    with open_store(store_url, weighting="uniform") as store:
        assert sum(n_new) == len(store) == n_distinct
        assert store.check() == []
