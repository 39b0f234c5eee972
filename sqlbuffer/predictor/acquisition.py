"""Acquisition functions: scores of samples from predicted rewards and their uncertainty.

The greedy score is the prediction itself. The functions below also favour samples whose reward is
uncertain. The pure functions take and return arrays. The classes ask an agent for its uncertainty,
and a `PredictiveBuffer` stores their results as the scores of its samples.

A higher reward is better here. A buffer that minimizes gives acquisitions its predictions and its
incumbent negated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats
from sqlbuffer._validation import as_floats, require_real
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.records import Stats

Rule = Callable[[list[Any]], Floats]
"""Takes n samples and returns (n,) float64; a score does not depend on the other samples."""


def upper_confidence_bound(mean: ArrayLike, std: ArrayLike, beta: float = 1.0) -> Floats:
    """Return `mean + beta * std`, an optimistic estimate of the rewards.

    Args:
        mean: (n,) floats, expected rewards.
        std: (n,) floats, 0 or more, standard deviations of the rewards.
        beta: Weight of the deviation; 0 is greedy.

    Returns:
        (n,) float64.

    Source:
        Srinivas, Krause, Kakade and Seeger 2010, Gaussian process optimization in the bandit
        setting; `beta` is the square root of the paper's.

    Examples:
        >>> from sqlbuffer.predictor.acquisition import upper_confidence_bound
        >>> upper_confidence_bound([0.5, 0.4], [0.1, 0.3], beta=2.0)
        array([0.7, 1. ])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(mean, dtype=np.float64) + beta * np.asarray(std, dtype=np.float64)


