"""Slots: run a reward function over samples, so many at a time, and get an outcome for each."""

from __future__ import annotations

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from sqlbuffer._validation import as_list, is_positive, require_flag, require_int, require_real
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.measuring.calls import Answer
from sqlbuffer.measuring.functions import require_reward_function
from sqlbuffer.measuring.futures import Futures
from sqlbuffer.measuring.outcome import Outcome
from sqlbuffer.measuring.places import Ended, Part, Place, ThisProcess
from sqlbuffer.measuring.processes import ChildProcesses


class Slots:
    """Runs a reward function over samples in `n_jobs` slots, each with a process of its own.

    A caller asks `free()`, submits as many samples, and takes their outcomes:

        with Slots(dock, n_jobs=4, timeout_s=600) as slots:
            while samples := next_samples(slots.free()) or slots.unfinished:
                slots.submit(samples)
                for outcome in slots.wait(1.0):
                    store(outcome)

    Every submitted sample has one outcome, or is in `unfinished`. An exception, a timeout, and a
    value that is no finite number are failures. A child process that dies is replaced, and the
    others go on. Programs that a child has started are killed with it. Ctrl-C and SIGTERM do not
    end a child, so its parent decides; when the parent ends, even by SIGKILL, all children end.

    With one slot and no `timeout_s` the function runs in this process, when `wait` is called.
    Otherwise a function of a module travels to the child processes by its name, and a lambda, or a
    function of a notebook or of the script that runs, by its code: the script needs no
    `if __name__ == "__main__"`.

    Args:
        fn: `fn(sample)` returns a number, or `(number, details)` with a mapping of whatever else is
            to be kept. Numbers are those of Python and numpy, and arrays and tensors without
            dimensions. NaN means measured and failed.
        n_jobs: The number of slots; of an executor, the number of calls at a time.
        each: With False, `fn(list of n samples)` returns n of these values, and the samples of one
            `submit` are one call. When that call fails or does not end, each of its samples is
            measured in a call of its own, so that one bad sample fails alone.
        timeout_s: Seconds after which a call is a failure, and its process is killed. A call of an
            executor is given up instead, and goes on there. The time to load the function, and in
            the queue of an executor, does not count.
        executor: A `concurrent.futures.Executor` that makes the calls, such as those of dask and
            mpi4py; it stays open.
        is_apart: Run the function in a child process in any case.

    Raises:
        InvalidArgument: If an argument is out of range, or the function cannot be sent to a child
            process.
    """

    def __init__(
        self,
        fn: Callable[[Any], Any],
        *,
        n_jobs: int = 1,
        each: bool = True,
        timeout_s: float | None = None,
        executor: Any = None,
        is_apart: bool = False,
    ) -> None:
        fn = require_reward_function(fn)
        n_jobs = require_int(n_jobs, "n_jobs must be from 1 to 10,000", least=1, most=10_000)
        self.each = require_flag(each, "each")
        if timeout_s is not None:
            rule = "timeout_s must be a positive number of seconds, or None"
            timeout_s = require_real(timeout_s, rule, is_positive)
        self._place: Place
        if executor is not None:
            self._place = Futures(fn, executor, n_jobs=n_jobs, each=self.each, timeout_s=timeout_s)
        elif n_jobs == 1 and timeout_s is None and not is_apart:
            self._place = ThisProcess(fn, each=self.each)
        else:
            self._place = ChildProcesses(fn, n_jobs=n_jobs, each=self.each, timeout_s=timeout_s)
        self._n_submitted = 0
        self._unfinished: set[int] = set()
        self._singles: deque[Part] = deque()
        """Samples of calls that failed as a whole, to be measured one by one."""
        self._is_stopped = self._is_closed = self._is_alone = False

    def __enter__(self) -> Slots:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def unfinished(self) -> list[int]:
        """Positions of the submitted samples that have no outcome, in their order."""
        return sorted(self._unfinished)

    @property
    def tries_alone(self) -> bool:
        """True if a sample that kills its process can take others with it, unless it goes alone."""
        return not self.each or self._place.falls_together

    def free(self, *, alone: bool = False) -> int:
        """Return how many calls can be submitted now; 0 after `stop`.

        Args:
            alone: Ask for a sample that may kill its process. An executor, all of whose calls end
                then, takes it when no other call runs.

        Raises:
            CannotMeasure: If no call can be made any more, and every outcome was given.
        """
        n_running = self._place.running()
        if self._is_stopped:
            return 0
        if self._place.broken is not None and not n_running:
            raise self._place.broken
        if (alone or self._is_alone) and self._place.falls_together and n_running:
            return 0
        return max(0, self._place.free() - len(self._singles))

    def submit(
        self,
        samples: Sequence[Any],
        *,
        alone: bool = False,
        begin: Callable[[list[int]], None] | None = None,
    ) -> range:
        """Start to measure samples: one in each slot; with `each=False`, all in one slot.

        Args:
            samples: At most `free()` samples; with `each=False`, any number.
            alone: See `free`: no other call starts before this one has ended.
            begin: Called with positions in `samples`, right before the function gets these samples.
                A child process gets its first samples when it has loaded the function.

        Returns:
            The positions of the samples, with which their outcomes come.

        Raises:
            InvalidArgument: If not enough slots are free.
            CannotMeasure: See `free`.
        """
        given = as_list(samples)
        n_calls = len(given) if self.each else int(bool(given))
        if n_calls > self.free(alone=alone):
            raise InvalidArgument(
                f"{n_calls} calls were submitted to {self.free()} free slots: wait first."
            )
        indices = range(self._n_submitted, self._n_submitted + len(given))
        self._n_submitted += len(given)
        self._unfinished.update(indices)
        self._is_alone = alone
        whole = Part(indices, given, functools.partial(_begin, begin, indices.start))
        if given and not self._place.begins_late:
            whole.begin(indices)
        for part in _singles(whole) if self.each else [whole]:
            if part.samples:
                self._place.start(part)
        return indices

    def wait(self, timeout_s: float = math.inf) -> list[Outcome]:
        """Wait for outcomes.

        Args:
            timeout_s: Seconds to wait at most. A call in this process takes as long as it takes,
                and is not made with 0.

        Returns:
            The outcomes that are new, in any order; none if the time is over, or nothing runs.

        Raises:
            CannotMeasure: If the reward function does not load in a child process, or the executor
                is broken; calls that had ended are returned first.
        """
        end = time.monotonic() + timeout_s
        while self._unfinished and not self._is_closed:
            ended = self._place.wait(max(0.0, end - time.monotonic()))
            outcomes = [outcome for each in ended for outcome in self._outcomes(each)]
            self._unfinished.difference_update(outcome.index for outcome in outcomes)
            while self._singles and self._place.free():
                self._place.start(self._singles.popleft())
            if outcomes:
                return outcomes
            if self._place.broken is not None:
                raise self._place.broken
            if time.monotonic() >= end or not self._place.running():
                break
        return []

    def stop(self) -> None:
        """Submit no more; the calls that run go on."""
        self._is_stopped = True

    def drain(self, timeout_s: float) -> Iterator[Outcome]:
        """Stop, give the outcomes that come in time, and kill the calls that are left.

        Iterate to the end: `unfinished` is final then.

        Args:
            timeout_s: Seconds to wait at most; 0 gives the outcomes that are there.
        """
        self.stop()
        end = time.monotonic() + timeout_s
        try:
            while self._place.running():
                left_s = max(0.0, end - time.monotonic())
                yield from self.wait(left_s)
                if not left_s:
                    break
        finally:
            self.close()

    def close(self) -> None:
        """Kill the calls that run, and end all child processes."""
        self.stop()
        self._is_closed = True
        self._singles.clear()
        self._place.close()

    def _outcomes(self, ended: Ended) -> Iterator[Outcome]:
        part, answer = ended
        if answer.values is not None:
            yield from _measured(part, answer)
        elif len(part.indices) > 1 and not (answer.died and self._place.broken):
            self._singles.extend(_singles(part))
        else:
            reward, seconds = None if answer.died else math.nan, answer.seconds / len(part.indices)
            for index in part.indices:
                yield Outcome(index, reward, answer.error, seconds, died=answer.died)


def _measured(part: Part, answer: Answer) -> Iterator[Outcome]:
    values = answer.values or []
    seconds = answer.seconds / len(values)
    for index, value in zip(part.indices, values, strict=True):
        reward = math.nan if value.reward is None else value.reward
        yield Outcome(index, reward, value.error, seconds, value.details)


def _singles(part: Part) -> Iterator[Part]:
    for index, sample in zip(part.indices, part.samples, strict=True):
        yield Part([index], [sample], part.begin)


def _begin(begin: Callable[[list[int]], None] | None, first: int, indices: Sequence[int]) -> None:
    """Tell a caller which of the samples of its `submit` begin."""
    if begin is not None:
        begin([index - first for index in indices])
