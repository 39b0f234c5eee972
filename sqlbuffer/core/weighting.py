"""Weight functions: scores to weights of the race. Arrays in, arrays out; no SQL."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer._validation import is_positive, require_real
from sqlbuffer.errors import InvalidArgument

FLOOR = 1e-8
"""Weight of the lowest score under `Shift`, as in MRL."""

LEAST, MOST = 1e-150, 1e150
"""Range of positive weights: within it, keys and ratios of two weights fit into float64."""


class Weighting(Protocol):
    """A weight function: monotone in score, so the best scores have the largest weights."""

    name: ClassVar[str]
    needs_score: ClassVar[bool]
    """False if every sample has a weight as soon as it is added."""
    needs_base: ClassVar[bool]
    """True if a weight depends on the lowest score of the pool."""

    def __call__(self, scores: Floats, base: float) -> Floats:
        """Return (n,) non-negative weights.

        Args:
            scores: (n,) float, no NaN.
            base: Lowest score of the pool.
        """
        ...


def shift_base(base: float) -> float:
    """Return the lowest score, clipped so that differences of scores are valid weights."""
    return min(max(base, -MOST / 2), MOST / 2)


@dataclasses.dataclass(frozen=True)
class Shift:
    """`score - lowest score of the pool + 1e-8`; scores are clipped to +-5e149.

    Examples:
        >>> import numpy as np
        >>> from sqlbuffer import Shift
        >>> Shift()(np.array([2.0, 3.0, 5.0]), base=2.0)
        array([1.00000000e-08, 1.00000001e+00, 3.00000001e+00])
    """

    name: ClassVar[str] = "shift"
    needs_score: ClassVar[bool] = True
    needs_base: ClassVar[bool] = True

    def __call__(self, scores: Floats, base: float) -> Floats:
        return np.maximum(np.clip(scores, -MOST / 2, MOST / 2) - shift_base(base), 0.0) + FLOOR


@dataclasses.dataclass(frozen=True)
class Softmax:
    """`exp(score / temperature)`, the exponent clipped to +-345.

    Args:
        temperature: Positive; the lower, the greedier.

    Examples:
        >>> import numpy as np
        >>> from sqlbuffer import Softmax
        >>> Softmax(temperature=2.0)(np.array([0.0, 2.0]), base=0.0).round(3)
        array([1.   , 2.718])
        >>> open_store("sqlite:///soft.db", weighting=Softmax(2.0)).stats().kind
        'softmax'
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
    """`score ** alpha` for positive scores, and 0 for weights below 1e-150.

    Args:
        alpha: Positive; 1 is proportional to score.

    Source:
        Prioritised replay (Schaul et al. 2016).

    Examples:
        >>> import numpy as np
        >>> from sqlbuffer import Power
        >>> Power(alpha=0.5)(np.array([-1.0, 0.0, 4.0]), base=-1.0)
        array([0., 0., 2.])
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
    """Weight 1 for every sample, scored or not.

    Examples:
        >>> import numpy as np
        >>> from sqlbuffer import Uniform
        >>> Uniform()(np.array([2.0, np.nan]), base=0.0)
        array([1., 1.])
    """

    name: ClassVar[str] = "uniform"
    needs_score: ClassVar[bool] = False
    needs_base: ClassVar[bool] = False

    def __call__(self, scores: Floats, base: float) -> Floats:
        return np.ones_like(scores)


_WEIGHTINGS: dict[str, type[Any]] = {kind.name: kind for kind in (Shift, Softmax, Power, Uniform)}


def weighting_from(spec: str | Weighting) -> Weighting:
    """Return the weight function of a name; a weight function is returned as it is.

    Raises:
        InvalidArgument: If it is neither.
    """
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
    """Return the name and the parameters of a weight function, as a buffer stores them.

    Raises:
        InvalidArgument: If it is not a weight function.
    """
    if type(weighting) not in _WEIGHTINGS.values():
        names = ", ".join(kind.__name__ for kind in _WEIGHTINGS.values())
        raise InvalidArgument(
            f"weighting must be a name or one of {names}, got {shown(weighting)}."
        )
    parameters = dataclasses.asdict(weighting)  # type: ignore[call-overload]
    return {"name": weighting.name, **{name: float(value) for name, value in parameters.items()}}


def weighting_from_settings(settings: dict[str, Any]) -> Weighting:
    """Return the weight function of stored settings (`weighting_settings`)."""
    # PostgreSQL's JSON returns 1e300 as an integer, which is not equal to the float.
    parameters = {
        key: float(value) if isinstance(value, int) else value
        for key, value in settings.items()
        if key != "name"
    }
    weighting: Weighting = _WEIGHTINGS[settings["name"]](**parameters)
    return weighting
