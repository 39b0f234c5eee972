"""What a contender takes of memory, in a process of its own: `python -m benchmarks.probe NAME SIZE BATCH [URL]`."""

from __future__ import annotations

import json
import sys

import psutil

from benchmarks.contenders import BY_NAME, DatabaseContender
from benchmarks.data import Items
from benchmarks.workshop import Workshop

_DRAWS = 10


def megabytes(name: str, n: int, k: int, url: str) -> float:
    """Open the buffer, or fill one in memory, and draw; return the resident set, or its growth."""
    contender = BY_NAME[name]()
    process = psutil.Process()
    before = 0
    if isinstance(contender, DatabaseContender):
        contender.open(url)
    else:
        contender.start(Workshop({}), n)
        contender.add(Items.make(0, min(n, k)))
        before = process.memory_info().rss
        contender.furnish(Workshop({}), n)
    for _ in range(_DRAWS):
        contender.draw(k)
    taken: int = process.memory_info().rss - before
    contender.close()
    return taken / 2**20


if __name__ == "__main__":
    name, n, k, url = sys.argv[1:]
    print(json.dumps({"megabytes": megabytes(name, int(n), int(k), url)}))
