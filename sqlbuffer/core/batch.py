"""A batch of samples that this process has claimed: settle it with rewards, or release it."""

from __future__ import annotations

import functools
import logging
import operator
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_ids, require_flag
from sqlbuffer.core import pool
from sqlbuffer.core.claim import Claim, Drawn, detach, new_token
from sqlbuffer.core.claimed import ClaimedBatch
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.measured import Known, Origin
from sqlbuffer.core.prioritised import PrioritisedBatch
from sqlbuffer.core.record import Recorded
from sqlbuffer.core.release import leave_block, release, release_later
from sqlbuffer.core.report import Reported, report
from sqlbuffer.core.settle import Settlement, settle_as_next
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.records import SampleInfo
from sqlbuffer.samples.decoded import Decoded

log = logging.getLogger(__name__)

_KNOWN = operator.attrgetter(*Known._fields[1:])


class Batch(ClaimedBatch, PrioritisedBatch):
    """Samples claimed by this process until they are settled or released.

    As a context manager, a batch is released at the end of the block unless it was settled. A batch
    that is garbage collected while it is open is released with a warning. The claim belongs to the
    process that made it: a forked child can store rewards, but it can neither settle nor release
    the batch. The process that a pickled batch is sent to can settle, report or release it. A batch
    with a lease can be detached, and taken up in any process by `SampleStore.batch`.

    The `store` of all examples holds the molecules of `docs/reference/index.md`, "The examples".

    Attributes:
        id: Id of the batch, None if it is empty.
        iteration: Iteration for which it was drawn, from 0.
        samples: n samples: those of the argmax share first, then the others in the order of the
            race. Samples of one structure are decoded when they are read first.
        sources: n names of the generators that added the samples.
        ids: (n,) int64, ids of the samples.
        scores: (n,) float64, NaN for a sample without a score.
        weights: (n,) float64, NaN for a sample without a weight.
        clock: Clock of the race after the draw.
        info: Probability, argmax share and earlier reward of each sample.
        objective: Name of the reward function that the buffer measured when it was drawn.

    Examples:
        >>> with store.sample(3) as batch:
        ...     print(batch, batch.samples, batch.scores)
        ...     batch.settle([1.0, 0.5, 0.25])
        Batch(id=1, size=3, state='open') ['C#N', 'CC=O', 'CCN'] [3. 4. 3.]
    """

    def __init__(
        self,
        buffer: BufferHandle,
        drawn: Drawn,
        *,
        claim: Claim | None,
        iteration: int,
        clock: float,
        info: SampleInfo,
        objective: str,
        outlives: bool = False,
        weights: Floats | None = None,
        new_keys: Floats | None = None,
    ) -> None:
        self.id = None if claim is None else claim.batch
        self.iteration = iteration
        self.clock = clock
        self._decoded = Decoded(
            drawn.text, drawn.payload, drawn.codec, allow_pickle=buffer.allow_pickle
        )
        self.sources = list(drawn.source)
        self.ids: Ints = pool.as_ints(drawn.sample_id)
        self.scores: Floats = pool.as_floats(drawn.score)
        self.weights: Floats = pool.as_floats(drawn.weight) if weights is None else weights
        self.info = info
        self._buffer = buffer
        self._claim = claim
        self._new_keys = new_keys
        self._known = Known(self.ids, *_KNOWN(drawn))
        self.objective = objective
        self._is_open = True
        self._has_reports = outlives  # those of other processes
        self._reported: dict[int, float] = {}
        self._outlives = outlives  # a leased claim, which ends by itself
        self._is_detached = False
        self._repeats = False  # a loop draws a lost batch again
        self._pid: int | None = None if outlives else os.getpid()
        self._dropped: weakref.finalize[..., Any] | None = None
        if claim is not None and not outlives:
            self._dropped = weakref.finalize(
                self, release_later, self._pid, buffer.in_disposal, claim
            )
            self._dropped.atexit = False  # the last heartbeat releases all open batches

    def __getstate__(self) -> dict[str, Any]:
        self._has_reports = True  # the copy and this batch do not see each other's reports
        if self._dropped is not None:  # the copy may outlive this batch
            self._dropped.detach()
        return {**vars(self), "_dropped": None, "_pid": None}

    def __len__(self) -> int:
        return len(self.ids)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._is_open or self._is_of_another_process or self._outlives:
            return
        is_untouched = self._claim is not None and not self._has_reports
        name = self._buffer.name if is_untouched else None
        leave_block(self.release, kind, batch=self.id, untouched_in=name)

    def settle(
        self,
        rewards: Any = None,
        *,
        ids: Sequence[int] | None = None,
        errors: Any = None,
        seconds: Any = None,
        details: Any = None,
        record: tuple[Sequence[Any], Any, str | Sequence[str]] | None = None,
        priorities: Any = None,
        metrics: Mapping[str, float] | None = None,
        checkpoint: Mapping[str, bytes] | Callable[[int], Mapping[str, bytes]] | None = None,
        kept: Mapping[str, int | None] | None = None,
        is_iteration: bool = True,
    ) -> None:
        """Store the rewards, end the claim and advance the buffer's iteration, in one transaction.

        Samples that were reported before keep their reward, unless `rewards` has another one. A
        sample without a reward has left the pool unmeasured.

        Args:
            rewards: (m,) finite floats, one for each sample of `ids`. NaN or None: the measurement
                failed; a stored reward stays. Without rewards no sample is measured.
            ids: m of `batch.ids`; by default all of them, in their order.
            errors: m reasons of failed measurements; None for a measurement that has a reward.
            seconds: (m,) floats, how long each measurement took.
            details: m mappings that JSON can hold, or None: what else was measured.
            record: `(samples, rewards, sources)` to store as well, not drawn from the buffer.
            priorities: (n,) finite numbers of 0 or more, in mode "replay": new priorities of all
                samples, see `update_priorities`. They are stored with the checkpoint or not at all.
            metrics: Metrics of this iteration to store as well. The iteration gets the next number
                if another process has settled one of its number since the draw.
            checkpoint: States to resume from, by name, or a function of the iteration's number.
            kept: Number of states that stay stored, by name; None for all, without an entry only
                the newest.
            is_iteration: Advance the buffer's iteration.

        Raises:
            InvalidArgument: If an id is not in this batch, or is given twice, or if the priorities
                are refused. Nothing is stored.
            InvalidReward: If a reward is infinite, if there is not one for each sample, or if a
                finite reward came with an error. Nothing is stored.
            ClaimLost: If the batch is already settled or released, or if the database has returned
                to a state before its draw. The rewards are stored nevertheless: a sample that has
                one by now keeps it, and another sample stops waiting (mode "consume").

        Examples:
            >>> batch = store.sample(3)
            >>> batch.settle([1.0, None, 0.25], errors=[None, "no pose", None])
            >>> store.rewards_of(batch.samples)
            [1.0, nan, 0.25]
        """
        self._require_attached()
        settlement = Settlement(
            self._measured(rewards, ids, errors=errors, seconds=seconds, details=details),
            None if record is None else Recorded.of(self._buffer, record),
            metrics=metrics,
            kept=kept,
            iteration=self.iteration,
            n_iterations=int(require_flag(is_iteration, "is_iteration")),
            priorities=None if priorities is None else self._given_to_settle(priorities),
        )
        is_settled, self.iteration = settle_as_next(
            self._buffer,
            settlement,
            checkpoint,
            claim=self._claim,
            origin=self._origin(),
            has_reports=self._has_reports,
        )
        self._end()
        if not is_settled:
            raise self._lost("its rewards are stored, and nothing else")

    def _measured(self, rewards: Any, ids: Any, **details: Any) -> Reported:
        """Return the measurements to settle with, without those that were reported before."""
        numbers: Any = self.ids if ids is None else ids
        if rewards is None and all(each is None for each in details.values()):
            numbers, rewards = [], []
        reported = Reported.prepare(self._known, numbers, rewards, **details)
        return reported.without(self._reported)

    def report(
        self,
        ids: Sequence[int],
        rewards: Any,
        *,
        errors: Any = None,
        seconds: Any = None,
        details: Any = None,
        settle: bool = True,
    ) -> int:
        """Store the rewards of some of the samples; the last missing reward settles the batch.

        If the batch is released, or if this worker dies, only samples without a report wait again.
        With `settle=False` the rewards are stored, and all samples stay claimed until the batch is
        settled or released.

        Args:
            ids: m of `batch.ids`; the reward of a later call replaces that of an earlier one.
            rewards: (m,) finite floats. NaN or None: the measurement failed; a stored reward stays.
            errors: m reasons of failed measurements; None for a measurement that has a reward.
            seconds: (m,) floats, how long each measurement took.
            details: m mappings that JSON can hold, or None: what else was measured.
            settle: Settle the samples, and the batch with the last one; False leaves this to the
                method `settle`.

        Returns:
            The number of samples that are not settled.

        Raises:
            InvalidArgument: If an id is not in this batch, or is given twice. Nothing is stored.
            InvalidReward: If a reward is infinite, if there is not one for each id, or if a finite
                reward came with an error. Nothing is stored.
            ClaimLost: If the batch is already settled or released, or if the database has returned
                to a state before its draw. The rewards are stored nevertheless: a sample that has
                one by now keeps it, and another sample stops waiting (mode "consume").

        Examples:
            >>> batch = store.sample(3)
            >>> batch.report(batch.ids[:2], [1.0, 0.5])
            1
            >>> batch.report(batch.ids[2:], [0.25])  # settles the batch
            0
        """
        self._require_attached()
        closes = require_flag(settle, "settle")
        reported = Reported.prepare(
            self._known, ids, rewards, errors=errors, seconds=seconds, details=details
        )
        self._has_reports = True  # before the commit: from now on `settle` must look for reports
        store = functools.partial(report, claim=self._claim, origin=self._origin())
        left = self._buffer.write(store, reported=reported, closes=closes)
        if left is None or (closes and left == 0 and len(self)):
            self._end()
        if left is None:
            raise self._lost("its rewards are stored, and nothing else")
        self._reported |= zip(
            reported.ids.tolist(), reported.measured.rewards.tolist(), strict=True
        )
        return left

    def fail(self, ids: Sequence[int], reason: str, *, settle: bool = True) -> int:
        """`report` that the measurement of some samples has failed, with one reason for all.

        Args:
            ids: m of `ids`.
            reason: Why it failed, as `failed` shows it.
            settle: See `report`.

        Returns:
            The number of samples that are not settled.

        Examples:
            >>> batch = store.sample(2)
            >>> batch.fail(batch.ids[:1], "no pose")
            1
            >>> store.failed(1)[0]["error"]
            'no pose'
        """
        m = len(numbers := as_ids(ids))
        return self.report(numbers, [None] * m, errors=[reason] * m, settle=settle)

    def detach(self) -> str:
        """Leave the batch claimed, also after the end of this process; return its token.

        Until the lease is over, `SampleStore.batch(token)` takes the batch up in any process. This
        object can do nothing more.

        Raises:
            InvalidArgument: If the batch was drawn without `lease_s`, or is empty.
            ClaimLost: See `release`.

        Examples:
            >>> batch = store.sample(2, lease_s=86_400)
            >>> token = batch.detach()
            >>> batch
            Batch(id=1, size=2, state='detached')
        """
        if self._claim is None:
            raise InvalidArgument("an empty batch cannot be detached: it has no sample.")
        if not (self._is_open and self._buffer.peek(self._claim.is_open)):
            raise self._lost("it cannot be detached")
        token = self._buffer.write(detach, claim=self._claim, token=new_token())
        if token is None:
            raise InvalidArgument(
                "the batch has no lease, so it ends with this process: draw it with "
                "store.sample(n, lease_s=86_400)."
            )
        self._end()
        self._is_detached = True
        return token

    def release(self) -> None:
        """Put the samples back at the head of the race, except those that were reported.

        If the race has changed since the draw in mode "replay", by new samples or priorities or
        reports, or if another worker has an open batch, the samples stay where they have waited
        since, as if the batch had been settled.

        Raises:
            ClaimLost: If the batch is already settled or released, or if the database has returned
                to a state before its draw.

        Examples:
            >>> batch = store.sample(3)
            >>> batch.release()
            >>> len(store)
            10
        """
        self._require_attached()
        is_released = self._is_open and not self._is_of_another_process
        if self._claim is not None and not self._is_of_another_process:
            is_released = self._buffer.write(release, batch=self._claim)
        self._end()
        if not is_released:
            raise self._lost("no sample can be released")

    def _origin(self) -> Origin:
        """Return the batch as this process knows it."""
        is_open = self._is_open and not self._is_of_another_process
        return Origin(self.id, self.objective, is_open, self._repeats)
