"""The arithmetic of the exponential race, and the weight functions. Arrays in, arrays out; no SQL.

Sample i arrives at time Exp(1) / w_i; the k first arrivals are k draws without replacement with probability
proportional to weight (Efraimidis and Spirakis 2006). The arrival time is kept as the sample's *race key*, and the
largest key drawn so far is the *clock*. Exponentials have no memory, so what is left of a waiting key beyond the clock
is again Exp(1) / w_i: the race can go on for ever, with late arrivals and changed weights, and stays exact.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import is_positive, require_real
from sqlbuffer.errors import InvalidArgument

FLOOR = 1e-8
"""Weight of the lowest score under `Shift`, as in the original."""

LEAST, MOST = 1e-150, 1e150
"""Range of the weights above 0: neither a key, variate / weight, nor a ratio of two weights leaves float64 in it."""

TIE = slice(8, 16)
"""The bytes of a hash that decide between equal keys or weights: others than those that hold a row out."""

_REPLAY = 0x5245504C4159
"""First of what names an entry in replay mode: no such name is one of consume mode."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def exponentials(seed: int, hashes: NDArray[np.uint8], *, turn: int, requeues: Ints) -> Floats:
    """Return one Exp(1) variate a sample, a pure function of what makes this entry into the race distinct.

    The same seed, sample, turn and requeues give the same variate on every database, in any order of insertion. The
    clock itself is not part of it: a last-bit difference in the clock would change every later draw.

    Args:
        seed: Seed of the buffer, any integer; taken modulo 2**64.
        hashes: (n, 16) uint8, the canonical hashes.
        turn: Batches drawn so far, those released taken off.
        requeues: (n,) int, how often each sample was added again after it had left the pool.

    Returns:
        (n,) float64, each in (0, 37).

    Source:
        The mix is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    return _variates(seed, *_words(hashes), np.uint64(turn % 2**64), requeues.astype(np.uint64))


def replayed_exponentials(
    seed: int, hashes: NDArray[np.uint8], *, requeues: Ints, entries: Ints
) -> Floats:
    """Return one Exp(1) variate a sample for a race in replay mode, where a sample enters again after each draw.

    An entry is named by its number, not by the turn: a turn comes twice where a batch is released, and concurrent
    draws share one. Two entries with one variate would make two batches depend on each other.

    Args:
        seed: Seed of the buffer, any integer; taken modulo 2**64.
        hashes: (n, 16) uint8, the canonical hashes.
        requeues: (n,) int, how often each sample was added again after it had left the pool.
        entries: (n,) int, how often each sample has entered the race since then, this time included.

    Returns:
        (n,) float64, each in (0, 37).
    """
    counts = requeues.astype(np.uint64), entries.astype(np.uint64)
    return _variates(_REPLAY, np.uint64(seed % 2**64), *_words(hashes), *counts)


def _words(hashes: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(hashes).view("<u8").astype(np.uint64).reshape(-1, 2)
    return words[:, 0], words[:, 1]


def _variates(first: int, *words: NDArray[np.uint64] | np.uint64) -> Floats:
    """Return Exp(1) variates that numbers stand for, mixed in their order."""
    with np.errstate(over="ignore"):
        bits = _mix(np.array([first % 2**64], dtype=np.uint64))
        for word in words:
            bits = _mix(bits ^ word)
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(uniform)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def joined(clock: float, variates: Floats, weights: Floats) -> Floats:
    """Return the keys of samples that join the race now: `clock + e / w`, and +inf where w is 0 or NaN."""
    with np.errstate(divide="ignore", over="ignore"):
        keys = clock + variates / weights
    return np.where(weights > 0, keys, np.inf)


def rescaled(keys: Floats, clock: float, old: Floats, new: Floats) -> Floats:
    """Return the keys after a change of weights: what is left beyond the clock stretches by `old / new`.

    A key at or before the clock has won already (its batch was released) and stays. Both weights must be positive.
    """
    with np.errstate(over="ignore"):
        return np.where(keys > clock, clock + (keys - clock) * (old / new), keys)


def turned_back(keys: Floats, clock: float) -> Floats:
    """Return keys as they stand when what was `clock` is 0: all differences stay, as far as float64 resolves them.

    It does not far behind the clock, where only the order of keys counts: unlike ones stay unlike, by the last bit.
    """
    each, which = np.unique(keys, return_inverse=True)
    back: Floats = each - clock
    if not np.all(np.diff(back[each <= clock]) > 0.0):
        for i in range(int(np.sum(each <= clock)) - 2, -1, -1):
            if back[i] >= back[i + 1]:
                back[i] = np.nextafter(back[i + 1], -np.inf)
    return back[which]


def inclusion_probability(weights: Floats, start: float, threshold: float) -> Floats:
    """Return the chance of each sample to be among the winners, given the first key that was not: `1 - e^(-w (t - c))`.

    Source:
        Priority sampling's threshold (Duffield, Lund and Thorup 2007) applied to exponential keys.
    """
    return (
        -np.expm1(-weights * max(threshold - start, 0.0))
        if math.isfinite(threshold)
        else np.ones_like(weights)
    )


def arrival_probability(weights: Floats, keys: Floats, clock: float, threshold: float) -> Floats:
    """Return the chance of each arrival to be in a draw that began at a clock, given the first key that was not drawn.

    Keys at or before the clock are *overdue*: they were drawn and given back, and come first for certain. A draw that
    ends among them, or with the last of them, says nothing of what stands behind, which it could not reach: NaN for
    all. A draw that takes all there is, the threshold being infinite, takes each for certain.

    Args:
        weights: (n,) weights of the arrivals.
        keys: (n,) their keys.
        clock: Where the race stood before the draw.
        threshold: First key that was not drawn, infinity where nothing was left.
    """
    is_overdue = keys <= clock
    if math.isfinite(threshold) and len(keys) and is_overdue.all():
        return np.full_like(weights, math.nan)
    return np.where(is_overdue, 1.0, inclusion_probability(weights, clock, threshold))


def is_blurred(clock: float, weights: Floats) -> bool:
    """Tell whether float64 at this clock resolves less than a millionth of the gaps between arrivals of such weights.

    So it is after samples of tiny weight have been drawn: the clock has jumped by 1 / weight.
    """
    total = min(float(np.nansum(weights)), 1e300)
    return total > 0 and float(np.spacing(clock)) * 1e6 > 1.0 / total


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
