"""The buffer callback that draws uniformly, and the base of the other buffer callbacks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from numpy.typing import ArrayLike

from sqlbuffer._validation import as_list, require_flag, require_real
from sqlbuffer.core.claim import WHILE_ALIVE, Terms
from sqlbuffer.core.weighting import Weighting
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.errors import ClaimLost
from sqlbuffer.records import AddResult
from sqlbuffer.store import open_with_defaults
from sqlbuffer.training import resume
from sqlbuffer.training.batch_rewards import BatchRewards
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.log import renumber
from sqlbuffer.training.pool_list import WaitingList, flat, from_buffer, is_part
from sqlbuffer.training.resume import LOOP
from sqlbuffer.training.sample_keys import SampleKeys

if TYPE_CHECKING:
    from sqlbuffer.core.batch import Batch

logger = logging.getLogger(__name__)


class Buffer(Callback):
    """A training buffer that draws uniformly.

    Args:
        p_total: Share of each batch that comes from the buffer, in [0, 1]; -1 for all that wait.
        url: URL of the database, see `open_store`.
        name: Name of the stored buffer, not of this callback.
        key: The canonical form of a sample, see `open_store`.
        mode: "consume" or "replay"; None takes the stored one, "consume" for a new buffer.
        seed: Seed of the draws; None takes the stored one, 0 for a new buffer.
        max_size: Scored samples that may wait, stored with the buffer; see `open_store`.
        direction: "maximize" or "minimize": which reward is better; see `open_store`.
        evict: Samples that leave beyond `max_size`: "lightest" or "oldest"; see `open_store`.
        durability: "normal" or "full", see `open_store`.
        allow_pickle: Store samples of unknown types by pickle.
        grace_s: Seconds of silence after which workers of other hosts count as dead.
        weighting: How scores become weights; None takes the stored one, "uniform" if it is new.
        fresh: Begin a new run in a new buffer, see `open_store`; the log prints its name.
        requeue: Let samples that were measured, failed, settled or removed wait again when they are
            added. False: only evicted ones, as in `SampleStore.add`.

    Attributes:
        store: The `SampleStore` behind the callback.
        batch_rewards: The rewards of the batch, for reward callbacks.
        resumed_size: Samples that waited when the last batch was settled, if it is to be repeated.
        is_lost: True if the last batch was released before it was settled, and is to be repeated.

    Examples:
        >>> from sqlbuffer import Buffer
        >>> buffer = Buffer(1.0, url="sqlite:///loop.db", name="uniform")
        >>> buffer.add(molecules, "library").added
        10
        >>> buffer.sample(2)
        (['C#N', 'CCN'], ['library_buffer', 'library_buffer'])
    """

    JOBS: ClassVar[frozenset[str]] = frozenset()
    """Jobs that may be due after a batch."""

    WEIGHTING: ClassVar[str] = "uniform"
    """Weighting of a new buffer if none is given."""

    def __init__(
        self,
        p_total: float,
        *,
        url: str | sa.URL | None = None,
        name: str = "default",
        key: Callable[[Any], Any] | None = None,
        mode: str | None = None,
        seed: int | None = None,
        max_size: int | None = None,
        direction: str | None = None,
        evict: str | None = None,
        durability: str = "normal",
        allow_pickle: bool = False,
        grace_s: float = GRACE_S,
        weighting: str | Weighting | None = None,
        fresh: bool = False,
        requeue: bool = True,
    ) -> None:
        super().__init__(name="buffer", order=0)
        self.p_total = require_real(
            p_total, "p_total is a share between 0 and 1, or -1 for everything", is_part
        )
        self.pct_argmax = 0.0
        self.requeue = require_flag(requeue, "requeue")
        self.resumed_size: int | None = None
        self.is_lost = False
        self.store = open_with_defaults(
            {"weighting": self.WEIGHTING},
            url,
            name=name,
            key=key,
            mode=mode,
            seed=seed,
            weighting=weighting,
            max_size=max_size,
            direction=direction,
            evict=evict,
            durability=durability,
            allow_pickle=allow_pickle,
            grace_s=grace_s,
            fresh=fresh,
        )
        self.fresh = fresh
        self._batch: Batch | None = None
        self._keys = SampleKeys(self.store.key)
        self.batch_rewards = BatchRewards(self.store, self._keys)
        self._waiting = WaitingList(self.store, self._keys.equal)
        self._has_restored = False
        self._is_in_iteration = False
        self.settled = 0  # number of the iteration after the last one that this loop has settled

    def __len__(self) -> int:
        return len(self.store)

    def close(self) -> None:
        """Close the database connections."""
        self.store.close()

    # -- calls from outside -----------------------------------------------------------------------

    def add(self, item: Any, name: str = "") -> AddResult:
        """Add a sample, or several, to the pool.

        Samples that were drawn or removed wait again, unless the buffer has `requeue=False`.
        Samples of a batch that come from the buffer have the source `name + "_buffer"`.

        Args:
            item: A sample, or a list of samples or of lists of samples.
            name: The source.
        """
        self._waiting.renew()
        return self.store.add(flat(item), source=name, requeue=self.requeue)

    def sample(self, n: int) -> tuple[Any, ...]:
        """Draw samples, and settle them without rewards; return `(samples, sources)`.

        Args:
            n: Samples to draw; -1 for all that wait.
        """
        batch = self._claim(n)
        batch.settle(is_iteration=False)
        return batch.samples, from_buffer(batch.sources)

    @property
    def buffer(self) -> list[Any]:
        """All waiting samples.

        Assign a list of the same length to standardise the samples. A sample that becomes None is
        invalid and leaves the pool.
        """
        return self._waiting.items()

    @buffer.setter
    def buffer(self, items: Sequence[Any]) -> None:
        self._waiting.assign(items)

    @property
    def buffer_sources(self) -> list[str]:
        """Sources of all waiting samples, in the order of `buffer`."""
        return from_buffer(self._waiting.read().sources)

    def _filter_buffer(self, valids: ArrayLike) -> None:
        """Keep the waiting samples for which `valids` is true, in their assigned form."""
        self._waiting.filter(valids)

    @property
    def next_iteration(self) -> int:
        """Number of settled batches once the current batch is settled."""
        return self.store.iteration if self._batch is None else self._batch.iteration + 1

    def ids_of(self, samples: Sequence[Any]) -> list[int | None]:
        """Return the stored id of each sample of the batch; None if it was not drawn from here.

        Args:
            samples: n samples of the batch of this iteration.
        """
        return self.batch_rewards.ids_of(as_list(samples))

    # -- events -----------------------------------------------------------------------------------

    def before_train(self) -> None:
        """Resume where the last run stopped: restore the callbacks, and do the jobs left to do."""
        self.abort_batch()
        self.store._release_dropped()  # batches of an earlier loop, which await garbage collection
        loop = self._stored_loop()
        if not self._has_restored:
            resume.restore(self.store, self._callbacks())
        if loop is not None and (self._is_in_iteration or not self._has_restored):
            self.resumed_size = loop["size"]
        self._has_restored = True
        if loop is not None:
            self.settled = loop["iteration"]
            for job in self._jobs_left(loop["jobs"]):
                self._do(job)
        if self.store.checkpoint(LOOP) is None:
            # A run that is killed in iteration 0 restarts from this state.
            states = resume.checkpoints(self.store, self._callbacks(), [])
            self.store.save_checkpoints(states, iteration=self.next_iteration, kept=self._kept())
            self._note_stored(states)

    def build_buffer(self) -> None:
        """Note that an iteration has begun, which must be repeated if it is interrupted."""
        self._is_in_iteration = True

    def filter_buffer(self) -> None:
        """Write the list that was assigned to `buffer`."""
        self._waiting.flush()

    def sample_batch(self) -> None:
        """Claim the buffer's share of the batch."""
        self.abort_batch()
        self._is_in_iteration, self.is_lost = True, False
        env = self.environment
        # The death of this process is an attempt if each sample is measured in a call of its own.
        each = any(getattr(cb, "counts_attempts", False) for cb in self._callbacks())
        self._batch = batch = self._claim(self._share_of_batch(), Terms(counts_attempts=each))
        batch._repeats = True
        renumber(env.log, batch.iteration)  # other processes may have settled some
        self.batch_rewards.begin(batch)
        env.batch_state.samples += batch.samples
        env.batch_state.sources += from_buffer(batch.sources)

    def filter_batch(self) -> None:
        """Keep the first of equal samples, and of samplers' own what the budget has left."""
        self._filter_batch(self.batch_rewards.is_kept(self.environment.batch_state.samples))

    def after_compute_reward(self) -> None:
        """Keep the measured rewards: `reward_modification` changes only those of this batch."""
        self.batch_rewards.keep(self.environment.batch_state)

    def after_batch(self) -> None:
        """Settle the batch, then do the jobs that are due; a batch that was lost has none."""
        jobs = self._jobs_due()
        self._settle(jobs)
        for job in [] if self.is_lost else jobs:
            self._do(job)

    def abort_batch(self) -> None:
        """Release the claimed batch."""
        batch = self._batch
        if batch is not None:
            with contextlib.suppress(ClaimLost):
                batch.release()
            if resume.is_settled(self.store, batch):  # interrupted right after the commit
                self.settled = batch.iteration + 1
        self._batch = None  # the next release makes up for one that is interrupted

    @property
    def is_spent(self) -> bool:
        """True if nothing of a budget is left, and the next draw would return no sample.

        A sample that has a reward costs nothing: the batch of a killed run may be drawn again.
        """
        return self.store._is_spent(self._share_of_batch(), self.pct_argmax)

    # -- drawing and settling ---------------------------------------------------------------------

    def _share_of_batch(self) -> int:
        """Return how many samples of a batch come from the buffer; -1 for all that wait."""
        bs = self.environment.bs
        return -1 if -1 in (bs, self.p_total) else round(bs * self.p_total)

    def _claim(self, n: int, terms: Terms = WHILE_ALIVE) -> Batch:
        self._waiting.renew()
        return self.store._claim(n, self.pct_argmax, terms)

    def _settle(self, jobs: list[str]) -> None:
        """Store rewards, metrics and checkpoints and end the claim, in one transaction."""
        batch = self._batch
        if batch is None:
            return
        rewards, record = self.batch_rewards.to_settle(self.environment.batch_state)
        metrics: dict[str, float] = getattr(self.environment.log, "pending", {})
        states: dict[str, bytes] = {}

        def numbered(iteration: int) -> dict[str, bytes]:
            batch.iteration = iteration
            renumber(self.environment.log, iteration)
            states.update(resume.checkpoints(self.store, self._callbacks(), jobs))
            return states

        try:
            batch.settle(
                list(rewards.values()),
                ids=list(rewards),
                record=record,
                metrics=metrics,
                checkpoint=numbered,
                kept=self._kept(),
            )
            self.settled = batch.iteration + 1
            self._note_stored(states)
            metrics.clear()
            self._is_in_iteration = False
        except ClaimLost:
            logger.warning(
                "batch %s was released before it was settled: its rewards are stored, and its "
                "samples wait again",
                batch.id,
            )
            self.is_lost = True
            self.resumed_size = (self._stored_loop() or {}).get("size")
        self._batch = None

    # -- resuming ---------------------------------------------------------------------------------

    def _jobs_due(self) -> list[str]:
        """Return the jobs to do once this batch is settled."""
        return []

    def _do(self, job: str) -> None:
        raise NotImplementedError(job)

    def _note_stored(self, states: Mapping[str, bytes]) -> None:
        """Note which checkpoints are stored, once their transaction has committed."""

    def _stored_loop(self) -> dict[str, Any] | None:
        """Return the loop's state of the last settled batch; None if another loop settled it."""
        return resume.stored_loop(self.store, self.JOBS, stored_by=type(self))

    def _kept(self) -> dict[str, int | None]:
        return {cb.name: cb.kept for cb in self._callbacks()}

    def _callbacks(self) -> list[Callback]:
        """Return the callbacks that have checkpoints; callbacks of other libraries have none."""
        return [cb for cb in getattr(self.environment, "cbs", [self]) if isinstance(cb, Callback)]

    def _mark(self, job: str) -> dict[str, bytes]:
        """Return the checkpoint that marks a job of this iteration as done."""
        return resume.mark(job, self.settled)

    def _jobs_left(self, jobs: list[str]) -> list[str]:
        """Return the jobs of the last settled batch that are still to be done."""
        return resume.jobs_left(self.store, jobs, self.settled)
