"""Times calls of several contenders in turns, so that the noise of the machine hits all alike.

Every round calls each once, in an order of its own: in a fixed order one of them would always come
right after the one that sweeps the processor's caches, and pay for it.
"""

from __future__ import annotations

import dataclasses
import gc
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

WARM_UPS = 3
SLOW_S = 0.5
"""A call that takes longer is warmed up once."""
BUDGET_S = 15.0
"""Seconds for the calls of one contender in one case; there are at least `LEAST_CALLS`."""
LEAST_CALLS = 3

Clock: TypeAlias = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Processor time is the one to read on a machine that others keep busy: there the wall clock shows
which process ran, not how much it did. It leaves out the work of a server, and waits for the disk.
"""


def nothing() -> None:
    """Do nothing."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One contender's share in a case: the call that is timed, and those around it that are not."""

    contender: str
    call: Callable[[], object]
    before: Callable[[], object] = nothing
    after: Callable[[], object] = nothing


def timed(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return the seconds that a call takes by a clock.

    The garbage collector stays on, as in real life, but does not walk the objects of before: the
    millions of strings in the lists of the benchmark, and of the buffers in memory, cost 15 ms a
    walk, which whichever contender allocates would pay.
    """
    gc.collect()
    gc.freeze()
    start = clock()
    call()
    return clock() - start


def alternate(
    tasks: Sequence[Task],
    *,
    repeats: int,
    warm_ups: int = WARM_UPS,
    clock: Clock = time.perf_counter,
    tick: Callable[[], object] = nothing,
) -> dict[str, list[float]]:
    """Time contenders call by call: A, B, C, then B, A, C, and so on.

    Args:
        tasks: One for each contender.
        repeats: Calls of each; long calls are fewer, evenly spread over the rounds.
        warm_ups: Rounds before the first that counts.
        clock: The clock that calls are timed by.
        tick: Called after each call.

    Returns:
        The seconds of each call by the contender's name.
    """
    last = dict.fromkeys((task.contender for task in tasks), 0.0)
    shuffle = random.Random(0).sample

    def run(task: Task) -> float:
        task.before()
        seconds = timed(task.call, clock)
        task.after()
        tick()
        return seconds

    for _ in range(warm_ups):
        for task in shuffle(tasks, len(tasks)):
            if last[task.contender] < SLOW_S:
                last[task.contender] = run(task)
    calls = {
        name: min(repeats, max(LEAST_CALLS, int(BUDGET_S / seconds))) if seconds else repeats
        for name, seconds in last.items()
    }
    rounds = max(calls.values(), default=0)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for task in shuffle(tasks, len(tasks)):
            wanted = calls[task.contender]
            if (i + 1) * wanted // rounds > i * wanted // rounds:
                found[task.contender].append(run(task))
    return found


def interval(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return the median of (n,) values and the 95 % interval of its bootstrap."""
    resampled = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(np.median(resampled, axis=1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])
