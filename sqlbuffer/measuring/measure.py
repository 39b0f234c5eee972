"""Measure the waiting samples of a buffer: claim, run the reward function, store as it comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer._validation import require_choice, require_count, require_flag
from sqlbuffer.core import attempts, budget, counts, draw, pool
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.claim import Terms
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries
from sqlbuffer.errors import CannotMeasure, ClaimLost, InvalidArgument
from sqlbuffer.measuring.outcome import Outcome
from sqlbuffer.measuring.progress import Progress
from sqlbuffer.measuring.queue import Queue
from sqlbuffer.measuring.slots import Slots
from sqlbuffer.measuring.termination import terminated_in_order
from sqlbuffer.records import MeasureResult

_LOOK_S = 1.0
"""Seconds from one look to the next: for samples to claim, and for a request to stop."""

ON_ERROR = ("fail", "retry", "raise")


class Measuring:
    """Measures samples of a buffer until none is left, or until it is told to stop.

    Args:
        buffer: The buffer.
        slots: Runs the reward function.
        batch: Samples of one claim.
        on_error: See `SampleStore.measure`.
        max_calls: Most measurements to start, of a sample tried again, too; None for any number.
        until_empty: End when nothing waits; False: wait for new samples.
        drain_s: Seconds that running measurements get after a request to stop.
        silent: Show no progress.
    """

    def __init__(
        self,
        buffer: BufferHandle,
        slots: Slots,
        *,
        batch: int = 8,
        on_error: str = "fail",
        max_calls: int | None = None,
        until_empty: bool = True,
        drain_s: float = 0.0,
        silent: bool = True,
    ) -> None:
        self._buffer, self._slots = buffer, slots
        self._size = require_count(batch, "batch must be a number of samples, 1 or more", least=1)
        self._on_error = require_choice(
            on_error, 'on_error must be "fail", "retry" or "raise"', ON_ERROR
        )
        self._calls_left: float = (
            math.inf
            if max_calls is None
            else require_count(max_calls, "max_calls must be a number of calls, or None")
        )
        self._until_empty = require_flag(until_empty, "until_empty")
        if not buffer.consumes and max_calls is None and until_empty:
            raise InvalidArgument(
                f"buffer {buffer.name!r} replays its samples, so that it never becomes empty: give "
                "max_calls, or until_empty=False."
            )
        self._drain_s = drain_s
        self._objective = buffer.peek(objective_of)
        self._progress = Progress(
            buffer, silent=require_flag(silent, "silent"), most=self._calls_left
        )
        self._batches: list[_Claimed] = []
        self._running: dict[int, tuple[_Claimed, int]] = {}
        self._is_stopped = False
        self.is_stuck = False
        """Whether samples wait at the end that cannot be drawn: without a score, or of weight 0."""
        self._measured = self._failed = self._released = 0

    def stop(self) -> None:
        """Claim and start no more samples; running measurements get `drain_s` seconds."""
        self._is_stopped = True

    def run(self) -> MeasureResult:
        """Measure, and return what was done.

        Raises:
            CannotMeasure: If a measurement fails and `on_error` is "raise", if the reward function
                does not load in a child process, or if the executor is broken.
        """
        began = time.monotonic()
        with self._progress:
            try:
                while not self._is_stopped and self._has_more():
                    self._store_all(self._slots.wait(_LOOK_S))
                self._store_all(self._slots.drain(self._drain_s if self._is_stopped else math.inf))
            finally:
                self._slots.close()
                self._release()
        return MeasureResult(self._measured, self._failed, self._released, time.monotonic() - began)

    # -- samples ----------------------------------------------------------------------------------

    def _has_more(self) -> bool:
        """Hand samples to free slots; return False if none runs and none will come."""
        while (free := self._slots.free()) and self._calls_left > 0 and not self._is_stopped:
            claimed = self._next_claim()
            if claimed is None:
                break
            waiting = claimed.waiting
            is_alone = waiting.is_alone
            if not self._slots.free(alone=is_alone):
                break
            n = min(free if self._slots.each else len(waiting), self._calls_left)
            self._start(claimed, waiting.take(n), is_alone=is_alone)
        if self._running:
            return True
        if self._calls_left <= 0 or self._is_stopped:
            return False
        if not self._buffer.peek(_may_come, until_empty=self._until_empty):
            if self._buffer.peek(budget.left) != 0:
                self.is_stuck = counts.tell_why_undrawn(self._buffer)
            return False
        self._pause()
        return True

    def _next_claim(self) -> _Claimed | None:
        """Return a claim with samples that are not started; None if nothing can be drawn."""
        for claimed in self._batches:
            if claimed.waiting:
                return claimed
        n = int(min(self._size, self._calls_left))
        batch = draw.claim(self._buffer, n, terms=Terms(counts_attempts=True))
        if not len(batch):
            return None
        claimed = _Claimed(batch, self._tried(batch) if self._slots.tries_alone else ())
        self._batches.append(claimed)
        if batch.objective != self._objective:
            raise CannotMeasure(
                f"the samples of buffer {self._buffer.name!r} are now measured for "
                f"{batch.objective!r}, and this process measures {self._objective!r}: start it "
                "again with the new reward function."
            )
        return claimed

    def _tried(self, batch: Batch) -> set[int]:
        """Return the positions of the samples at which an attempt was counted."""
        ids = batch.ids.tolist()
        tried = self._buffer.peek(attempts.tried, ids=ids)
        return {place for place, number in enumerate(ids) if number in tried}

    def _start(self, claimed: _Claimed, places: list[int], *, is_alone: bool) -> None:
        batch = claimed.batch
        self._calls_left -= len(places)

        def begin(some: list[int]) -> None:
            batch._start([int(batch.ids[places[i]]) for i in some])

        chosen = [batch.samples[place] for place in places]
        indices = self._slots.submit(chosen, alone=is_alone, begin=begin)
        self._running |= {
            index: (claimed, place) for index, place in zip(indices, places, strict=True)
        }

    def _pause(self) -> None:
        end = time.monotonic() + _LOOK_S
        while not self._is_stopped and time.monotonic() < end:
            time.sleep(min(_LOOK_S / 10, max(0.0, end - time.monotonic())))

    # -- outcomes ---------------------------------------------------------------------------------

    def _store_all(self, outcomes: Iterable[Outcome]) -> None:
        """Store outcomes; an error with one loses none of the others, and is raised at the end."""
        errors: list[Exception] = []
        for outcome in outcomes:
            try:
                self._store(outcome)
            except Exception as exc:
                errors.append(exc)
        if errors:
            raise errors[0]

    def _store(self, outcome: Outcome) -> None:
        claimed, place = self._running.pop(outcome.index)
        has_failed = outcome.has_failed
        if has_failed and self._on_error == "raise":
            raise CannotMeasure(
                f"sample {claimed.batch.ids[place]} of buffer {self._buffer.name!r} "
                f"({shown(claimed.batch.samples[place])}) could not be measured: {outcome.error}."
            )
        try:
            if outcome.died or (has_failed and self._on_error == "retry"):
                has_failed = self._again(claimed, place, outcome)
                is_done = has_failed
            else:
                claimed.report(place, outcome)
                is_done = True
        except ClaimLost:
            claimed.lose()
            is_done = not outcome.died
        if not any(claimed is each for each, _ in self._running.values()) and claimed.is_done:
            self._batches.remove(claimed)
        if is_done:
            self._failed += has_failed
            self._measured += not has_failed
            self._progress.advance(has_failed=has_failed)

    def _again(self, claimed: _Claimed, place: int, outcome: Outcome) -> bool:
        """Count an attempt; return True if the sample has failed, else measure it again."""
        if claimed.ended(place, ending_of(outcome)):
            return True
        claimed.waiting.again(place, died=outcome.died)
        return False

    def _release(self) -> None:
        """Release the samples that have no outcome."""
        for claimed in self._batches:
            self._released += claimed.release()
        self._batches.clear()
        self._running.clear()


class _Claimed:
    """A batch that is being measured.

    Attributes:
        batch: The batch.
        waiting: The samples that are not started.
        n_left: Samples without a reward or failure.
    """

    def __init__(self, batch: Batch, tried: Collection[int]) -> None:
        self.batch = batch
        self.waiting = Queue(len(batch), tried)
        self.n_left = len(batch)

    @property
    def is_done(self) -> bool:
        """True if every sample has a reward or has failed, or if the claim was lost."""
        return not self.n_left

    def report(self, place: int, outcome: Outcome) -> None:
        """Store the reward or the failure of a sample."""
        batch = self.batch
        self.n_left -= 1
        batch.report(
            [int(batch.ids[place])],
            [outcome.reward],
            errors=[outcome.error],
            seconds=[outcome.seconds],
            details=[outcome.details],
        )

    def ended(self, place: int, ending: attempts.Ending) -> bool:
        """Count an attempt at a sample; return True if it has failed."""
        has_failed = self.batch._ended(int(self.batch.ids[place]), ending)
        self.n_left -= has_failed
        return has_failed

    def lose(self) -> None:
        """Start no more of its samples: another process has released them."""
        self.waiting.clear()
        self.n_left = 0

    def release(self) -> int:
        """Put the samples without an outcome back; return how many."""
        try:
            self.batch.release()
        except ClaimLost:
            return 0
        return self.n_left


def ending_of(outcome: Outcome) -> attempts.Ending:
    """Return how an attempt has ended that gave no reward."""
    what, how = outcome.ended_by
    return attempts.Ending(
        what, how, outcome.error or "the measurement failed", outcome.seconds, outcome.details
    )


def _may_come(tx: Transaction, *, until_empty: bool) -> bool:
    """Tell whether samples may come to be measured: waiting, or claimed by a worker that may die.

    Of a budget that is used up nothing is left, but claims may be released, and samples that have
    a reward may wait for another.
    """
    owners = tx.execute(queries.batches.claim_owners()).scalars().all()
    if any(owner != worker_id() for owner in owners):  # this process cannot wait for itself
        return True
    if budget.draws_nothing(tx, n=1):
        return False
    totals = tx.execute(queries.buffers.totals()).one()
    drawable = pool.size(tx.buffer, totals) - totals.unscored - totals.unscorable
    return not until_empty or bool(drawable > 0)


def objective_of(tx: Transaction) -> str:
    """Return the name of the objective of a buffer."""
    return str(tx.own_row(queries.buffers.objective()).objective)


def measure(
    buffer: BufferHandle,
    fn: Callable[[Any], Any],
    *,
    n_jobs: int = 1,
    each: bool = True,
    timeout_s: float | None = None,
    executor: Any = None,
    **options: Any,
) -> MeasureResult:
    """Measure waiting samples; see `SampleStore.measure`."""
    with (
        terminated_in_order(),
        Slots(fn, n_jobs=n_jobs, each=each, timeout_s=timeout_s, executor=executor) as slots,
    ):
        return Measuring(buffer, slots, **options).run()
