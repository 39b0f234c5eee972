"""Measures the samples of a loop's batch in slots, and stores each reward as it comes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats
from sqlbuffer._validation import require_choice
from sqlbuffer.errors import CannotMeasure
from sqlbuffer.measuring.measure import ON_ERROR
from sqlbuffer.measuring.outcome import Outcome
from sqlbuffer.measuring.queue import Queue
from sqlbuffer.measuring.slots import Slots
from sqlbuffer.training.batch_rewards import BatchRewards


class Measurer:
    """Measures one batch after the other in the same slots.

    Child processes start with the first samples, and end with `close`; a later batch starts others.

    Args:
        function: The reward function, see `Slots`.
        weight: Scales the rewards.
        on_error: See `RewardCallback`.
        n_jobs: Number of slots.
        each: With False a chunk for each slot is measured in one call.
        options: Other arguments of `Slots`.

    Raises:
        InvalidArgument: If an argument is out of range, or the function cannot be sent to a child
            process.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        weight: float,
        on_error: str,
        n_jobs: int,
        each: bool,
        **options: Any,
    ) -> None:
        self._weight, self._n_jobs, self._each = weight, n_jobs, each
        self._on_error = require_choice(
            on_error, 'on_error must be "fail", "retry" or "raise"', ON_ERROR
        )
        self._function, self._options = function, options
        self._slots: Slots | None = None
        self._open().close()  # checks the arguments

    def measure(
        self,
        samples: Sequence[Any],
        sources: Sequence[str],
        batch: BatchRewards | None,
        before_call: Callable[[str], None] | None = None,
    ) -> Floats:
        """Measure n samples; return (n,) rewards, NaN for failed measurements.

        Args:
            samples: n samples.
            sources: n names of generators.
            batch: Stores the rewards; None stores nothing.
            before_call: Called with a label of each call, which is the same in a resumed run.

        Raises:
            CannotMeasure: If a measurement fails and `on_error` is "raise", if the function does
                not load in a child process, or if the executor is broken.
        """
        if self._slots is None:
            self._slots = self._open()
        slots, rewards = self._slots, np.full(len(samples), math.nan)
        tried = batch.tried(samples) if batch is not None and slots.tries_alone else ()
        waiting, running = Queue(len(samples), tried), dict[int, int]()
        n_again = Counter[int]()
        n_in_chunk = math.ceil(len(samples) / self._n_jobs)
        if batch is not None:
            batch.expect(samples, sources)
        while waiting or running:
            while waiting and (free := slots.free(alone=waiting.is_alone)):
                is_alone = waiting.is_alone
                places = waiting.take(free if self._each else n_in_chunk)
                chosen = [samples[place] for place in places]
                if batch is not None and before_call is not None:
                    before_call(f"{batch.label(chosen[0])} {n_again[places[0]]}")
                begin = None if batch is None else functools.partial(batch.start, chosen)
                running |= zip(
                    slots.submit(chosen, alone=is_alone, begin=begin), places, strict=True
                )
            for outcome in slots.wait():
                place = running.pop(outcome.index)
                if self._has_ended(outcome, samples[place], sources[place], batch):
                    rewards[place] = self._reward(outcome)
                else:
                    waiting.again(place, died=outcome.died)
                    n_again[place] += 1
        return rewards

    def close(self) -> None:
        """Kill the calls that run, and end all child processes."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.close()

    def _open(self) -> Slots:
        return Slots(self._function, n_jobs=self._n_jobs, each=self._each, **self._options)

    def _has_ended(
        self, outcome: Outcome, sample: Any, source: str, batch: BatchRewards | None
    ) -> bool:
        """Store an outcome; return False if the sample is to be measured again."""
        if outcome.has_failed and self._on_error == "raise":
            raise CannotMeasure(f"sample {shown(sample)} could not be measured: {outcome.error}.")
        if batch is None:
            return True
        if outcome.died or (outcome.has_failed and self._on_error == "retry"):
            return batch.ended(sample, source, outcome)
        batch.report(sample, source, dataclasses.replace(outcome, reward=self._reward(outcome)))
        return True

    def _reward(self, outcome: Outcome) -> float:
        return math.nan if outcome.reward is None else self._weight * outcome.reward
