"""Several processes that draw from one database at the same time."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier

from benchmarks.contenders import BY_NAME, DatabaseContender
from benchmarks.stage import BATCH

WARM_UPS = 2
MOST_DRAWS = 100
_PATIENCE_S = 120.0

_barrier: Barrier


def ration(n: int, processes: int) -> tuple[int, int]:
    """Return the size of the batches and the draws of each process that n samples allow."""
    k = max(1, min(BATCH, n // (20 * processes)))
    return k, min(MOST_DRAWS, n // (k * processes) - WARM_UPS - 1)


def run(name: str, url: str, *, processes: int, k: int, draws: int) -> float:
    """Let processes draw; return the seconds from when they are released until the last has drawn its share."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes, timeout=_PATIENCE_S)
    with ProcessPoolExecutor(processes, context, initializer=_enlist, initargs=(barrier,)) as pool:
        spans = [future.result() for future in [pool.submit(_draw, name, url, k, draws) for _ in range(processes)]]
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _enlist(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _draw(name: str, url: str, k: int, draws: int) -> tuple[float, float]:
    contender = BY_NAME[name]()
    assert isinstance(contender, DatabaseContender)
    contender.open(url)
    for _ in range(WARM_UPS):
        contender.draw(k)
    _barrier.wait()
    start = time.perf_counter()
    for _ in range(draws):
        drawn = contender.draw(k)
        if len(drawn) != k:
            raise RuntimeError(f"{name} drew {len(drawn)} samples instead of {k}: the buffer has run dry.")
    end = time.perf_counter()
    contender.close()
    return start, end
