"""What a batch offers for prioritised replay: new priorities, and importance weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer._validation import is_share, require_flag, require_real
from sqlbuffer.core import priorities as core_priorities
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.display import DisplayedBatch
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.measured import Known
from sqlbuffer.errors import ClaimLost, InvalidArgument, UnknownProbability

_WHY_UNKNOWN = (
    "it ends among samples of a released batch whose priorities have changed since; in mode "
    '"consume", it ends among samples that were released and come first, or another process has '
    "claimed samples during its draw"
)
_HINT = (
    "The probabilities of this batch are not known, so its importance weights are NaN, and so is a "
    "loss with them: give its samples one weight by np.ones(len(batch))."
)


class PrioritisedBatch(DisplayedBatch):
    """Priorities and importance weights of the samples of a batch."""

    _buffer: BufferHandle
    _claim: Claim | None
    _known: Known
    _new_keys: Floats | None = None
    """(n,) keys with which the samples wait since the draw, in mode "replay"."""

    def update_priorities(self, priorities: Any, *, ids: Sequence[int] | None = None) -> int:
        """Give the samples new priorities: their scores, in one transaction.

        `settle(priorities=...)` writes them in the transaction that ends the batch, so that a
        process that is killed has stored both or none. See `SampleStore.update_priorities`. The
        samples of a batch are found by their keys: the cost does not grow with the buffer, unless
        another process or a new lowest score has moved them. The batch may be open or closed.

        Args:
            priorities: (m,) finite numbers of 0 or more, such as absolute errors.
            ids: m of `batch.ids`; by default all of them, in their order.

        Returns:
            The number of samples that have their new priorities.

        Raises:
            InvalidArgument: If the buffer draws uniformly, if an id is not in this batch, or if
                there are not m finite numbers of 0 or more. Nothing is stored.
            StaleIds: If the database has returned to an earlier state, in which other samples have
                these ids. Nothing is stored.
            ClaimLost: If the batch was detached. Nothing is stored.

        Examples:
            >>> replay = open_store("sqlite:///replay.db", mode="replay", weighting="power")
            >>> replay.add(["left", "right"]).added
            2
            >>> replay.score(lambda new: [1.0] * len(new))
            2
            >>> batch = replay.sample(2)
            >>> batch.update_priorities([0.5, 2.0])
            2
        """
        return core_priorities.update(self._buffer, self._given(priorities, ids))

    def importance_weights(self, beta: float = 1.0, *, normalise: bool = True) -> Floats:
        """Return the weights that correct a loss for the priorities of the draw.

        With `normalise=False` the weights are `(1 / p) ** beta`, p being `batch.info.probability`,
        the probability that the sample is in this batch. For beta = 1 the sum of `weight * x` over
        the batch is an unbiased estimate of the sum of x over all samples that could be drawn. With
        `normalise=True` the largest weight is 1, so that a learning rate keeps its meaning; factors
        that all samples of a batch share cancel out.

        Args:
            beta: Degree of the correction, in [0, 1]: 0 corrects nothing, and 1 fully. Prioritised
                replay often raises it from 0.4 to 1 during the training.
            normalise: Divide by the largest weight of the batch.

        Returns:
            (n,) float64, positive. With `normalise=False` NaN where the probability is not known.

        Raises:
            InvalidArgument: If beta is out of range.
            UnknownProbability: If a probability is not known (`SampleInfo` says when) and
                `normalise` is True: a loss of NaN would make the weights of a network NaN. Leave
                such a batch out of the training, or give all of its samples one weight by
                `np.ones(len(batch))`.

        Source:
            Prioritized Experience Replay (Schaul et al. 2016), equation 2 of section 3.4, with the
            probability of a batch without replacement in the place of N P(i) (Horvitz and Thompson
            1952).

        Examples:
            >>> batch = store.sample(3)
            >>> batch.importance_weights(beta=0.4).round(3)
            array([1.   , 0.808, 1.   ])
        """
        beta = require_real(beta, "beta must be a number between 0 and 1", is_share)
        weights: Floats = self.info.probability**-beta
        if require_flag(normalise, "normalise") and len(weights):
            self._require_probabilities()
            weights = weights / weights.max()
        return weights

    @property
    def _is_unknown(self) -> bool:
        """True if a sample has no known probability."""
        return bool(np.isnan(self.info.probability).any())

    def _require_probabilities(self) -> None:
        if self._is_unknown:
            raise UnknownProbability(
                f"the probabilities of batch {self.id} are not known ({_WHY_UNKNOWN}), so that "
                "its importance weights would be NaN: settle it without learning from it, or give "
                "its samples one weight by np.ones(len(batch))."
            )

    def _given(self, priorities: Any, ids: Sequence[int] | None = None) -> core_priorities.Given:
        """Check priorities of samples of the batch."""
        self._require_attached()
        hint = _HINT if self._is_unknown else ""
        return core_priorities.of_batch(self._buffer, self._known, priorities, ids, hint=hint)

    def _given_to_settle(self, priorities: Any) -> core_priorities.Given:
        """Check priorities of all samples of the batch, which wait again once it is settled."""
        if self._buffer.consumes:
            raise InvalidArgument(
                'priorities= needs mode="replay", where a settled sample waits again: in mode '
                '"consume" it has left the pool, so leave the priorities out.'
            )
        return self._given(priorities)

    def _witness(self) -> None:
        """Remember this committed batch: it proves the ids that were read before its draw.

        The keys with which its samples wait make their priorities fast to update.
        """
        if self._claim is not None:
            found_by = {"buffer": self._buffer.buffer_id, **self._claim.parameters()}
            self._buffer.lineage.last_draw = found_by
        if self._new_keys is not None and self._buffer.settings.weighting.needs_score:
            self._buffer.places.note(self.ids, self._new_keys)
            self._new_keys = None

    def _require_attached(self) -> None:
        if self._is_detached:
            raise ClaimLost(
                f"batch {self.id} was detached: take it up with store.batch(token). Nothing is "
                "stored."
            )
