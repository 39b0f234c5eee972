"""Contenders in processes of their own: several that draw at once, and one whose memory is read."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any

import psutil

from benchmarks.contenders import BY_NAME, DatabaseContender
from benchmarks.data import texts
from benchmarks.stage import BATCH, Workshop

WARM_UPS = 2
MOST_DRAWS = 100
_PATIENCE_S = 120.0

_barrier: Barrier


def ration(n: int, processes: int) -> tuple[int, int]:
    """Return the size of the batches and the draws of each process that n samples allow."""
    k = max(1, min(BATCH, n // (20 * processes)))
    return k, min(MOST_DRAWS, n // (k * processes) - WARM_UPS - 1)


def crowd(name: str, url: str, *, processes: int, k: int, draws: int) -> float:
    """Start processes that draw; return the seconds from the start of the first to the last end."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes, timeout=_PATIENCE_S)
    with ProcessPoolExecutor(processes, context, initializer=_enlist, initargs=(barrier,)) as pool:
        futures = [pool.submit(_draw, name, url, k, draws) for _ in range(processes)]
        starts, ends = zip(*(future.result() for future in futures), strict=True)
    return float(max(ends) - min(starts))


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
        if (found := len(contender.draw(k))) != k:
            raise RuntimeError(f"{name} drew {found} samples instead of {k}: the buffer ran dry.")
    end = time.perf_counter()
    contender.close()
    return start, end


def python(*words: str) -> Any:
    """Run Python in a fresh process, and return the JSON that it prints last."""
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def megabytes(name: str, n: int, k: int, url: str) -> float:
    """Return the memory of a fresh process that opens a buffer, or fills one, and draws."""
    words = ("-m", "benchmarks.processes", name, str(n), str(k), url)
    return float(python(*words))


def _resident(name: str, n: int, k: int, url: str) -> float:
    """Return the resident set of this process, or its growth by a buffer in memory."""
    contender, process, before = BY_NAME[name](), psutil.Process(), 0
    if isinstance(contender, DatabaseContender):
        contender.open(url)
    else:
        contender.start(Workshop({}), n)
        contender.add(texts(0, min(n, k)))
        before = process.memory_info().rss
        contender.furnish(Workshop({}), n)
    for _ in range(10):
        contender.draw(k)
    taken: int = process.memory_info().rss - before
    contender.close()
    return taken / 2**20


if __name__ == "__main__":
    name, n, k, url = sys.argv[1:]
    print(_resident(name, int(n), int(k), url))
