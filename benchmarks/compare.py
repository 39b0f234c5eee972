"""Two checkouts side by side: does the new one draw, and go through an iteration, as fast as the old one?

    python -m benchmarks.compare /path/to/old/checkout --pairs 40

Each checkout has a process and a database of its own. The two take turns, in a random order within each pair, so that
the noise of the machine hits both. What is reported is the median of the paired ratios new / old, with the 95 %
interval of its bootstrap. The old checkout is one of git's: `git worktree add /path/to/old/checkout REVISION`.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
from typing import IO, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

ROOT = pathlib.Path(__file__).parent.parent
BATCH = 512

RUNNER = """
import json, sys, time
import numpy as np
from sqlbuffer import open_store

url, n, clock = sys.argv[1], int(sys.argv[2]), {"cpu": time.process_time, "wall": time.perf_counter}[sys.argv[3]]
rng = np.random.default_rng(0)
store = open_store(url, seed=1)
number = 0

def add(n):
    global number
    store.add([f"molecule number {i * 7919 % 1000003} of {i}" for i in range(number, number + n)], source="g")
    number += n
    store.score(lambda samples: rng.normal(size=len(samples)))

def draw():
    start = clock()
    batch = store.sample(512)
    seconds = clock() - start
    batch.settle(rng.normal(size=len(batch)))
    add(512)
    return seconds

def iteration():
    start = clock()
    add(512)
    with store.sample(512, pct_argmax=0.1) as batch:
        batch.settle(rng.normal(size=len(batch)), metrics={"loss": 1.0}, checkpoint={"loop": bytes(1000)})
    return clock() - start

def settle():
    batch = store.sample(512)
    start = clock()
    batch.settle(rng.normal(size=len(batch)))
    seconds = clock() - start
    add(512)
    return seconds

calls = {"draw": draw, "settle": settle, "iteration": iteration}
add(n)
for call in calls.values():
    call()
print("ready", flush=True)
for line in sys.stdin:
    name, times = json.loads(line)
    print(json.dumps(sum(calls[name]() for _ in range(times))), flush=True)
"""


class Checkout:
    """A process that runs one checkout of the library."""

    def __init__(self, folder: pathlib.Path, url: str, n: int, clock: str) -> None:
        command = [sys.executable, "-c", RUNNER, url, str(n), clock]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self._process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
        self._in: IO[str] = self._process.stdin  # type: ignore[assignment]
        self._out: IO[str] = self._process.stdout  # type: ignore[assignment]

    def wait(self) -> None:
        """Wait until its buffer is there."""
        if self._out.readline() != "ready\n":
            raise SystemExit("a checkout could not build its buffer: see its error above.")

    def seconds(self, name: str, times: int) -> float:
        """Return the seconds of so many calls."""
        self._in.write(json.dumps([name, times]) + "\n")
        self._in.flush()
        return float(self._out.readline())

    def stop(self) -> None:
        """End the process."""
        self._in.close()
        self._process.wait(60)


def interval(ratios: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the median of paired ratios and the 95 % interval of its bootstrap."""
    resampled = np.median(np.random.default_rng(0).choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def main(
    old: Annotated[pathlib.Path, typer.Argument(help="The old checkout.")],
    new: Annotated[pathlib.Path, typer.Option(help="The new checkout.")] = ROOT,
    pairs: Annotated[int, typer.Option(help="Measurements of each.", min=2)] = 40,
    n: Annotated[int, typer.Option(help="Samples in the buffer.", min=2_000)] = 100_000,
    times: Annotated[int, typer.Option(help="Calls in one measurement.", min=1)] = 10,
    cpu: Annotated[bool, typer.Option("--cpu", help="Processor time, for a busy machine.")] = False,
    url: Annotated[list[str] | None, typer.Option(help="Two empty databases, old and new; by default files.")] = None,
) -> None:
    """Compare two checkouts, pair by pair."""
    with tempfile.TemporaryDirectory() as place:
        urls = url or [f"sqlite:///{place}/{name}.db" for name in ("old", "new")]
        clock = "cpu" if cpu else "wall"
        both = [Checkout(folder, one, n, clock) for folder, one in zip((old, new), urls, strict=True)]
        for checkout in both:
            checkout.wait()
        shuffle = random.Random(0).sample
        for name in ("draw", "settle", "iteration"):
            seconds = np.zeros((pairs, 2))
            for i in range(pairs):
                for j in shuffle((0, 1), 2):
                    seconds[i, j] = both[j].seconds(name, times)
            medians = np.median(seconds, axis=0) / times * 1e3
            ratio, low, high = interval(seconds[:, 1] / seconds[:, 0])
            typer.echo(
                f"{name:10} old {medians[0]:.2f} ms, new {medians[1]:.2f} ms, {clock}; "
                f"ratio {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f} ({pairs} pairs of {times})"
            )
        for checkout in both:
            checkout.stop()


if __name__ == "__main__":
    typer.run(main)
