"""The buffer callback that draws by the scores of a function."""

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
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.pool_list import from_buffer

logger = logging.getLogger(__name__)

REFRESH_SOME = "refresh_some"
"""Name of the job that refreshes at most `refresh_budget` samples."""


class WeightedBuffer(Buffer):
    """A buffer that draws by weight: override `compute_weights`.

    Args:
        p_total: Share of each batch that comes from the buffer, in [0, 1]; -1 takes all waiting
            samples.
        refresh_predictions: Iterations from one rescoring of all waiting samples to the next; 0 or
            None for never.
        pct_argmax: Share of the draw, in [0, 1], that takes the samples of the greatest weight.
        refresh_budget: Most stale samples to rescore after each iteration: the oldest scores first,
            and of equally old ones the highest. A score is stale once a newer predictor is stored;
            every `refresh_predictions` iterations all scores become stale. None: rescore all stale
            samples at once.
        **options: Keywords of `Buffer`. A new buffer has the weighting "shift", score - lowest
            score + 1e-8, if none is given.

    Examples:
        >>> from sqlbuffer import WeightedBuffer
        >>> class Shortest(WeightedBuffer):
        ...     def compute_weights(self, samples):
        ...         return [-len(sample) for sample in samples]
        >>> buffer = Shortest(1.0, refresh_predictions=None, url="sqlite:///loop.db", name="short")
        >>> buffer.add(molecules).added
        10
        >>> buffer.before_batch()  # scores new samples, as the loop does
        >>> sorted(buffer.weights)[:2]
        [-8.0, -6.0]
    """

    WEIGHTING = "shift"
    JOBS = frozenset({"retrain", "refresh", REFRESH_SOME})

    def __init__(
        self,
        p_total: float,
        refresh_predictions: int | None,
        pct_argmax: float = 0.0,
        *,
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
        super().__init__(p_total, **options)
        if options.get("weighting") is None and self.store.stats().kind == "uniform":
            logger.warning(
                "buffer %r is stored with weighting='uniform', so that scores decide no draw: make "
                'a copy with another one (store.copy(name, weighting="shift")), or give another '
                "name",
                self.store.name,
            )
        self.name = "weighted_buffer"
        self.pct_argmax = pct_argmax

    def compute_weights(self, samples: list[Any]) -> NDArray[np.float64]:
        """Return the score of each sample, (n,) floats; its weight follows by `weighting`.

        Args:
            samples: n samples.

        Raises:
            NotImplementedError: If the class does not override it.
        """
        raise NotImplementedError(
            "a WeightedBuffer needs scores: derive from it and override "
            "compute_weights(samples) -> (n,) floats, "
            "or use Buffer to draw uniformly."
        )

    @property
    def weights(self) -> list[float | None]:
        """Scores of all waiting samples, in the order of `buffer`; None for one without a score."""
        return [
            None if np.isnan(score) else score for score in self._waiting.read().scores.tolist()
        ]

    def sample(self, n: int) -> tuple[Any, ...]:
        """Draw samples, and settle them; return `(samples, sources, scores)`.

        Args:
            n: Samples to draw; -1 for all that wait.
        """
        batch = self._claim(n)
        batch.settle(is_iteration=False)
        return batch.samples, from_buffer(batch.sources), batch.scores.tolist()

    def before_batch(self) -> None:
        """Score the samples that have no score yet."""
        self._score("missing")

    def sample_batch(self) -> None:
        """Claim the buffer's share of the batch; `batch_state.buffer_weights` has its scores."""
        super().sample_batch()
        self._realign_weights()

    def filter_batch(self) -> None:
        """Remove repeats from the batch, with their scores."""
        super().filter_batch()
        self._realign_weights()

    def after_sample(self) -> None:
        """Update the scores after other callbacks have filtered the batch."""
        self._realign_weights()

    def _score(self, only: str, **options: Any) -> int:
        """Score by `compute_weights`, see `SampleStore._score_by`."""
        return self.store._score_by(None, self.compute_weights, only, **options)

    def _realign_weights(self) -> None:
        """Set `buffer_weights`: scores of the batch's samples from the buffer, in their order."""
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
        # Scoring stale samples ends a refresh that was interrupted. A refresh that is due scores
        # all samples: without a new predictor none is stale, but compute_weights may have changed.
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
