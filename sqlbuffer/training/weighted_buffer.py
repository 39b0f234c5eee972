"""The four buffer callbacks: a training buffer in a SQL database, with the calls of MRL's."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlbuffer._validation import (
    is_share,
    require_count,
    require_real,
)
from sqlbuffer.core.race import Weighting
from sqlbuffer.training.buffer import Buffer, from_buffer

logger = logging.getLogger(__name__)

REFRESH_SOME = "refresh_some"
"""The job of a refresh budget."""


class WeightedBuffer(Buffer):
    """A buffer that draws by weight: override `compute_weights`.

    Args:
        p_total: Share of each batch that comes from the buffer, in [0, 1]; -1 takes everything that waits.
        refresh_predictions: Score everything that waits again every so many iterations; 0 or None for never.
        pct_argmax: Share of the draw, in [0, 1], that takes the samples of the greatest weight.
        weighting: How scores become weights: "shift" is score - lowest score + 1e-8.
        refresh_budget: Refresh piece by piece: after each iteration at most so many waiting samples whose score is
            out of date, the oldest scores first, and of these the highest. A score is out of date when a predictor has
            been stored since, and `refresh_predictions` says how often all scores are. None: refresh all at once.
        **options: Keywords of `Buffer`.
    """

    JOBS = frozenset({"retrain", "refresh", REFRESH_SOME})

    def __init__(
        self,
        p_total: float,
        refresh_predictions: int | None,
        pct_argmax: float = 0.0,
        *,
        weighting: str | Weighting = "shift",
        refresh_budget: int | None = None,
        **options: Any,
    ) -> None:
        pct_argmax = require_real(
            pct_argmax, "pct_argmax must be a share between 0 and 1", is_share
        )
        if refresh_budget is not None:
            rule = "refresh_budget must be 1 sample or more, or None"
            refresh_budget = require_count(refresh_budget, rule, least=1)
        self.refresh_budget = refresh_budget
        self.refresh_predictions = as_frequency("refresh_predictions", refresh_predictions)
        super().__init__(p_total, weighting=weighting, **options)
        self.name = "weighted_buffer"
        self.pct_argmax = pct_argmax

    def compute_weights(self, samples: list[Any]) -> NDArray[np.float64]:
        """Return the score of each sample, (n,) floats; its weight follows by `weighting`."""
        raise NotImplementedError(
            "a WeightedBuffer needs scores: derive from it and override compute_weights(samples) -> (n,) floats, "
            "or use Buffer to draw uniformly."
        )

    @property
    def weights(self) -> list[float | None]:
        """What `compute_weights` said of all waiting samples, in the order of `buffer`; None where it has not yet."""
        return [
            None if np.isnan(score) else score for score in self._waiting.read().scores.tolist()
        ]

    def sample(self, n: int) -> tuple[Any, ...]:
        """Draw n samples, -1 for all, and settle them without rewards; returns (samples, sources, scores)."""
        batch = self._claim(n)
        batch.settle(is_iteration=False)
        return batch.samples, from_buffer(batch.sources), batch.scores.tolist()

    def before_batch(self) -> None:
        """Score what has no score yet."""
        self._score("missing")

    def sample_batch(self) -> None:
        """Claim the buffer's share of the batch; `batch_state.buffer_weights` has its scores."""
        super().sample_batch()
        self._realign_weights()

    def filter_batch(self) -> None:
        """Let repeats within the batch go, and their scores with them."""
        super().filter_batch()
        self._realign_weights()

    def after_sample(self) -> None:
        """Keep the scores in step with a batch that other callbacks have filtered."""
        self._realign_weights()

    def _score(self, only: str, **options: Any) -> int:
        """Score by `compute_weights`, see `SampleStore._score_by`."""
        return self.store._score_by(None, self.compute_weights, only, **options)

    def _realign_weights(self) -> None:
        """Set the scores of those samples of the batch that were drawn from the buffer, in the order of the batch."""
        state, batch = self.environment.batch_state, self._batch
        if batch is not None:
            scores = dict(zip(self._keys.hashes(batch.samples), batch.scores.tolist(), strict=True))
            state.buffer_weights = [
                scores[digest] for digest in self._keys.hashes(state.samples) if digest in scores
            ]

    def _is_due(self, frequency: int) -> bool:
        iteration = self.environment.log.iterations
        return frequency > 0 and iteration > 0 and iteration % frequency == 0

    def _jobs_due(self) -> list[str]:
        due = ["refresh"] if self._is_due(self.refresh_predictions) else []
        return due if self.refresh_budget is None else [*due, REFRESH_SOME]

    def _do(self, job: str) -> None:
        mark = self._mark(job)
        if job == REFRESH_SOME:
            self._score("stale", budget=self.refresh_budget, checkpoint=mark)
            return
        if job == "refresh" and self.refresh_budget is not None:
            self._score("all", budget=0, checkpoint=mark)
            return
        # Scoring what is stale ends a refresh that was interrupted. One that is due scores everything: without a new
        # predictor nothing counts as stale, and yet compute_weights may have come to see things differently.
        if job == "refresh":
            self._score("all", checkpoint=mark)
        else:
            self._score("stale")

    def _jobs_left(self, jobs: list[str]) -> list[str]:
        left = super()._jobs_left(jobs)
        return left if self.store.is_refreshed() else [*left, "end_refresh"]


def as_frequency(name: str, every: int | None) -> int:
    """Return a number of iterations, 0 for never."""
    if every is None:
        return 0
    return require_count(
        every, f"{name} must be a number of iterations, or 0 or None to switch it off"
    )
