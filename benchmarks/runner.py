"""One checkout of the library in a process of its own, started by `benchmarks.compare`.

The checkout may be of any release: nothing but the public `sqlbuffer.open_store` is used.
"""

import itertools
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

import sqlbuffer

print(json.dumps(sqlbuffer.__file__), flush=True)
url, n, clock_name, number = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
clock = {"cpu": time.process_time, "wall": time.perf_counter}[clock_name]
BATCH = 512
rng = np.random.default_rng(0)
numbers = itertools.count(number * 10**9)
store = sqlbuffer.open_store(url, seed=1)


def new(count):
    """Return samples that were never seen."""
    fresh = itertools.islice(numbers, count)
    return [f"molecule number {i * 7919 % 1000003} of {i}" for i in fresh]


def score(one=store):
    """Score what has no score."""
    one.score(lambda samples: rng.normal(size=len(samples)))


def refill():
    """Put as many samples into the buffer as a batch takes out."""
    store.add(new(BATCH), source="g")
    score()


def timed(call):
    """Return what a call returns, and its seconds."""
    start = clock()
    found = call()
    return found, clock() - start


def draw():
    """Draw a batch."""
    batch, seconds = timed(lambda: store.sample(BATCH))
    batch.settle(rng.normal(size=len(batch)))
    refill()
    return seconds


def settle():
    """Settle a batch."""
    batch = store.sample(BATCH)
    _, seconds = timed(lambda: batch.settle(rng.normal(size=len(batch))))
    refill()
    return seconds


def iteration():
    """Do all that a loop does in an iteration."""

    def whole():
        refill()
        with store.sample(BATCH, pct_argmax=0.1) as batch:
            rewards = rng.normal(size=len(batch))
            batch.settle(rewards, metrics={"loss": 1.0}, checkpoint={"loop": bytes(1000)})

    return timed(whole)[1]


def add():
    """Add a batch of samples to the buffer of n."""
    samples = new(BATCH)
    _, seconds = timed(lambda: store.add(samples, source="g"))
    score()
    with store.sample(BATCH) as batch:
        batch.settle(rng.normal(size=len(batch)))
    return seconds


def fill():
    """Add n samples to an empty buffer, in an SQLite file of its own."""
    samples, place = new(n), pathlib.Path(url.removeprefix("sqlite:///")).parent
    with tempfile.TemporaryDirectory(dir=place) as folder:
        empty = sqlbuffer.open_store(f"sqlite:///{folder}/fill.db", seed=1)
        _, seconds = timed(lambda: empty.add(samples, source="g"))
        empty.close()
    return seconds


calls = {"draw": draw, "settle": settle, "iteration": iteration, "add": add, "fill": fill}
store.add(new(n), source="g")
score()
for name in ("draw", "settle", "iteration", "add"):
    calls[name]()
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    name, times = json.loads(line)
    print(json.dumps(sum(calls[name]() for _ in range(times))), flush=True)