def expected_improvement(mean: ArrayLike, std: ArrayLike, best: float, xi: float = 0.0) -> Floats:
    """Return the expectation of `max(reward - best - xi, 0)` for normally distributed rewards.

    Args:
        mean: (n,) floats, expected rewards.
        std: (n,) floats, 0 or more, standard deviations of the rewards.
        best: The reward to improve on.
        xi: Smallest improvement that counts.

    Returns:
        (n,) float64, 0 or more.

    Source:
        Jones, Schonlau and Welch 1998, Efficient global optimization of expensive black-box
        functions.

    Examples:
        >>> from sqlbuffer.predictor.acquisition import expected_improvement
        >>> expected_improvement([0.5, 0.4], [0.1, 0.3], best=0.5).round(3)
        array([0.04 , 0.076])
    """
    spread = np.asarray(std, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        gain = np.asarray(mean, dtype=np.float64) - best - xi
        z = gain / spread
        improvement = gain * _normal_cdf(z) + spread * np.exp(-0.5 * z**2) / math.sqrt(
            2.0 * math.pi
        )
    # A sample without uncertainty improves by its gain or not at all. Far below the best, the sum
    # of two small terms may round to a negative number.
    return np.where(
        spread == 0.0, np.maximum(gain, 0.0), np.where(improvement < 0.0, 0.0, improvement)
    )


def _normal_cdf(z: Floats) -> Floats:
    return np.asarray(0.5 * np.vectorize(math.erfc, otypes=[np.float64])(-z / math.sqrt(2.0)))


class Incumbents(Protocol):
    """The methods of a `SampleStore` that acquisitions use."""

    def incumbent(self) -> float | None:
        """Return the reward to improve on."""
        ...

    def stats(self) -> Stats:
        """Return the counters of the buffer."""
        ...


class Acquisition(Protocol):
    """Scores samples by an agent's predictions and their uncertainty; a higher score is better."""

    name: ClassVar[str]
    asks: ClassVar[str]
    """The method of the agent that the acquisition needs."""

    def rule(self, agent: Any, store: Incumbents) -> Rule:
        """Return the rule that scores samples now, the same for all samples of a score version."""
        ...


@dataclasses.dataclass(frozen=True)
class UpperConfidenceBound:
    """Scores a sample by `mean + beta * std`.

    Args:
        beta: Finite weight of the deviation: 0 is greedy, a negative weight avoids uncertain
            samples.

    Examples:
        >>> from sqlbuffer import UpperConfidenceBound
        >>> store.mark_stale()
        >>> store.refresh(UpperConfidenceBound(beta=2.0).rule(ensemble, store))
        10
    """

    beta: float = 1.0
    name: ClassVar[str] = "ucb"
    asks: ClassVar[str] = "predict_distribution"

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", require_real(self.beta, "beta must be a finite number"))

    def rule(self, agent: Any, store: Incumbents) -> Rule:
        """Return the bound as a rule.

        Args:
            agent: An agent with `predict_distribution`.
            store: The buffer.
        """
        return lambda samples: upper_confidence_bound(*_distribution(agent, samples), self.beta)


@dataclasses.dataclass(frozen=True)
class ExpectedImprovement:
    """Scores a sample by its expected improvement on the best reward that the predictor knew.

    Before the first reward, samples are scored by the mean.

    Args:
        xi: Finite; smallest improvement that counts.

    Examples:
        >>> from sqlbuffer import ExpectedImprovement
        >>> scores = ExpectedImprovement(xi=0.01).rule(ensemble, store)(molecules)
        >>> scores.shape, bool((scores >= 0).all())
        ((10,), True)
    """

    xi: float = 0.0
    name: ClassVar[str] = "ei"
    asks: ClassVar[str] = "predict_distribution"

    def __post_init__(self) -> None:
        object.__setattr__(self, "xi", require_real(self.xi, "xi must be a finite number"))

    def rule(self, agent: Any, store: Incumbents) -> Rule:
        """Return the improvement on the store's incumbent as a rule.

        Args:
            agent: An agent with `predict_distribution`.
            store: The buffer.
        """
        best = store.incumbent()
        if best is None:
            return lambda samples: _distribution(agent, samples)[0]
        return lambda samples: expected_improvement(*_distribution(agent, samples), best, self.xi)


@dataclasses.dataclass(frozen=True)
class ThompsonSampling:
    """Scores all samples by one function drawn from the posterior.

    Each score version has another function. A resumed run draws the same function.

    Source:
        Thompson 1933, On the likelihood that one unknown probability exceeds another in view of the
        evidence of two samples; Hernández-Lobato et al. 2017, Parallel and distributed Thompson
        sampling for large-scale accelerated exploration of chemical space.

    Examples:
        >>> from sqlbuffer import ThompsonSampling
        >>> ThompsonSampling().rule(ensemble, store)(molecules).shape
        (10,)
    """

    name: ClassVar[str] = "thompson"
    asks: ClassVar[str] = "predict_samples"

    def rule(self, agent: Any, store: Incumbents) -> Rule:
        """Return the function drawn for the store's score version.

        Args:
            agent: An agent with `predict_samples`.
            store: The buffer.
        """
        version = store.stats().score_version
        return lambda samples: as_floats(agent.predict_samples(samples, 1, step=version))[0]


_BY_NAME: dict[str, type[Any]] = {
    kind.name: kind for kind in (UpperConfidenceBound, ExpectedImprovement, ThompsonSampling)
}


def acquisition_from(spec: str | Acquisition, agent: Any) -> Acquisition | None:
    """Return the acquisition of a name, or the given acquisition; None for "greedy".

    Raises:
        InvalidArgument: If no acquisition has the name, or the agent lacks the uncertainty that it
            needs.
    """
    if isinstance(spec, str):
        if spec == "greedy":
            return None
        found: Acquisition | None = _BY_NAME[spec]() if spec in _BY_NAME else None
    else:
        found = spec
    if found is None or not hasattr(found, "rule") or isinstance(found, type):
        names = ", ".join(map(repr, ("greedy", *_BY_NAME)))
        kinds = ", ".join(f"{kind.__name__}()" for kind in _BY_NAME.values())
        raise InvalidArgument(
            f"acquisition must be one of {names}, or an object such as {kinds}; got {shown(spec)}."
        )
    if not hasattr(agent, found.asks):
        raise InvalidArgument(
            f"acquisition {found.name!r} needs an agent with {found.asks}, which "
            f"{type(agent).__name__} lacks: use a PredictiveAgent whose model has dropout, an "
            'EnsembleAgent, or acquisition="greedy".'
        )
    if isinstance(found, tuple(_BY_NAME.values())) and hasattr(agent, "require_uncertainty"):
        agent.require_uncertainty()
    return found


def _distribution(agent: Any, samples: list[Any]) -> tuple[Floats, Floats]:
    mean, std = agent.predict_distribution(samples)
    return as_floats(mean), as_floats(std)
