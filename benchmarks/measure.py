"""Times calls of several contenders in turns, so that the noise of the machine hits all alike.

Every round calls each once, in an order of its own: in a fixed order one of them would always come right after the one
that sweeps the processor's caches, and pay for it.
"""

from __future__ import annotations

import dataclasses
import gc
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

WARM_UPS = 3
SLOW_S = 0.5
"""A call that takes longer is warmed up once."""
BUDGET_S = 15.0
"""Seconds for the calls of one contender in one case; there are at least three all the same."""
LEAST_CALLS = 3

Clock: TypeAlias = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""What a call is timed by. Processor time is the one to read on a machine that others keep busy: there the wall clock
shows who was let run, not what was done. It leaves out what a server does, and waits for the disk.
"""


def _nothing() -> None: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """One contender's share in a case.

    Attributes:
        contender: Its name.
        call: What is timed.
        before: What is done before each call, outside of the timed part.
        after: What is done after each call, outside of the timed part.
    """

    contender: str
    call: Callable[[], object]
    before: Callable[[], object] = _nothing
    after: Callable[[], object] = _nothing


def timed(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return the seconds that a call takes by a clock.

    The garbage collector stays on, as in real life, but does not walk what was alive before: the millions of strings in
    the lists of the benchmark, and of the buffers in memory, cost 15 ms a walk, which whoever allocates would pay.
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
    tick: Callable[[], object] = _nothing,
) -> dict[str, list[float]]:
    """Time contenders call by call: A, B, C, then B, A, C, and so on.

    Args:
        tasks: One for each contender.
        repeats: Calls of each; those whose calls are long get fewer, evenly spread over the rounds.
        warm_ups: Rounds before the first that counts.
        clock: What calls are timed by.
        tick: Called after each call.

    Returns:
        The seconds of each call by the contender's name.
    """
    last = dict.fromkeys((task.contender for task in tasks), 0.0)
    shuffle = random.Random(0).sample
    for _ in range(warm_ups):
        for task in shuffle(tasks, len(tasks)):
            if last[task.contender] < SLOW_S:
                last[task.contender] = _run(task, clock)
                tick()
    calls = {name: _affordable(seconds, repeats) for name, seconds in last.items()}
    rounds = max(calls.values(), default=0)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for task in shuffle(tasks, len(tasks)):
            wanted = calls[task.contender]
            if (i + 1) * wanted // rounds > i * wanted // rounds:
                found[task.contender].append(_run(task, clock))
                tick()
    return found


def _affordable(seconds: float, repeats: int) -> int:
    return min(repeats, max(LEAST_CALLS, int(BUDGET_S / seconds))) if seconds else repeats


def _run(task: Task, clock: Clock) -> float:
    task.before()
    seconds = timed(task.call, clock)
    task.after()
    return seconds
