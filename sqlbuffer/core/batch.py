"""A batch of samples that this process has claimed: settle it with rewards, or release it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sqlbuffer._messages import shown, summary
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_rewards, require_flag
from sqlbuffer.core import pool
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.metrics_and_checkpoints import states_from, write_checkpoints, write_metrics
from sqlbuffer.core.release import release, release_later
from sqlbuffer.core.report import Reported, report
from sqlbuffer.core.rewards import Known, Recorded, store_measured
from sqlbuffer.core.rewards import record as write_recorded
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import ClaimLost, DatabaseUnavailable, InvalidArgument
from sqlbuffer.records import SampleInfo
from sqlbuffer.samples.codec import decode_all

log = logging.getLogger(__name__)


class Drawn(NamedTuple):
    """Drawn samples, as columns of n values each.

    To split 512 rows into columns once takes half the time of ten loops over the rows.
    """

    sample_id: Sequence[int] = ()
    race_key: Sequence[float] = ()
    weight: Sequence[float | None] = ()
    entries: Sequence[int] = ()
    source: Sequence[str] = ()
    score: Sequence[float | None] = ()
    reward: Sequence[float | None] = ()
    hash: Sequence[bytes] = ()
    requeues: Sequence[int] = ()
    text: Sequence[str] = ()
    payload: Sequence[bytes | None] = ()
    codec: Sequence[str] = ()


class Batch:
    """Samples claimed by this process until they are settled or released.

    As a context manager, a batch is released at the end of the block unless it was settled. A batch
    that is garbage collected while it is open is released with a warning. The claim belongs to the
    process that made it: a forked child can store rewards, but it can neither settle nor release
    the batch. The process that a pickled batch is sent to can settle, report or release it.

    Attributes:
        id: Id of the batch, None if it is empty.
        iteration: Iteration for which it was drawn, from 0.
        samples: n samples: those of the argmax share first, then the others in the order of the
            race.
        sources: n names of the generators that added the samples.
        ids: (n,) int64, ids of the samples.
        scores: (n,) float64, NaN for a sample without a score.
        weights: (n,) float64, NaN for a sample without a weight.
        clock: Clock of the race after the draw.
        info: Probability, argmax share and earlier reward of each sample.
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
    ) -> None:
        self.id = None if claim is None else claim.batch
        self.iteration = iteration
        self.clock = clock
        self.samples = decode_all(
            drawn.text, drawn.payload, drawn.codec, allow_pickle=buffer.allow_pickle
        )
        self.sources = list(drawn.source)
        self.ids: Ints = pool.as_ints(drawn.sample_id)
        self.scores: Floats = pool.as_floats(drawn.score)
        self.weights: Floats = pool.as_floats(drawn.weight)
        self.info = info
        self._buffer = buffer
        self._claim = claim
        self._known = Known(
            self.ids, drawn.hash, drawn.text, drawn.payload, drawn.codec, drawn.source
        )
        self._is_open = True
        self._has_reports = False
        self._pid: int | None = os.getpid()
        self._dropped: weakref.finalize[..., Any] | None = None
        if claim is not None:
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
        return len(self.samples)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._is_open or self._is_of_another_process:
            return
        try:
            self.release()
        except ClaimLost:
            if kind is None:  # else it was just settled, and the exception of the block goes on
                raise
        except DatabaseUnavailable as exc:
            if kind is None or issubclass(kind, Exception):
                raise
            # Ctrl-C, or another exception of this kind, goes on.
            log.warning(
                "could not release the batch: it stays claimed until this process exits: %s",
                summary(exc),
            )
        except BaseException as exc:
            if not isinstance(exc, Exception):  # a signal: no other process releases the batch
                with contextlib.suppress(ClaimLost):
                    self.release()
            raise

    def settle(
        self,
        rewards: Any = None,
        *,
        record: tuple[Sequence[Any], Any, str | Sequence[str]] | None = None,
        metrics: Mapping[str, float] | None = None,
        checkpoint: Mapping[str, bytes] | None = None,
        kept: Mapping[str, int | None] | None = None,
        is_iteration: bool = True,
    ) -> None:
        """Store the rewards, end the claim and advance the buffer's iteration, in one transaction.

        Samples that were reported before keep their reward, unless `rewards` has another one.

        Args:
            rewards: (n,) finite floats, one for each sample. NaN: measured and failed, never to be
                measured again; a stored reward stays. None, for all or for one sample: not
                measured.
            record: `(samples, rewards, sources)` to store as well, not drawn from the buffer.
            metrics: Metrics of this iteration to store as well.
            checkpoint: States to resume from, by name, to store as well.
            kept: Number of states that stay stored, by name; None for all, without an entry only
                the newest.
            is_iteration: Advance the buffer's iteration.

        Raises:
            InvalidReward: If a reward is infinite, or there is not one for each sample. Nothing is
                stored.
            ClaimLost: If the batch is already settled or released, or if the database has returned
                to a state before its draw. The rewards are stored nevertheless, with the samples.
        """
        values = as_rewards([None] * len(self) if rewards is None else rewards, len(self))
        recorded = None if record is None else _recorded(self._buffer, record)
        is_settled = self._buffer.write(
            self._settle,
            rewards=values,
            recorded=recorded,
            metrics=metrics,
            states=states_from(checkpoint),
            kept=kept,
            n_iterations=int(require_flag(is_iteration, "is_iteration")),
        )
        self._end()
        if not is_settled:
            raise self._lost("its rewards are stored, and nothing else")

    def report(self, ids: Sequence[int], rewards: Any) -> int:
        """Store the rewards of some of the samples; the last missing reward settles the batch.

        If the batch is released, or if this worker dies, only samples without a report wait again.

        Args:
            ids: m of `ids`; a later reward replaces an earlier one.
            rewards: (m,) finite floats. NaN: measured and failed, never to be measured again; a
                stored reward stays.

        Returns:
            The number of samples without a report.

        Raises:
            InvalidArgument: If an id is not in this batch. Nothing is stored.
            InvalidReward: If a reward is infinite, or there is not one for each id. Nothing is
                stored.
            ClaimLost: If the batch is already settled or released, or if the database has returned
                to a state before its draw. The rewards are stored nevertheless, with the samples.
        """
        reported = Reported.prepare(self._known, ids, rewards)
        store = functools.partial(
            report, claim=self._claim, reported=reported, may_close=not self._is_of_another_process
        )
        self._has_reports = True  # before the commit: from now on `settle` must look for reports
        left = self._buffer.write(store)
        if left is None or (left == 0 and len(self)):
            self._end()
        if left is None:
            raise self._lost("its rewards are stored, and nothing else")
        return left

    def release(self) -> None:
        """Put the samples back at the head of the race, except those that were reported.

        Raises:
            ClaimLost: If the batch is already settled or released, or if the database has returned
                to a state before its draw.
        """
        is_released = self._is_open and not self._is_of_another_process
        if self._claim is not None and not self._is_of_another_process:
            is_released = self._buffer.write(release, batch=self._claim)
        self._end()
        if not is_released:
            raise self._lost("no sample can be released")

    def witness(self) -> None:
        """Remember this committed batch, which proves the ids that were read before its draw."""
        if self._claim is not None:
            found_by = {"buffer": self._buffer.buffer_id, **self._claim.parameters()}
            self._buffer.lineage.last_draw = found_by

    @property
    def _is_of_another_process(self) -> bool:
        """True in a forked child."""
        return self._pid not in (None, os.getpid())

    def _end(self) -> None:
        """Note that the claim has ended; it never opens again, whatever another thread finds."""
        self._is_open = False
        if self._dropped is not None:
            self._dropped.detach()

    def _lost(self, what: str) -> ClaimLost:
        """Return the error for a batch that this process cannot end, with the reason."""
        if self._is_of_another_process:
            return ClaimLost(
                f"batch {self.id} belongs to process {self._pid}, and this process is its forked "
                f"child {os.getpid()}: {what}; settle the batch in process {self._pid}, or send "
                "it pickled to another process."
            )
        if self._claim is None or self._buffer.read(self._claim.find):
            return ClaimLost(f"batch {self.id} was already settled or released: {what}.")
        return ClaimLost(
            f"batch {self.id} is no longer in the database, which has returned to an earlier "
            f"state (failover to a lagging standby, restore): {what}; draw again."
        )

    def _reported(self, tx: Transaction) -> list[int]:
        """Return the ids of reported samples, including reports of other threads and processes."""
        if self.id is None or not self._has_reports:
            return []
        found = tx.execute(queries.batches.reported_samples(), batch=self.id)
        return list(found.scalars())

    def _settle(
        self,
        tx: Transaction,
        *,
        rewards: list[float | None],
        recorded: Recorded | None,
        metrics: Mapping[str, float] | None,
        states: Mapping[str, bytes],
        kept: Mapping[str, int | None] | None,
        n_iterations: int,
    ) -> bool:
        buffer = self._buffer
        is_ours = self._is_open and not self._is_of_another_process
        if self._claim is not None and not self._is_of_another_process:
            is_ours = self._claim.close(tx, "settled_at") is not None
        measured = np.array([reward is not None for reward in rewards], dtype=bool)
        values = pool.as_floats(rewards)
        leaves = is_ours and buffer.consumes
        # Samples reported earlier may have been added again since.
        early = np.isin(self.ids, self._reported(tx) if is_ours else [])
        deltas: Counter[str] = Counter()
        for part, stay_queued in ((measured & ~early, not leaves), (measured & early, True)):
            places = np.flatnonzero(part)
            options = {"stay_queued": stay_queued, "of_draws": is_ours and self._claim is not None}
            deltas.update(store_measured(tx, self._known, places, values[part], **options))
        if leaves:
            places = np.flatnonzero(~measured & ~early)
            pool.dequeue_known(tx, self.ids[places], [self._known.hash[i] for i in places.tolist()])
        if recorded is not None:  # last, because it calls `tx.count`
            write_recorded(tx, recorded)
        if not is_ours:
            tx.race_state()  # raises if the buffer is gone
            tx.count(**deltas)
            return False
        deltas.update(settled=len(self) - int(early.sum()), iterations=n_iterations)
        tx.count(**deltas)
        if metrics is not None:
            write_metrics(tx, iteration=self.iteration, values=metrics)
        if states or kept is not None:
            settled = self.iteration + n_iterations
            write_checkpoints(tx, iteration=settled, states=states, kept=kept)
        return True


def _recorded(buffer: BufferHandle, record: Any) -> Recorded:
    """Check the samples and rewards to store with a batch."""
    if not isinstance(record, (tuple, list)) or len(record) != 3:
        raise InvalidArgument(f"record must be (samples, rewards, sources), got {shown(record)}.")
    return Recorded.prepare(buffer, *record)


def content(rows: Iterable[Any], buffer: BufferHandle) -> list[Any]:
    """Decode the samples of rows with `text`, `payload` and `codec`."""
    columns = [(row.text, row.payload, row.codec) for row in rows]
    texts, payloads, codecs = map(list, zip(*columns, strict=True)) if columns else ([], [], [])
    return decode_all(texts, payloads, codecs, allow_pickle=buffer.allow_pickle)
