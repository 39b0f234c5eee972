"""Predictions and incumbent of a buffer that minimizes, negated: acquisitions maximize.

An agent predicts rewards as they were measured. Its training, its measures and the predictions in
the log have the unit of the rewards in either direction; only a score is negated.
"""

from __future__ import annotations

from typing import Any

from sqlbuffer._typing import Floats
from sqlbuffer._validation import as_floats
from sqlbuffer.predictor.acquisition import Incumbents
from sqlbuffer.records import Stats


class NegatedAgent:
    """An agent whose predictions are negated; everything else is as the agent has it."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def predict_data(self, samples: list[Any]) -> Floats:
        """Return the negated predictions, (n,)."""
        return -as_floats(self._agent.predict_data(samples))

    def predict_distribution(self, samples: list[Any]) -> tuple[Floats, Floats]:
        """Return the negated predictions, (n,), and their standard deviations, (n,)."""
        mean, std = self._agent.predict_distribution(samples)
        return -as_floats(mean), as_floats(std)

    def predict_samples(self, samples: list[Any], n_draws: int, *, step: int) -> Floats:
        """Return the negated predictions of functions drawn from the posterior, (n_draws, n)."""
        return -as_floats(self._agent.predict_samples(samples, n_draws, step=step))


class NegatedIncumbents:
    """A store whose incumbent is negated."""

    def __init__(self, store: Incumbents) -> None:
        self._store = store

    def incumbent(self) -> float | None:
        """Return the negated reward to improve on."""
        found = self._store.incumbent()
        return None if found is None else -found

    def stats(self) -> Stats:
        """Return the counters of the buffer."""
        return self._store.stats()
