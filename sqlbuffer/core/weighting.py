"""Weight functions: from scores to the weights of the race. Arrays in, arrays out."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

import numpy as np

from sqlbuffer._typing import Floats
from sqlbuffer._validation import is_positive, require_real
from sqlbuffer.errors import InvalidArgument, shown

FLOOR = 1e-8
"""Weight of the lowest score under `Shift`, as in the original."""

LEAST, MOST = 1e-150, 1e150
"""Range of the weights above 0: neither a key, variate / weight, nor a ratio of two weights leaves float64 in it."""


class Weighting(Protocol):
    """A weight function: monotone in score, so that the argmax share is the top of the weight index."""

    name: ClassVar[str]
    needs_score: ClassVar[bool]
    """False where every sample has a weight as soon as it is added."""
    needs_base: ClassVar[bool]
    """True where a weight depends on the lowest score of the pool."""

    def __call__(self, scores: Floats, base: float) -> Floats:
        """Return (n,) non-negative weights for (n,) scores without NaN; `base` is the lowest score of the pool."""
        ...


def shift_base(base: float) -> float:
    """Return the lowest score as `Shift` counts from it: within bounds whose differences are weights."""
    return min(max(base, -MOST / 2), MOST / 2)


@dataclasses.dataclass(frozen=True)
class Shift:
    """`score - lowest score of the pool + 1e-8`, the original's law; scores beyond 5e149 count as that much."""

    name: ClassVar[str] = "shift"
    needs_score: ClassVar[bool] = True
    needs_base: ClassVar[bool] = True

    def __call__(self, scores: Floats, base: float) -> Floats:
        return np.maximum(np.clip(scores, -MOST / 2, MOST / 2) - shift_base(base), 0.0) + FLOOR


@dataclasses.dataclass(frozen=True)
class Softmax:
    """`exp(score / temperature)`, the exponent cut off at +-345.

    Args:
        temperature: Positive; the lower, the greedier.
    """

    temperature: float = 1.0
    name: ClassVar[str] = "softmax"
    needs_score: ClassVar[bool] = True
    needs_base: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number = require_real(
            self.temperature, "temperature must be a positive number", is_positive
        )
        object.__setattr__(self, "temperature", number)

    def __call__(self, scores: Floats, base: float) -> Floats:
        with np.errstate(over="ignore"):
            return np.exp(np.clip(scores / self.temperature, -345.0, 345.0))


@dataclasses.dataclass(frozen=True)
class Power:
    """`score ** alpha` for positive scores, 0 below 1e-150, as in prioritised replay (Schaul et al. 2016).

    Args:
        alpha: Positive; 1 is proportional to score.
    """

    alpha: float = 1.0
    name: ClassVar[str] = "power"
    needs_score: ClassVar[bool] = True
    needs_base: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number = require_real(self.alpha, "alpha must be a positive number", is_positive)
        object.__setattr__(self, "alpha", number)

    def __call__(self, scores: Floats, base: float) -> Floats:
        with np.errstate(over="ignore", under="ignore"):
            weights = np.minimum(np.maximum(scores, 0.0) ** self.alpha, MOST)
        return np.where(weights < LEAST, 0.0, weights)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Weight 1 for every sample, scored or not."""

    name: ClassVar[str] = "uniform"
    needs_score: ClassVar[bool] = False
    needs_base: ClassVar[bool] = False

    def __call__(self, scores: Floats, base: float) -> Floats:
        return np.ones_like(scores)


_WEIGHTINGS: dict[str, type[Any]] = {kind.name: kind for kind in (Shift, Softmax, Power, Uniform)}


def weighting_from(spec: str | Weighting) -> Weighting:
    """Return the weight function that a name stands for; a weight function stands for itself."""
    if not isinstance(spec, str):
        weighting_settings(spec)
        return spec
    if spec not in _WEIGHTINGS:
        raise InvalidArgument(
            f"unknown weighting {shown(spec)}: use one of {', '.join(map(repr, _WEIGHTINGS))}."
        )
    weighting: Weighting = _WEIGHTINGS[spec]()
    return weighting


def weighting_settings(weighting: Weighting) -> dict[str, Any]:
    """Return what is stored of a weight function, so that a buffer is reopened with the same one."""
    if type(weighting) not in _WEIGHTINGS.values():
        names = ", ".join(kind.__name__ for kind in _WEIGHTINGS.values())
        raise InvalidArgument(
            f"weighting must be a name or one of {names}, got {shown(weighting)}."
        )
    parameters = dataclasses.asdict(weighting)  # type: ignore[call-overload]
    return {"name": weighting.name, **{name: float(value) for name, value in parameters.items()}}


def weighting_from_settings(settings: dict[str, Any]) -> Weighting:
    """Return the weight function that `weighting_settings` described."""
    # PostgreSQL's JSON gives 1e300 back as an integer, which is not equal to it.
    parameters = {
        key: float(value) if isinstance(value, int) else value
        for key, value in settings.items()
        if key != "name"
    }
    weighting: Weighting = _WEIGHTINGS[settings["name"]](**parameters)
    return weighting
